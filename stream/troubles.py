"""Says that work fails once when it begins to, then once a minute, and once when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

AGAIN_S: Final = 60.0

log = structlog.get_logger(__name__)


@dataclass
class _Trouble:
    since: float
    told: float
    times: int = 0


class Troubles:
    """Log lines about work that is repeated for ever: a server that is away fails it several times a second.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failing: dict[str, _Trouble] = {}

    def failed(self, what: str, error: Exception) -> None:
        """A round of some work has failed."""
        now = self._clock()
        trouble = self._failing.get(what)
        if trouble is None:
            trouble = self._failing[what] = _Trouble(now, now)
        elif now < trouble.told + AGAIN_S:
            trouble.times += 1
            return
        trouble.times, trouble.told = trouble.times + 1, now
        log.warning("background_work_failed", what=what, reason=str(error) or repr(error), times=trouble.times)

    def done(self, what: str) -> None:
        """A round of some work has succeeded."""
        trouble = self._failing.pop(what, None)
        if trouble is not None:
            seconds = round(self._clock() - trouble.since, 1)
            log.warning("background_work_goes_on", what=what, seconds=seconds, times=trouble.times)

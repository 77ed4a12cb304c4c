"""Says that work fails once when it begins to, then once a minute, and once when it is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import structlog

from stream.errors import UnavailableError

AGAIN_S: Final = 60.0
PAUSE_S: Final = 0.25

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


async def for_ever(
    work: Callable[[], Coroutine[Any, Any, None]], stopping: Callable[[], bool], troubles: Troubles
) -> None:
    """Begin work again that was cancelled although the worker goes on.

    Faust ends such a task with one line and goes on without it. Seen where a process had been frozen for minutes:
    whose cancellation it was is not known; timeouts inside of each other that expire at once can leave one over.
    """
    name, again = work.__qualname__, False
    while True:
        try:
            if again:
                await asyncio.sleep(PAUSE_S)
                troubles.done(name)
            await work()
        except asyncio.CancelledError:
            if stopping():
                raise
            troubles.failed(name, UnavailableError("cancelled, and nobody asked for it"))
            again = True

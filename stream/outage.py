"""Says once that a server is away and once that it is back, however often it was asked in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

log = structlog.get_logger(__name__)


class Outage:
    """Whether a server is away, as those who ask it find out.

    It is away from the first failure on, and back when somebody succeeds while nobody else waits any more: in a cluster
    that misses one node, most calls succeed all the time.

    Parameters
    ----------
    server
        Its name in log lines.
    clock
        Monotonic seconds.

    Attributes
    ----------
    trouble
        What is wrong, empty while the server answers.
    """

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.trouble = ""
        self._server = server
        self._clock = clock
        self._waiting = 0
        self._since = 0.0

    @contextmanager
    def asking(self) -> Iterator[Callable[[str], None]]:
        """Around one request and its repetitions; the function it gives is told each failure."""
        failing = False

        def failed(trouble: str) -> None:
            nonlocal failing
            self._waiting += not failing
            failing = True
            self.begin(trouble)

        try:
            yield failed
        except BaseException:  # cancelled, or refused for good: says nothing about whether it is back
            self._waiting -= failing
            raise
        self._waiting -= failing
        if self.trouble and not self._waiting:
            self.end()

    def begin(self, trouble: str) -> None:
        """The server is away; logged once."""
        if not self.trouble:
            self._since = self._clock()
            log.warning(f"{self._server}_away", trouble=trouble)
        self.trouble = trouble

    def end(self) -> None:
        """The server is back; logged once."""
        if self.trouble:
            log.warning(f"{self._server}_back", seconds=round(self._clock() - self._since, 1), trouble=self.trouble)
        self.trouble = ""

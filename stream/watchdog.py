"""The last line of defence: a plain thread that ends a process which is alive but does nothing.

It is a thread because everything in an event loop may be what hangs; it exits hard because an orderly end would have to
go through what hangs. State is safe: snapshots are the truth, and whoever supervises the process starts it again.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import structlog

log = structlog.get_logger(__name__)

EXIT_CODE: Final = 70
"""What a stalled process ends with (EX_SOFTWARE)."""


class Standstill(NamedTuple):
    """What does not get on although it should, and for how many seconds."""

    what: str
    seconds: float


class Watchdog(threading.Thread):
    """Ends the process when its event loop stands still, or when something else has stood still for too long.

    Time is counted in beats: a process that was itself stopped for minutes is not blamed for it.

    Parameters
    ----------
    loop
        Event loop that must go on turning.
    feel
        Called in the event loop once a beat with the seconds since the one before; gives what has stood still longest.
    patience_s
        How long something may stand still. Above the longest rebalance and load of a snapshot.
    hard_exit
        Called once with :data:`EXIT_CODE`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        feel: Callable[[float], Standstill | None],
        patience_s: float,
        hard_exit: Callable[[int], None],
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._loop, self._feel, self._patience_s, self._hard_exit = loop, feel, patience_s, hard_exit
        self._pause_s = min(1.0, patience_s / 4)
        self._silent_s = 0.0  # without a beat; written by this thread only
        self._turned = threading.Event()
        self._longest: Standstill | None = None

    def run(self) -> None:
        """Watch until the loop is closed."""
        while not self._loop.is_closed():
            waiting = self._silent_s > 0  # the last beat still waits for its turn
            self._silent_s += self._pause_s
            if not waiting:
                self._turned.clear()
                try:
                    self._loop.call_soon_threadsafe(self._beat)
                except RuntimeError:  # closed in between
                    return
            time.sleep(self._pause_s)
            found: Standstill | None = Standstill("the event loop", self._silent_s)
            if self._turned.is_set():
                found, self._silent_s = self._longest, 0.0
            if found is not None and found.seconds > self._patience_s:
                log.critical("stalled", what=found.what, seconds=round(found.seconds), exit_code=EXIT_CODE)
                self._hard_exit(EXIT_CODE)
                return

    def _beat(self) -> None:
        self._longest = self._feel(self._silent_s)
        self._turned.set()

"""The last line of defence: a plain thread that ends a process which is alive but does nothing.

It is a thread because everything in an event loop may be what hangs; it exits hard because an orderly end would have to
go through what hangs. State is safe: snapshots are the truth, and whoever supervises the process starts it again.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

EXIT_CODE = 70
"""What a stalled process ends with (EX_SOFTWARE)."""


class Watchdog(threading.Thread):
    """Ends the process when its event loop stands still, or when ``stalled`` keeps giving a reason.

    Parameters
    ----------
    loop
        Event loop that must go on turning.
    stalled
        Called in this thread, twice a second at most: why nothing moves, or None.
    patience_s
        How long something must last, without a break. Above the longest rebalance and load of snapshots.
    hard_exit
        Called once with :data:`EXIT_CODE`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stalled: Callable[[], str | None],
        patience_s: float,
        hard_exit: Callable[[int], None],
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._loop, self._stalled, self._patience_s, self._hard_exit = loop, stalled, patience_s, hard_exit
        self._beaten_at = self._moving_at = time.monotonic()

    def run(self) -> None:
        """Watch until the loop is closed."""
        pause = min(1.0, self._patience_s / 4)
        while not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._beat)
            except RuntimeError:  # closed in between
                return
            time.sleep(pause)
            if reason := self._reason(time.monotonic()):
                log.critical("Stalled for %g s: %s. The process ends", self._patience_s, reason)
                self._hard_exit(EXIT_CODE)
                return

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()

    def _reason(self, now: float) -> str | None:
        if now - self._beaten_at > self._patience_s:
            return "the event loop stands still"
        reason = self._stalled()
        if reason is None:
            self._moving_at = now
        return reason if now - self._moving_at > self._patience_s else None

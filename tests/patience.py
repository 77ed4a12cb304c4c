"""How long tests wait for what must happen: a busy machine is no fault, and a limit that is met costs nothing."""

from __future__ import annotations

import time
from typing import Final

PATIENCE_S: Final = 120.0
STEP_S: Final = 1.0


class Patience:
    """Seconds to wait, counted in steps: a test run that was itself stopped for a minute has waited for a second.

    Parameters
    ----------
    seconds
        How many.
    """

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self.seconds = self._left = seconds
        self._at = time.monotonic()

    def ended(self) -> bool:
        """Whether all of it is over; to be asked every now and then."""
        now = time.monotonic()
        self._left -= min(now - self._at, STEP_S)
        self._at = now
        return self._left < 0

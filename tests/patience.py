"""How long tests wait for what must happen: a busy machine is no fault, and a limit that is met costs nothing."""

from __future__ import annotations

from typing import Final

PATIENCE_S: Final = 120.0

"""What a check has found."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "warning", "problem", "unknown"]


class Finding(msgspec.Struct, frozen=True):
    """One check and its outcome.

    Attributes
    ----------
    area
        ``kafka``, ``redis`` or ``machine``.
    check
        What was looked at.
    state
        ``problem``: a worker will not run, or not as promised. ``warning``: it runs, and something is likely to be
        regretted. ``unknown``: the check could not be made; `detail` says why.
    detail
        What was seen.
    fix
        One sentence: what to do; empty only where all is well.
    """

    area: Literal["kafka", "redis", "machine"]
    check: str
    state: State
    detail: str
    fix: str = ""

    def __post_init__(self) -> None:
        """Refuse to leave somebody alone with what is not well."""
        if self.state != "ok" and not self.fix:
            raise ValueError(f"{self.area} {self.check} is {self.state} and nothing says what to do")

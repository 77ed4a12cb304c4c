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
        One sentence: what to do; empty where nothing is to be done.
    """

    area: Literal["kafka", "redis", "machine"]
    check: str
    state: State
    detail: str
    fix: str = ""

"""Clocks that differ: event times are capped by the broker's, lifetimes run on Redis', offers end on the reader's."""

from __future__ import annotations

from typing import Final, Literal

from stream.doctor.finding import Finding

TOLERATED_S: Final = 2.0


def judge_clock(area: Literal["kafka", "redis"], ahead_s: float, uncertain_s: float = 0.0) -> Finding:
    """Judge a server's clock against ours.

    Parameters
    ----------
    area
        Whose clock.
    ahead_s
        Its time minus ours; negative if it is behind.
    uncertain_s
        How wrong that may be: half of what the question took.

    Examples
    --------
    >>> judge_clock("redis", 0.004, 0.001).state, judge_clock("redis", -90.0).state
    ('ok', 'problem')
    """
    far = abs(ahead_s) > TOLERATED_S + uncertain_s
    detail = f"{abs(ahead_s):.3f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's (± {uncertain_s:.3f} s)"
    fix = "Let both machines follow the same time servers (chrony, systemd-timesyncd)." if far else ""
    return Finding(area, "clock", "problem" if far else "ok", detail, fix)

"""Points in time and durations as people type them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from stream.errors import BadInputError
from stream.events import timestamp_us

UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
LEAST_MS: Final = 100_000_000_000  # 1973 in ms: smaller numbers could as well be offsets


def duration_ms(text: str) -> int | None:
    """Milliseconds of ``90s``, ``15m``, ``2h``, ``7d``; None if the text is no duration.

    Examples
    --------
    >>> duration_ms("1.5h"), duration_ms("tomorrow")
    (5400000, None)
    """
    found = _DURATION.fullmatch(text)
    return None if found is None else round(float(found[1]) * UNITS_MS[found[2]])


def moment_ms(option: str, text: str, now_ms: int) -> int:
    """Milliseconds since 1970 of ISO-8601 (without an offset: UTC), unix ms, ``now``, or a duration before now.

    Raises
    ------
    BadInputError
        If the text is none of these; names the option.

    Examples
    --------
    >>> moment_ms("--from", "2024-01-01T00:00:00Z", 0), moment_ms("--from", "1h", 3_600_001)
    (1704067200000, 1)
    """
    if text == "now":
        return now_ms
    ago = duration_ms(text)
    if ago is not None:
        return now_ms - ago
    try:
        if text.isdecimal():
            if int(text) >= LEAST_MS:
                return timestamp_us(int(text)) // 1_000
        else:
            return timestamp_us(text) // 1_000
    except (ValueError, OverflowError):
        pass
    raise BadInputError(
        f"{option} takes a time (2026-01-31T12:00:00Z, or unix ms) or a duration (90s, 2h), not {text!r}"
    )


def iso(us: int) -> str:
    """A time in UTC, in microseconds since 1970, as ISO-8601 that sorts.

    Examples
    --------
    >>> iso(1_704_067_200_000_000)
    '2024-01-01T00:00:00.000Z'
    """
    moment = dt.datetime.fromtimestamp(us // 1_000_000, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{us // 1_000 % 1_000:03d}Z"

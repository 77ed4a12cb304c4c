"""What a worker would make of values, counted: for ``rivulet check`` and dry runs."""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from stream.decoding import decode, json_of
from stream.moments import iso
from stream.recordings.records import Raw

SHOWN: Final = 5  # lines named per reason
OURS: Final = "rivulet"


class Refusals(msgspec.Struct):
    """How often a reason refused something, and the first of it."""

    count: int = 0
    first: list[tuple[int, str]] = []


class Verdicts(msgspec.Struct):
    """What lines would become.

    Attributes
    ----------
    lines
        Lines that are not empty; one may hold several events.
    taken, refused, controls
        They add up to all events, of however many lines.
    first, last
        Earliest and latest time of the taken events, ISO-8601; None without any.
    shapes, events
        Taken events by shape (``rivulet`` is our own schema) and by name.
    reasons
        What was refused, with line number and detail of the first few.
    """

    lines: int = 0
    taken: int = 0
    refused: int = 0
    controls: int = 0
    first: str | None = None
    last: str | None = None
    shapes: Counter[str] = msgspec.field(default_factory=Counter)
    events: Counter[str] = msgspec.field(default_factory=Counter)
    reasons: dict[str, Refusals] = {}

    def add(self, line: int, value: bytes, now_ms: int, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
        """Judge one value as a worker would, had it been sent now."""
        batch = decode([Raw(line, now_ms, None, value, headers)])
        self.lines += 1
        self.taken += len(batch.raw)
        self.controls += len(batch.controls)
        self.shapes.update(batch.shapes)
        if ours := len(batch.raw) - len(batch.shapes):
            self.shapes[OURS] += ours
        self.events.update(_decode_name(json_of(raw)).event_name for raw in batch.raw)
        if batch.ts:
            first, last = iso(min(batch.ts)), iso(max(batch.ts))
            self.first = min(self.first or first, first)
            self.last = max(self.last or last, last)
        for dead in batch.dead:
            self.refuse(line, dead.reason, dead.detail)

    def refuse(self, line: int, reason: str, detail: str) -> None:
        """Count a refusal."""
        self.refused += 1
        refusals = self.reasons.setdefault(reason, Refusals())
        refusals.count += 1
        if len(refusals.first) < SHOWN:
            refusals.first.append((line, detail))


class _Named(msgspec.Struct):
    event_name: str


_decode_name: Final = msgspec.json.Decoder(_Named).decode

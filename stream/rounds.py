"""What a replay publishes: a choice of a recording's events by time, once or in rounds, as themselves or as others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import msgspec

from stream.decoding import decode, fields_of, json_of
from stream.errors import BadInputError
from stream.events import Forget, timestamp_us
from stream.recordings.files import Meter, OnBad
from stream.recordings.mapping import FieldMap
from stream.recordings.reading import read
from stream.recordings.records import Parcel, Raw, restore

GAP_US: Final = 1_000_000  # between the last event of a round and the first of the next

Item = dict[str, Any] | Parcel


class Source:
    """Items of some files, in order; may be read again.

    Attributes
    ----------
    where
        File and line of the item that was yielded last.
    left_out
        Control records that are not replayed.
    """

    def __init__(
        self, files: Sequence[str], fields: FieldMap | None, on_bad: OnBad, meter: Meter | None = None
    ) -> None:
        self._files, self._fields, self._on_bad, self._meter = files, fields, on_bad, meter
        self._file, self._line = "", 0
        self.left_out = 0

    @property
    def where(self) -> str:
        """File and line of the item that was yielded last."""
        return f"{self._file}, line {self._line}"

    def __iter__(self) -> Iterator[Item]:
        for file in self._files:
            self._file = file
            try:
                for line, found in read(file, self._on_bad, self._fields, self._meter):
                    self._line = line
                    if isinstance(found, dict):
                        yield found
                    else:
                        parcels, left_out = restore(*found)
                        self.left_out += left_out
                        yield from parcels
            except BadInputError as error:  # what is behind it in this file cannot be read
                self._on_bad(error)


@dataclass(frozen=True, slots=True)
class Users:
    """How visitors are renamed: a pattern with ``{user}`` and ``{round}``, or what is put behind the name."""

    pattern: str = ""

    def __post_init__(self) -> None:
        try:
            self.of("", 1)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"--users takes a suffix or a pattern with {{user}} and {{round}}, not {self.pattern!r}"
            ) from error

    def of(self, user: str, number: int) -> str:
        """A visitor's name in a round, which counts from 1."""
        if not self.pattern:
            return user
        whole = self.pattern if "{user}" in self.pattern else "{user}" + self.pattern
        return whole.format(user=user, round=number)


def time_us(item: Item) -> int | None:
    """Event time of an item; None if it has none."""
    if isinstance(item, Parcel):
        return item.ts_us
    stamp = item.get("event_timestamp")
    return None if stamp is None else timestamp_us(stamp)


def between(items: Iterable[Item], start_us: int | None, until_us: int | None) -> Iterator[Item]:
    """Items from a time on and before another; with a bound, those without a time are left out."""
    if start_us is until_us is None:
        yield from items
        return
    for item in items:
        ts = time_us(item)
        if ts is not None and (start_us is None or ts >= start_us) and (until_us is None or ts < until_us):
            yield item


def rounds(open_items: Callable[[], Iterable[Item]], most: int | None, users: Users) -> Iterator[Item]:
    """Items again and again, each round's times behind the one before.

    Parameters
    ----------
    open_items
        Begins at the first item again.
    most
        Number of rounds; None = for ever.
    users
        How visitors are renamed; without, the same ones come again.

    Notes
    -----
    From the second round on, and wherever users are renamed, event and session ids are told apart by ``~<round>``: as
    repeats of the first round they would not count.
    """
    shift_us = 0
    for number in count(1) if most is None else range(1, most + 1):
        first, last = None, None
        for item in open_items():
            ts = time_us(item)
            if ts is not None:
                first, last = ts if first is None else min(first, ts), ts if last is None else max(last, ts)
            if number == 1 and not users.pattern:
                yield item
            else:
                yield from _reshaped(item, number, shift_us, users)
        if first is None or last is None:
            return
        shift_us += last - first + GAP_US


def _reshaped(item: Item, number: int, shift_us: int, users: Users) -> Iterator[Item]:
    if not isinstance(item, Parcel):
        yield _renamed(item, number, shift_us, users)
        return
    batch = decode([Raw(item.place[1], item.recorded_ms, item.key, item.value, item.headers)])
    for raw in batch.raw:
        yield _renamed(fields_of(json_of(raw)), number, shift_us, users)
    for _, control in batch.controls:
        if isinstance(control, Forget):
            control.user = users.of(control.user, number)
            control.asked_ms = (control.asked_ms or item.recorded_ms) + shift_us // 1000
            yield item._replace(
                value=msgspec.json.encode(control), key=control.user.encode(), ts_us=item.ts_us + shift_us
            )
    for dead in batch.dead:
        yield item._replace(value=dead.original, headers=(), ts_us=item.ts_us + shift_us)


def _renamed(event: Mapping[str, Any], number: int, shift_us: int, users: Users) -> dict[str, Any]:
    changed = dict(event)
    if changed.get("event_timestamp") is not None:
        changed["event_timestamp"] = timestamp_us(changed["event_timestamp"]) + shift_us
    for field in ("user_id", "user_pseudo_id"):
        if changed.get(field) is not None:
            changed[field] = users.of(changed[field], number)
    for field in ("event_id", "session_id"):
        if changed.get(field) is not None:
            changed[field] = f"{changed[field]}~{number}"
    return changed

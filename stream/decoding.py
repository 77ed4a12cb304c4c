"""From the bytes of one fetch to columns: decode, validate, judge each event on its own.

What is not valid becomes a `DeadLetter` with reason, identity and the original bytes; it never stops the stream. The
columns are plain lists, because the next step turns them into arrays once per batch instead of once per event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import UNSET

from models.decay import YEAR_2000_S
from stream.adapters import (
    BEGINNING,
    UNREADABLE,
    LetterReason,
    Refused,
    Shape,
    adapt,
    beginnings,
    cut,
    guess,
    recognise,
)
from stream.adapters.cloudevents import Headers, attributes, binary
from stream.batch import Batch, DeadLetter, Record
from stream.events import (
    MAX_ELEMENTS,
    MAX_ITEMS,
    MAX_RECORD_BYTES,
    MAX_RECORD_ITEMS,
    Back,
    Control,
    Event,
    Id,
    Joined,
    Link,
    Linked,
    Past,
    RankAgain,
    Request,
    Returned,
)
from stream.taking import YEAR_2100_US, check_id, taker

__all__ = ["Batch", "DeadLetter", "Record", "decode", "decode_request", "fields_of", "json_of"]

MAX_DETAIL: Final = 200  # characters of a dead letter's detail: it quotes what was sent


class _Event(Event, kw_only=True):
    """Our event as far as it is ours: what else it may be is seen without an exception, which would cost most of all.

    The name may be absent, as other shapes have none; and it may say what only a row of GA4's export or an enriched
    Snowplow event says.
    """

    event_name: Id = ""
    event_date: msgspec.Raw | msgspec.UnsetType = UNSET
    collector_tstamp: msgspec.Raw | msgspec.UnsetType = UNSET


class _Tagged(msgspec.Struct):
    control: str  # required here; msgspec lets a tag be absent


_NAME: Final = b'"event_name"'
_NAMELESS: Final = _Event()
_decode_event: Final[Callable[[bytes], _Event]] = msgspec.json.Decoder(_Event).decode
_decode_anyway: Final[Callable[[bytes], Event]] = msgspec.json.Decoder(Event).decode
_encode_event: Final = msgspec.json.Encoder().encode
_decode_control: Final[Callable[[bytes], Control]] = msgspec.json.Decoder(Control).decode
_decode_tag: Final[Callable[[bytes], _Tagged]] = msgspec.json.Decoder(_Tagged).decode
_decode_array: Final[Callable[[bytes], list[msgspec.Raw]]] = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_fields: Final = msgspec.json.Decoder(dict[str, Any]).decode
_decode_unread: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any: Final[Callable[[bytes], Any]] = msgspec.json.Decoder().decode


def decode(
    records: Sequence[Record], most: int | None = None, until: tuple[type, ...] = (), batch: Batch | None = None
) -> Batch:
    """Decode and validate one fetch.

    Parameters
    ----------
    records
        Records of one partition, in offset order.
    most
        Most events of one record; a record with more is a dead letter as a whole. None: as many as fit.
    until
        Kinds of control records behind which nothing more is read.
    batch
        What was decoded of the records before these, to go on with.

    Returns
    -------
    Batch
        Columns of the valid events in stream order, dead letters and control records.

    Notes
    -----
    About 2 us per event, a third of it msgspec's.
    """
    batch = batch or Batch()
    judge = _Judge(batch, most)
    take, controls = judge.take, batch.controls
    for record in records:
        if controls and isinstance(controls[-1][1], until):
            break
        value = record.value
        if not value or len(value) > MAX_RECORD_BYTES:
            size = f"{len(value or b'')} bytes"
            batch.dead.append(_letter(record, 0, "too_large" if value else "empty", size, value or b""))
            continue
        if beginnings and value[:BEGINNING] in beginnings and not record.headers and judge.guessed(record, 0, value):
            continue
        if value.find(_NAME) < 0:  # not simply ours: spares a failing attempt, which is dear
            judge.other(record, value)
            continue
        try:
            event = _decode_event(value)
        except UNREADABLE:
            judge.other(record, value)
            continue
        ours = event.event_name and event.event_date is event.collector_tstamp is UNSET
        if not ours or (event.event_id is None and record.headers and binary(record.headers)):
            judge.other(record, value)
            continue
        try:
            take(event, record, 0, value)
        except Refused as verdict:
            batch.dead.append(_letter(record, 0, verdict.reason, verdict.detail, value))
    return batch


def json_of(raw: bytes) -> bytes:
    """A taken event in our schema; another shape is mapped again, cheaper than to keep what all became."""
    found = adapt(raw, recognise(raw)[0])
    return raw if found is None else _encode_event(found[1])


def fields_of(raw: bytes) -> dict[str, Any]:
    """Fields of a taken event, also those that are not ours; without what can only be passed over unread (1e999).

    Names and texts that are not ours may be no UTF-8 either: they get U+FFFD for what is none.
    """
    try:
        return _decode_fields(raw)
    except UNREADABLE:
        found = {}
        for name, value in _decode_unread(raw.decode(errors="replace")).items():
            with suppress(*UNREADABLE):
                found[name] = _decode_any(value)
        return found


def _letter(record: Record, index: int, reason: LetterReason, detail: str, original: bytes) -> DeadLetter:
    # others could be named as those that say where a letter is from
    headers = attributes(record.headers) if record.headers and binary(record.headers) else ()
    return DeadLetter(
        reason, detail[:MAX_DETAIL], record.offset, index, record.key, original, record.timestamp, headers
    )


def decode_request(record: Record) -> Request | DeadLetter:
    """Decode and validate a record of topic ``privacy``."""
    batch = decode([record])
    for _, control in batch.controls:
        if isinstance(control, Request):
            return control
    for letter in batch.dead:
        return letter
    return _letter(record, 0, "unknown_shape", "neither a request to forget nor to export", record.value or b"")


class _Judge:
    """Judges what is not simply an event of ours, one value after the other."""

    def __init__(self, batch: Batch, most: int | None) -> None:
        self.batch = batch
        self.take = taker(batch)
        self._most = most

    def guessed(self, record: Record, index: int, value: bytes) -> bool:
        """Judge a value that has the shape of those that began alike; whether it has."""
        shape = beginnings[value[:BEGINNING]]
        try:
            if (event := guess(value, shape)) is None:
                return False
            self._mapped(record, index, value, shape.name, event)
        except Refused as verdict:
            self.batch.dead.append(_letter(record, index, verdict.reason, verdict.detail, value))
        return True

    def other(self, record: Record, value: bytes) -> None:
        """Judge a batch, a control record, another shape, or a dead letter."""
        batch = self.batch
        shape, marks = (None, None) if value.lstrip()[:1] == b"[" else recognise(value)
        if shape is not None and shape.split is not None:
            try:
                self._elements(record, value, cut(value, shape) or ())
            except Refused as verdict:
                batch.dead.append(_letter(record, 0, verdict.reason, verdict.detail, value))
            return
        elements = None
        if shape is None:
            if marks is not None and marks.control is not UNSET and (control := _control(value)) is not None:
                _take_control(record, value, control, batch)
                return
            elements = _array(marks.events or b"" if marks is not None else value)
        if elements is None:
            self.alone(record, 0, value, shape, record.headers)
        else:
            self._elements(record, value, elements)

    def _elements(self, record: Record, value: bytes, elements: Sequence[bytes | msgspec.Raw]) -> None:
        """Judge each of several events."""
        dead = self.batch.dead
        if self._most is not None and len(elements) > self._most:
            dead.append(_letter(record, 0, "too_large", f"{len(elements)} events, at most {self._most}", value))
        elif not elements:
            dead.append(_letter(record, 0, "empty", "a batch without events", value))
        elif len(elements) > MAX_ELEMENTS:
            dead.append(
                _letter(record, 0, "too_many", f"a batch of {len(elements)} events, at most {MAX_ELEMENTS}", value)
            )
        else:
            full = len(self.batch.touch_item) + MAX_RECORD_ITEMS
            for index, element in enumerate(elements):
                if len(self.batch.touch_item) < full:
                    self._element(record, index, bytes(element))
                else:
                    detail = f"more than {MAX_RECORD_ITEMS} items in the events before it"
                    dead.append(_letter(record, index, "too_many", detail, bytes(element)))

    def _element(self, record: Record, index: int, value: bytes) -> None:
        if beginnings and value[:BEGINNING] in beginnings and self.guessed(record, index, value):
            return
        try:
            event = _decode_event(value) if value.find(_NAME) >= 0 else _NAMELESS
            if event.event_name and event.event_date is event.collector_tstamp is UNSET:
                self.take(event, record, index, value)
                return
        except Refused as verdict:
            self.batch.dead.append(_letter(record, index, verdict.reason, verdict.detail, value))
            return
        except UNREADABLE:
            pass
        self.alone(record, index, value, recognise(value)[0])

    def alone(self, record: Record, index: int, value: bytes, shape: Shape | None, headers: Headers = ()) -> None:
        """Judge a value of one event in whatever shape."""
        try:
            found = adapt(value, shape, headers)
            if found is None:
                self.take(_decode_anyway(value), record, index, value)
                return
            name, event = found
            self._mapped(record, index, _encode_event(event) if headers and binary(headers) else value, name, event)
        except Refused as verdict:
            self.batch.dead.append(_letter(record, index, verdict.reason, verdict.detail, value))
        except UNREADABLE as error:
            self.batch.dead.append(_letter(record, index, *_fault(value, error), value))

    def _mapped(self, record: Record, index: int, value: bytes, name: str, event: Event) -> None:
        """Take an event that had another shape."""
        if event.items and len(event.items) > MAX_ITEMS:
            raise Refused("too_many", _crowd(event.items))
        self.take(event, record, index, value)
        self.batch.shapes.append(name)


def _take_control(record: Record, value: bytes, control: Control, batch: Batch) -> None:
    try:
        for user in control.users if isinstance(control, RankAgain) else ():
            check_id("users[]", user)
        if isinstance(control, Request):
            check_id("user", control.user)
            _date(control, record)
        elif isinstance(control, Linked | Joined | Returned):
            _check_moves(control.moving)
    except Refused as verdict:
        batch.dead.append(_letter(record, 0, verdict.reason, verdict.detail, value))
    else:
        batch.controls.append((record.offset, control))


def _check_moves(moving: Iterable[Link | Past | Back]) -> None:
    for each in moving:
        if not isinstance(each, Back):
            check_id("moving[].user", each.user)
        if isinstance(each, Link):
            check_id("moving[].to", each.to)
            continue
        for touch in each.touches:
            check_id("moving[].touches[].item_id", touch.item_id)


def _date(request: Request, record: Record) -> None:
    """Put in when it was asked: not after its record was written."""
    recorded_ms = min(record.timestamp, YEAR_2100_US // 1000)
    asked_ms = recorded_ms if request.asked_ms is None else min(request.asked_ms, recorded_ms)
    request.asked_ms = max(asked_ms, YEAR_2000_S * 1000)


def _array(value: bytes) -> list[msgspec.Raw] | None:
    """Elements of an array, delimited but not yet looked into: a bad one must not spoil the others."""
    try:
        return _decode_array(value)
    except UNREADABLE:
        return None


def _control(value: bytes) -> Control | None:
    try:
        return _decode_control(value) if _decode_tag(value).control else None
    except UNREADABLE:
        return None


def _fault(value: bytes, error: Exception) -> tuple[LetterReason, str]:
    """Why bytes are no event: reason and detail."""
    try:
        parsed = _decode_any(value)
    except UNREADABLE as broken:
        return "not_json", str(broken)
    if isinstance(parsed, dict) and "control" in parsed:
        return "unknown_shape", "a control record that is not known"
    items = parsed.get("items") if isinstance(parsed, dict) else None
    if isinstance(items, list) and len(items) > MAX_ITEMS:
        return "too_many", _crowd(items)
    return "schema" if isinstance(parsed, dict) else "unknown_shape", str(error)


def _crowd(items: Sequence[object]) -> str:
    return f"{len(items)} items in one event, at most {MAX_ITEMS}"

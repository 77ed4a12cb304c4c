"""From the bytes of one fetch to columns: decode, validate, judge each event on its own.

What is not valid becomes a `DeadLetter` with reason, identity and the original bytes; it never stops the stream. The
columns are plain lists, because the next step turns them into arrays once per batch instead of once per event.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET

from models.decay import YEAR_2000_S
from models.features import channel_of
from models.profiles import DENIED, GRANTED
from stream.adapters import UNREADABLE, Refused, Shape, adapt, cut, exported, recognise
from stream.adapters.cloudevents import Headers, binary
from stream.events import (
    KINDS,
    MAX_ELEMENTS,
    MAX_ID_BYTES,
    MAX_ITEMS,
    MAX_RECORD_BYTES,
    MAX_RECORD_ITEMS,
    Control,
    Event,
    Id,
    Item,
    Joined,
    Link,
    Move,
    RankAgain,
    Request,
    timestamp_us,
)

YEAR_2000_US: Final = YEAR_2000_S * 1_000_000
YEAR_2100_US: Final = 4_102_444_800_000_000  # models keep seconds since 2000 in 32 bits, until 2136
HOUR_US: Final = 3_600_000_000
MAX_DETAIL: Final = 200  # characters of a dead letter's detail: it quotes what was sent

_channel_code: Final = functools.lru_cache(1024)(lambda medium: channel_of(medium) + 1)  # 0 = not said


class Record(Protocol):
    """What is read of a Kafka record (`stream.fetches.ConsumerRecord` and aiokafka's fit)."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record, or one element of a batch, that could not be taken: why, where it was, when, and its bytes.

    `headers` are the record's where they are part of the event (CloudEvents in binary mode).
    """

    reason: str
    detail: str
    offset: int
    index: int
    key: bytes | None
    original: bytes
    recorded_ms: int = 0
    headers: Headers = ()


@dataclass(slots=True)
class Batch:
    """Events of one fetch as columns; touches (one per item of an event) refer to their event by position.

    `offset`, `index`: identity within the partition; `ts`: event time in us; `recorded`: the record's time in us;
    `kind`: code of the event name; `value`: money of a purchase, else 0; `consent`: three grants packed two bits each
    (0 = not said); `session`: session id or "" ; `raw`: the event's own bytes, in whatever shape, for
    re-keying (see `json_of`); `shapes`: how many of them had another shape, by its name; `cookies`: by position the
    cookie of an event that names it beside its customer.
    """

    offset: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    user: list[str] = field(default_factory=list)
    event_id: list[str] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    channel: list[int] = field(default_factory=list)
    consent: list[int] = field(default_factory=list)
    session: list[str] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    touch_event: list[int] = field(default_factory=list)
    touch_item: list[str] = field(default_factory=list)
    touch_category: list[str] = field(default_factory=list)
    touch_price: list[float] = field(default_factory=list)

    dead: list[DeadLetter] = field(default_factory=list)
    controls: list[tuple[int, Control]] = field(default_factory=list)
    without_id: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    cookies: dict[int, str] = field(default_factory=dict)


Take = Callable[[Event, Record, int, bytes], None]


class _Event(Event, kw_only=True):
    """Our event as far as it is ours: what else it may be is seen without an exception, which would cost most of all.

    The name may be absent, as other shapes have none; what only a row of GA4's export or an enriched Snowplow event
    says is kept as it is, as are the two objects that nobody looks into.
    """

    event_name: Id = ""
    event_date: msgspec.Raw | msgspec.UnsetType = UNSET
    collector_tstamp: msgspec.Raw | msgspec.UnsetType = UNSET
    event_params: msgspec.Raw | msgspec.UnsetType = UNSET  # type: ignore[assignment]  # see `_is_whole`
    user_properties: msgspec.Raw | msgspec.UnsetType = UNSET  # type: ignore[assignment]  # likewise


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
_decode_any: Final[Callable[[bytes], Any]] = msgspec.json.Decoder().decode


def decode(records: Sequence[Record], most: int | None = None) -> Batch:
    """Decode and validate one fetch.

    Parameters
    ----------
    records
        Records of one partition, in offset order.
    most
        Most events of one record; a record with more is a dead letter as a whole. None: as many as fit.

    Returns
    -------
    Batch
        Columns of the valid events in stream order, dead letters and control records.

    Notes
    -----
    About 2 us per event, a third of it msgspec's.
    """
    batch = Batch()
    take = _taker(batch)
    for record in records:
        value = record.value
        if not value or len(value) > MAX_RECORD_BYTES:
            reason = "too_large" if value else "empty"
            batch.dead.append(_letter(record, 0, reason, f"{len(value or b'')} bytes", value or b""))
            continue
        if _NAME not in value:  # not simply ours: spares a failing attempt, which is dear
            _take_other(record, value, batch, take, most)
            continue
        try:
            event = _decode_event(value)
        except UNREADABLE:
            _take_other(record, value, batch, take, most)
            continue
        if event.event_date is not UNSET or event.collector_tstamp is not UNSET:
            _take_shape(record, 0, value, exported(event), batch, take, record.headers)
            continue
        odd = event.event_params is not UNSET or event.user_properties is not UNSET
        if odd or not event.event_name or (event.event_id is None and record.headers):  # perhaps not ours after all
            odd = not _is_whole(event) or (event.event_id is None and binary(record.headers))
        if odd:
            _take_other(record, value, batch, take, most)
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


def _letter(record: Record, index: int, reason: str, detail: str, original: bytes) -> DeadLetter:
    headers = record.headers if record.headers and binary(record.headers) else ()
    return DeadLetter(
        reason, detail[:MAX_DETAIL], record.offset, index, record.key, original, record.timestamp, headers
    )


def _take_other(record: Record, value: bytes, batch: Batch, take: Take, most: int | None) -> None:
    """Judge what is not simply an event of ours: a batch, a control record, another shape, or a dead letter."""
    if value.lstrip()[:1] == b"[":
        shape, marks = None, None
        elements: Sequence[bytes | msgspec.Raw] | None = _array(value)
    else:
        shape, marks = recognise(value)
        elements = None
    if shape is not None and shape.split is not None:
        try:
            elements = cut(value, shape)
        except Refused as verdict:
            batch.dead.append(_letter(record, 0, verdict.reason, verdict.detail, value))
            return
    elif marks is None or shape is not None:
        pass
    elif marks.control is not UNSET and (control := _control(value)) is not None:
        _take_control(record, value, control, batch)
        return
    else:
        elements = marks.events
    if elements is None:
        _take_shape(record, 0, value, shape, batch, take, record.headers)
        return
    if most is not None and len(elements) > most:
        batch.dead.append(_letter(record, 0, "too_large", f"{len(elements)} events, at most {most}", value))
    else:
        _take_elements(record, value, elements, batch, take)


def _take_elements(
    record: Record, value: bytes, elements: Sequence[bytes | msgspec.Raw], batch: Batch, take: Take
) -> None:
    if not elements or len(elements) > MAX_ELEMENTS:
        detail = f"a batch of {len(elements)} events, at most {MAX_ELEMENTS}" if elements else "a batch without events"
        batch.dead.append(_letter(record, 0, "too_many" if elements else "empty", detail, value))
        return
    full = len(batch.touch_item) + MAX_RECORD_ITEMS
    for index, element in enumerate(elements):
        if len(batch.touch_item) < full:
            _take_element(record, index, bytes(element), batch, take)
        else:
            detail = f"more than {MAX_RECORD_ITEMS} items in the events before it"
            batch.dead.append(_letter(record, index, "too_many", detail, bytes(element)))


def _take_control(record: Record, value: bytes, control: Control, batch: Batch) -> None:
    try:
        for user in control.users if isinstance(control, RankAgain) else ():
            _check_id("users[]", user)
        if isinstance(control, Request | Move):
            _check_id("user", control.user)
        if isinstance(control, Request):
            _date(control, record)
        elif isinstance(control, Link):
            _check_id("to", control.to)
        elif isinstance(control, Joined):
            for touch in control.past:
                _check_id("past[].item_id", touch.item_id)
    except Refused as verdict:
        batch.dead.append(_letter(record, 0, verdict.reason, verdict.detail, value))
    else:
        batch.controls.append((record.offset, control))


def _date(request: Request, record: Record) -> None:
    """Put in when it was asked: not after its record was written."""
    recorded_ms = min(record.timestamp, YEAR_2100_US // 1000)
    asked_ms = recorded_ms if request.asked_ms is None else min(request.asked_ms, recorded_ms)
    request.asked_ms = max(asked_ms, YEAR_2000_S * 1000)


def decode_request(record: Record) -> Request | DeadLetter:
    """Decode and validate a record of topic ``privacy``."""
    batch = decode([record])
    for _, control in batch.controls:
        if isinstance(control, Request):
            return control
    for letter in batch.dead:
        return letter
    return _letter(record, 0, "unknown_shape", "neither a request to forget nor to export", record.value or b"")


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


def _take_element(record: Record, index: int, value: bytes, batch: Batch, take: Take) -> None:
    try:
        event = _decode_event(value) if _NAME in value else _NAMELESS
        if event.event_date is not UNSET or event.collector_tstamp is not UNSET:
            _take_shape(record, index, value, exported(event), batch, take)
            return
        if _is_whole(event):
            take(event, record, index, value)
            return
    except Refused as verdict:
        batch.dead.append(_letter(record, index, verdict.reason, verdict.detail, value))
        return
    except UNREADABLE:
        pass
    _take_shape(record, index, value, recognise(value)[0], batch, take)


def _is_whole(event: _Event) -> bool:
    """Whether an event has a name and its two objects are such, or null."""
    for found in (event.event_params, event.user_properties):
        if found is not UNSET and bytes(found)[:1] not in (b"{", b"n"):
            return False
    return bool(event.event_name)


def _take_shape(
    record: Record, index: int, value: bytes, shape: Shape | None, batch: Batch, take: Take, headers: Headers = ()
) -> None:
    """Judge a value of one event in whatever shape."""
    try:
        found = adapt(value, shape, headers)
        if found is None:
            take(_decode_anyway(value), record, index, value)
            return
        name, event = found
        if event.items and len(event.items) > MAX_ITEMS:
            raise Refused("too_many", _crowd(event.items))
        take(event, record, index, _encode_event(event) if headers else value)
        batch.shapes[name] += 1
    except Refused as verdict:
        batch.dead.append(_letter(record, index, verdict.reason, verdict.detail, value))
    except UNREADABLE as error:
        batch.dead.append(_letter(record, index, *_fault(value, error), value))


def _fault(value: bytes, error: Exception) -> tuple[str, str]:
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


def _taker(batch: Batch) -> Take:
    """What appends a valid event to a batch's columns; every list's `append` is looked up once per batch."""
    offset, index_, user_, event_id_ = batch.offset.append, batch.index.append, batch.user.append, batch.event_id.append
    ts_, recorded_, kind, value = batch.ts.append, batch.recorded.append, batch.kind.append, batch.value.append
    channel, consent, session_, raw_ = (
        batch.channel.append,
        batch.consent.append,
        batch.session.append,
        batch.raw.append,
    )
    touch_event, touch_item = batch.touch_event.append, batch.touch_item.append
    touch_category, touch_price = batch.touch_category.append, batch.touch_price.append
    positions, cookies = batch.offset, batch.cookies

    def take(event: Event, record: Record, index: int, raw: bytes) -> None:
        """Append one event, or raise `Refused` before anything was appended."""
        user = event.user_id or event.user_pseudo_id
        if user is None:
            raise Refused("missing_user", "neither user_id nor user_pseudo_id")
        event_id = event.event_id or ""
        _check_ids(event, user, event_id)
        recorded = min(record.timestamp * 1000, YEAR_2100_US)
        ts = _time(event, recorded)

        position = len(positions)
        offset(record.offset)
        index_(index)
        user_(user)
        event_id_(event_id)
        ts_(ts)
        recorded_(recorded)
        kind(KINDS.get(event.event_name, 0))
        value(event.value or 0.0)
        source = event.traffic_source
        channel(0 if source is None else _channel_code(source.medium))
        consent(0 if event.consent is None else _consent(event))
        session = event.session_id
        session_("" if session is None else str(session))
        raw_(raw)
        if event.user_id and event.user_pseudo_id and event.user_pseudo_id != user:
            cookies[position] = event.user_pseudo_id
        if not event_id:
            batch.without_id += 1
        for item in event.items or _short_form(event):
            touch_event(position)
            touch_item(item.item_id)
            touch_category(item.item_category or "")
            touch_price((item.price or 0.0) * (item.quantity or 1.0))

    return take


def _short_form(event: Event) -> tuple[Item, ...]:
    """The one item of an event without a list of items."""
    return () if event.item_id is None else (Item(item_id=event.item_id, price=event.value),)


def _time(event: Event, recorded: int) -> int:
    stamp = event.event_timestamp
    if stamp is None:
        ts = recorded
    elif type(stamp) is int and stamp >= YEAR_2000_US:
        ts = stamp
    else:
        try:
            ts = timestamp_us(stamp)
        except (ValueError, OverflowError) as error:
            raise Refused("time_absurd", f"event_timestamp: {error}") from None
    if not YEAR_2000_US <= ts < YEAR_2100_US or ts > recorded + HOUR_US:
        raise Refused(
            "time_absurd",
            f"event_timestamp {stamp or recorded!r} is before 2000, after 2100 or over 1 h ahead of the record",
        )
    return ts


def _check_ids(event: Event, user: str, event_id: str) -> None:
    """Refuse ids with control characters or too many bytes; plain ASCII ones cost two C calls each."""
    if not (user.isascii() and user.isprintable() and event_id.isascii() and event_id.isprintable()):
        _check_id("user_id", user)
        if event_id:
            _check_id("event_id", event_id)
    if event.items:
        for item in event.items:
            if not (item.item_id.isascii() and item.item_id.isprintable()):
                _check_id("items[].item_id", item.item_id)
    elif event.item_id and not (event.item_id.isascii() and event.item_id.isprintable()):
        _check_id("item_id", event.item_id)


def _check_id(name: str, value: str) -> None:
    if any(c < " " or "\x7f" <= c < "\xa0" for c in value):
        raise Refused("id_invalid", f"{name} has a control character")
    if len(value.encode()) > MAX_ID_BYTES:
        raise Refused("id_invalid", f"{name} is longer than {MAX_ID_BYTES} bytes")


def _consent(event: Event) -> int:
    consent = event.consent
    if consent is None:
        return 0
    packed = 0
    grants = (consent.analytics_storage, consent.personalization_storage, consent.ad_personalization)
    for place, grant in enumerate(grants):
        if grant is not None:
            packed |= (GRANTED if grant == "granted" else DENIED) << (2 * place)
    return packed

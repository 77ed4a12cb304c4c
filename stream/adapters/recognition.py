"""Which shape a value has, told by the few fields that only this shape has; what has none of them is left alone.

One decoding pass collects these marks; the shape's own decoder follows. A producer's values begin alike, so that the
beginnings of earlier ones tell the likely shape: a right guess spares the first pass, a wrong one decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import UNSET

from stream.adapters import (
    bigquery,
    cloudevents,
    data_layer,
    measurement_protocol,
    metarank,
    retailrocket,
    segment,
    snowplow,
)
from stream.adapters.common import Refused
from stream.adapters.marks import Exported, Mark, Marks
from stream.events import Event

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_FAULTS: Final = (Refused, *UNREADABLE)
BEGINNING: Final = 9  # bytes by which values of one producer begin alike: a key, and hardly an id yet
_MOST: Final = 1_024  # beginnings kept

_CALLS: Final = frozenset(("track", "identify", "page", "screen", "alias", "group"))
_METARANK: Final = frozenset(("interaction", "ranking", "user", "item"))


class _Named(msgspec.Struct, gc=False):
    event_name: Mark = UNSET


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: its name in counts and reports, and how to cut a value of several events or to read one of a single.

    `decode` reads a value as the shape's own struct, `event` makes ours of it.
    """

    name: str
    split: Callable[[bytes], list[bytes]] | None = None
    decode: Callable[[bytes], Any] = bytes
    event: Callable[[Any], Event] | None = None


beginnings: Final[dict[bytes, Shape]] = {}  # across fetches and requests: most of them are short

_NULL: Final = msgspec.Raw(b"null")
_decode_list: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_named: Final = msgspec.json.Decoder(_Named).decode
_decode_marks: Final = msgspec.json.Decoder(Marks).decode
_decode_exported: Final = msgspec.json.Decoder(Exported).decode


def recognise(value: bytes) -> tuple[Shape | None, Marks | None]:
    """The shape of a value, and the marks of a JSON object; None where there is none."""
    if value[:1].isalnum():  # no JSON object: the row of a table, perhaps
        return _text_shape(value), None
    try:
        marks = _decode_marks(value)
    except UNREADABLE:
        return _unreadable_shape(value), None
    return _shape(marks), marks


def adapt(value: bytes, shape: Shape | None, headers: cloudevents.Headers = ()) -> tuple[str, Event] | None:
    """Shape's name and event of a value of one event; None if it has none of the shapes.

    Raises
    ------
    Refused
        If it has one, but no event of ours can be made of it: says why.
    """
    binary = bool(headers) and cloudevents.binary(headers)
    if binary:
        shape = CLOUDEVENT
    if shape is None:
        return None
    if shape.event is None:
        raise Refused("unmapped", f"{shape.name}: a batch within a batch")
    try:
        event = cloudevents.adapt_binary(value, headers, _inner) if binary else shape.event(shape.decode(value))
    except _FAULTS as error:
        raise _refusal(shape, error) from None
    if not binary:
        _remember(value, shape)
    return shape.name, event


def guess(value: bytes, shape: Shape) -> Event | None:
    """What `recognise` and `adapt` find, in one decoding pass instead of two; None if it has not this likely shape.

    Raises
    ------
    Refused
        As `adapt`.
    """
    try:
        sent = shape.decode(value)
    except _FAULTS:
        return None
    found = ROW if type(sent) is tuple else _shape(sent)
    if found is not shape or shape.event is None:
        beginnings.pop(value[:BEGINNING], None)  # lest each of our own that begins alike pays for it
        return None
    try:
        return shape.event(sent)
    except _FAULTS as error:
        raise _refusal(shape, error) from None


def _remember(value: bytes, shape: Shape) -> None:
    """Keep how values of a shape begin."""
    if len(beginnings) >= _MOST:
        beginnings.clear()
    beginnings[value[:BEGINNING]] = shape


def cut(value: bytes, shape: Shape) -> list[bytes] | None:
    """Values of one event each, not yet looked into, if the shape holds several; None otherwise.

    Raises
    ------
    Refused
        If it cannot be cut.
    """
    try:
        return None if shape.split is None else shape.split(value)
    except _FAULTS as error:
        raise _refusal(shape, error) from None


def _refusal(shape: Shape, error: Exception) -> Refused:
    """A refusal that names the shape."""
    detail = f"{shape.name}: {error}"
    if isinstance(error, Refused):
        return Refused(error.reason, detail)
    return Refused("schema" if isinstance(error, msgspec.MsgspecError) else "not_json", detail)


def _inner(value: bytes) -> Event | None:
    """The event of another shape inside a CloudEvent; None if it has none that we know."""
    likely = beginnings.get(value[:BEGINNING], CLOUDEVENT)
    if likely is not CLOUDEVENT and (event := guess(value, likely)) is not None:
        return event
    shape, _ = recognise(value)
    if shape is CLOUDEVENT or (shape is not None and shape.event is None):
        raise Refused("unmapped", "a batch, or another CloudEvent, within a CloudEvent")
    found = adapt(value, shape)
    return None if found is None else found[1]


def _unreadable_shape(value: bytes) -> Shape | None:
    """The shape of a value whose marks cannot all be read: of exported events only few are marks."""
    try:
        marks = _decode_exported(value)
    except UNREADABLE:
        return None
    return None if marks.event_name is UNSET else _exported(marks)


def _text_shape(value: bytes) -> Shape | None:
    if not retailrocket.recognises(value):
        return None
    return ROWS if b"\n" in value.rstrip() else ROW


def _shape(marks: Marks) -> Shape | None:
    """The shape that has these marks; a value that calls itself one of our events is one, unless it says too much."""
    if marks.event_name is not UNSET:
        return _exported(marks)
    if type(marks.specversion) is str and marks.source is not UNSET and marks.type is not None:
        return CLOUDEVENT
    if (
        type(marks.type) is str
        and marks.type in _CALLS
        and not (marks.messageId is marks.userId is marks.anonymousId is marks.previousId is UNSET)
    ):
        return CALL
    if marks.ecommerce is not UNSET:
        return PUSH
    if marks.events is not UNSET and _is_list(marks.events):
        return _request(marks)
    if type(marks.event) is str and marks.event in _METARANK and marks.timestamp is not UNSET:
        return METARANK
    if type(marks.e) is str and marks.tv is not UNSET:
        return TRACKED
    if marks.batch is not UNSET and _is_list(marks.batch):
        return CALLS
    if type(marks.schema) is str and marks.schema.startswith(snowplow.PAYLOAD):
        return PAYLOAD
    return None


def _exported(marks: Exported) -> Shape | None:
    """What has our ``event_name`` and is still not ours."""
    if marks.collector_tstamp is not UNSET and _is_said(marks.collector_tstamp):
        return ENRICHED
    has_list = marks.event_params is UNSET or _is_list(marks.event_params)
    return ROW_OF_EXPORT if has_list and _is_said(marks.event_date) else None


def _request(marks: Marks) -> Shape | None:
    """A request of the Measurement Protocol; one of our own batches may say ``client_id``, too."""
    if marks.client_id is marks.app_instance_id is UNSET:
        return None
    events = marks.events
    if type(events) is msgspec.Raw:
        named = bytes(events).find(b'"event_name"') >= 0  # spares another look
        events = _decode_list(events)
        if named and _is_ours(events[0]):
            return None
    elif events[0].event_name is not UNSET:
        return None
    return REQUEST if len(events) == 1 else REQUESTS


def _is_ours(event: msgspec.Raw) -> bool:
    """Whether an event has a name as ours have."""
    try:
        return _decode_named(event).event_name is not UNSET
    except UNREADABLE:
        return False


def _is_said(mark: Mark) -> bool:
    return mark is not None and mark is not UNSET and mark != _NULL


def _is_list(mark: Mark) -> bool:
    return bytes(mark)[:1] == b"[" if type(mark) is msgspec.Raw else type(mark) in (list, tuple)


CALL: Final = Shape("segment", None, segment.decode, segment.adapt)
CALLS: Final = Shape("segment", segment.split)
REQUEST: Final = Shape("ga4_measurement_protocol", None, measurement_protocol.decode, measurement_protocol.adapt)
REQUESTS: Final = Shape("ga4_measurement_protocol", measurement_protocol.split)
ROW_OF_EXPORT: Final = Shape("ga4_bigquery", None, bigquery.decode, bigquery.adapt)
PUSH: Final = Shape("gtm_data_layer", None, data_layer.decode, data_layer.adapt)
CLOUDEVENT: Final = Shape("cloudevents", None, cloudevents.decode, lambda event: cloudevents.adapt(event, _inner))
ENRICHED: Final = Shape("snowplow_enriched", None, snowplow.decode_enriched, snowplow.adapt_enriched)
TRACKED: Final = Shape("snowplow_tracker", None, snowplow.decode_tracked, snowplow.adapt_tracked)
PAYLOAD: Final = Shape("snowplow_tracker", snowplow.split)
METARANK: Final = Shape("metarank", None, metarank.decode, metarank.adapt)
ROW: Final = Shape("retailrocket", None, retailrocket.decode, retailrocket.adapt)
ROWS: Final = Shape("retailrocket", retailrocket.split)

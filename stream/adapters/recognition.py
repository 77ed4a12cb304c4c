"""Which shape a value has, told by the few fields that only this shape has; what has none of them is left alone.

One decoding pass collects these marks, which costs less than building the value; the shape's own decoder follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

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
from stream.events import Event

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_FAULTS: Final = (Refused, *UNREADABLE)

_Mark = msgspec.Raw | msgspec.UnsetType
_CALLS: Final = frozenset(("track", "identify", "page", "screen", "alias", "group"))
_METARANK: Final = frozenset(("interaction", "ranking", "user", "item"))


class Marks(msgspec.Struct, gc=False):
    """Fields by which shapes are told apart. `events` and `control` are those of our own batches and controls."""

    events: list[msgspec.Raw] | None = None
    control: _Mark = UNSET
    event: Any = None
    type: Any = None
    e: Any = None
    schema: Any = None
    specversion: Any = None
    client_id: _Mark = UNSET
    app_instance_id: _Mark = UNSET
    event_date: _Mark = UNSET
    event_params: _Mark = UNSET
    collector_tstamp: _Mark = UNSET
    ecommerce: _Mark = UNSET
    event_name: _Mark = UNSET
    batch: _Mark = UNSET
    messageId: _Mark = UNSET
    userId: _Mark = UNSET
    anonymousId: _Mark = UNSET
    previousId: _Mark = UNSET
    timestamp: _Mark = UNSET
    source: _Mark = UNSET
    tv: _Mark = UNSET


class Shape(NamedTuple):
    """One shape: its name in counts and reports, and how to read a value of one event or to cut one of several."""

    name: str
    adapt: Callable[[bytes], Event] | None = None
    split: Callable[[bytes], list[bytes]] | None = None


_decode_marks: Final = msgspec.json.Decoder(Marks).decode


def recognise(value: bytes, *, named: bool = True) -> tuple[Shape | None, Marks | None]:
    """The shape of a value, and the marks of a JSON object; None where there is none.

    `named` says whether ``event_name`` may stand anywhere in it: whoever has looked spares another look.
    """
    if value[:1].isalnum():  # no JSON object: the row of a table, perhaps
        return _text_shape(value), None
    try:
        marks = _decode_marks(value)
    except UNREADABLE:
        return None, None
    return _shape(marks, named), marks


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
    if shape.adapt is None:
        raise Refused("unmapped", f"{shape.name}: a batch within a batch")
    try:
        event = cloudevents.adapt_binary(value, headers, _inner) if binary else shape.adapt(value)
    except _FAULTS as error:
        raise _refusal(shape, error) from None
    return shape.name, event


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
    if isinstance(error, Refused):
        reason = error.reason
    else:
        reason = "schema" if isinstance(error, msgspec.MsgspecError) else "not_json"
    return Refused(reason, f"{shape.name}: {error}")


def _inner(value: bytes) -> Event | None:
    """The event of another shape inside a CloudEvent; None if it has none that we know."""
    shape, _ = recognise(value)
    if shape is None:
        return None
    if shape is CLOUDEVENT or shape.adapt is None:
        raise Refused("unmapped", "a batch, or another CloudEvent, within a CloudEvent")
    return shape.adapt(value)


def _text_shape(value: bytes) -> Shape | None:
    if not retailrocket.recognises(value):
        return None
    return ROWS if b"\n" in value.rstrip() else ROW


def _shape(marks: Marks, named: bool) -> Shape | None:
    """The shape that has these marks; a value that calls itself one of our events is one, unless it says too much."""
    if marks.event_name is not UNSET:
        has_list = marks.event_params is UNSET or _is_list(marks.event_params)
        return exported(marks.collector_tstamp, marks.event_date, has_list=has_list)
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
    if marks.events is not None:
        return _request(marks.events, marks, named)
    if type(marks.event) is str and marks.event in _METARANK and marks.timestamp is not UNSET:
        return METARANK
    if type(marks.e) is str and marks.tv is not UNSET:
        return TRACKED
    if _is_list(marks.batch):
        return CALLS
    if type(marks.schema) is str and marks.schema.startswith(snowplow.PAYLOAD):
        return PAYLOAD
    return None


def exported(collector_tstamp: _Mark, event_date: _Mark, *, has_list: bool) -> Shape | None:
    """What has our ``event_name`` and is still not ours. `has_list`: its ``event_params`` are a list, or absent."""
    if _is_said(collector_tstamp):
        return ENRICHED
    return ROW_OF_EXPORT if has_list and _is_said(event_date) else None


def _request(events: list[msgspec.Raw], marks: Marks, named: bool) -> Shape | None:
    """A request of the Measurement Protocol; one of our own batches may say ``client_id``, too."""
    if marks.client_id is marks.app_instance_id is UNSET:
        return None
    if named and events and b'"event_name"' in bytes(events[0]):
        return None
    return REQUEST if len(events) == 1 else REQUESTS


def _is_said(mark: _Mark) -> bool:
    return mark is not UNSET and bytes(mark) != b"null"


def _is_list(mark: _Mark) -> bool:
    return mark is not UNSET and bytes(mark)[:1] == b"["


CALL: Final = Shape("segment", segment.adapt)
CALLS: Final = Shape("segment", split=segment.split)
REQUEST: Final = Shape("ga4_measurement_protocol", measurement_protocol.adapt)
REQUESTS: Final = Shape("ga4_measurement_protocol", split=measurement_protocol.split)
ROW_OF_EXPORT: Final = Shape("ga4_bigquery", bigquery.adapt)
PUSH: Final = Shape("gtm_data_layer", data_layer.adapt)
CLOUDEVENT: Final = Shape("cloudevents", lambda value: cloudevents.adapt(value, _inner))
ENRICHED: Final = Shape("snowplow_enriched", snowplow.adapt_enriched)
TRACKED: Final = Shape("snowplow_tracker", snowplow.adapt_tracked)
PAYLOAD: Final = Shape("snowplow_tracker", split=snowplow.split)
METARANK: Final = Shape("metarank", metarank.adapt)
ROW: Final = Shape("retailrocket", retailrocket.adapt)
ROWS: Final = Shape("retailrocket", split=retailrocket.split)

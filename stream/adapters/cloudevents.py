"""CloudEvents 1.0 in Kafka: structured (one JSON object) and binary (attributes in the headers ``ce_...``).

The attributes only complete what the data leaves open: the name by ``type``, the time by ``time``, the id by ``source``
and ``id``. The data is one of our events or any single event of another shape.

Source: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from stream.adapters.common import Refused
from stream.adapters.marks import Marks
from stream.events import MAX_ID_BYTES, Event, Id

Headers = Sequence[tuple[str, bytes]]

_PREFIX: Final = "ce_"


class _Attributes(msgspec.Struct, gc=False):
    type: Id
    source: str
    id: Id
    time: str | None = None


class _Structured(Marks, kw_only=True):
    type: Id
    source: str
    id: Id
    time: str | None = None
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: bytes | None = None


class _Payload(Event, kw_only=True):
    """One of our events whose name may be left to the attributes."""

    event_name: Id = ""


decode: Final = msgspec.json.Decoder(_Structured).decode
_decode_payload: Final = msgspec.json.Decoder(_Payload).decode


def binary(headers: Headers) -> bool:
    """Whether the headers are a CloudEvent's in binary mode."""
    return any(name == "ce_specversion" and content is not None for name, content in headers)


def attributes(headers: Headers) -> tuple[tuple[str, bytes], ...]:
    """Those headers that are attributes; Kafka's may be null, whatever their type says, and are none then."""
    return tuple(header for header in headers if header[0].startswith(_PREFIX) and header[1] is not None)


def adapt_binary(value: bytes, headers: Headers, other: Callable[[bytes], Event | None]) -> Event:
    """The event of a record whose attributes are in its headers; `other` reads other shapes."""
    said = {name.removeprefix(_PREFIX): content.decode() for name, content in attributes(headers)}
    return _completed(value, msgspec.convert(said, _Attributes), other)


def adapt(event: _Structured, other: Callable[[bytes], Event | None]) -> Event:
    """The event of a structured CloudEvent; `other` reads other shapes inside it."""
    if event.data_base64 is not None:
        return _completed(event.data_base64, event, other)
    if event.data is msgspec.UNSET:
        raise Refused("unmapped", "a CloudEvent without data")
    return _completed(bytes(event.data), event, other)


def _completed(data: bytes, attributes: _Attributes | _Structured, other: Callable[[bytes], Event | None]) -> Event:
    event = other(data) or _decode_payload(data)
    event.event_name = event.event_name or attributes.type.rpartition(".")[2]
    event.event_id = event.event_id or f"{attributes.source}#{attributes.id}"
    if not event.event_name or len(event.event_id) > MAX_ID_BYTES:
        raise Refused("id_invalid", f"type ends in no name, or source and id exceed {MAX_ID_BYTES} bytes")
    if event.event_timestamp is None:
        event.event_timestamp = attributes.time
    return event

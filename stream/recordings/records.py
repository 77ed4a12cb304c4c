"""A record of a topic as a line of a recording, its bytes exactly; and what of it is published when it is replayed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from stream.decoding import Batch, decode, json_of
from stream.events import Forget
from stream.identity import completed, derived_id


class Base64(msgspec.Struct):
    """Bytes that are no UTF-8."""

    base64: bytes


Content = str | Base64 | None
Headers = Sequence[tuple[str, bytes]]


class Recorded(msgspec.Struct, omit_defaults=True):
    """One line: where a record stood, when it was written (ms since 1970), and what it held.

    Key, value and header values are text, ``{"base64": ...}`` where they are no UTF-8, or null.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Content
    value: Content
    headers: list[tuple[str, Content]] = []


class Raw(NamedTuple):
    """A record as `stream.decoding` reads it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Parcel(NamedTuple):
    """A record to publish, its bytes as they are.

    `ts_us`: time of its (first) event; `recorded_ms`: time of the record; `place`: partition and offset it had.
    """

    value: bytes | None
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    ts_us: int
    recorded_ms: int
    place: tuple[int, int] = (0, 0)


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Recorded).decode
LINE_FAULTS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def encode_line(topic: str, partition: int, record: Raw) -> bytes:
    """A line, with its end."""
    line = Recorded(
        topic,
        partition,
        record.offset,
        record.timestamp,
        _text(record.key),
        _text(record.value),
        [(name, _text(value)) for name, value in record.headers],
    )
    return _encode(line) + b"\n"


def decode_line(line: bytes) -> tuple[int, Raw]:
    """Partition and record of a line.

    Raises
    ------
    msgspec.DecodeError
        If it is none.
    """
    found = _decode(line)
    headers = tuple((name, _bytes(value) or b"") for name, value in found.headers)
    return found.partition, Raw(found.offset, found.timestamp, _bytes(found.key), _bytes(found.value), headers)


def topic_of(line: bytes) -> str:
    """Topic of a line's record."""
    return _decode(line).topic


def is_line(line: bytes) -> bool:
    """Whether a line is a record of a recording; no event has these fields without a name."""
    if b'"event_name"' in line[:20] or b'"offset"' not in line:
        return False
    try:
        _decode(line)
    except LINE_FAULTS:
        return False
    return True


def restore(partition: int, record: Raw) -> tuple[list[Parcel], int]:
    """What to publish so that workers see of a record what they saw.

    It goes as it stands, bad ones too, with two exceptions. Events that name no time or id get those that a worker
    would have given them: the record's time, and the id that it derives from the place. Requests to forget are dated,
    and other control records left out: they ask for output, or teach nothing.

    Returns
    -------
    tuple
        Records to publish, and how many control records were left out.
    """
    batch = decode([record])
    if batch.controls:
        parcels = [_request(partition, record, control) for _, control in batch.controls if isinstance(control, Forget)]
        return parcels, len(batch.controls) - len(parcels)
    mapped = _mapped(batch)
    named = _completed(partition, batch, mapped)
    if all(new is old for new, old in zip(named, mapped, strict=True)):
        ts = batch.ts[0] if batch.ts else record.timestamp * 1000
        return [Parcel(record.value, record.key, record.headers, ts, record.timestamp, (partition, record.offset))], 0
    place = (partition, record.offset)
    parcels = [
        Parcel(value, user.encode(), (), ts, record.timestamp, place)
        for value, user, ts in zip(named, batch.user, batch.ts, strict=True)
    ]
    parcels += [
        Parcel(dead.original, record.key, (), record.timestamp * 1000, record.timestamp, place) for dead in batch.dead
    ]
    return parcels, 0


def events_of(partition: int, record: Raw) -> list[bytes]:
    """Events of a record that a worker would take, in our schema, each with an id and a time."""
    batch = decode([record])
    return _completed(partition, batch, _mapped(batch))


def _mapped(batch: Batch) -> list[bytes]:
    """Events in our schema; looked into only if one of them may have another shape."""
    return [json_of(raw) for raw in batch.raw] if batch.shapes else batch.raw


def _completed(partition: int, batch: Batch, events: Iterable[bytes]) -> list[bytes]:
    return [
        completed(raw, derived_id(partition, batch.offset[n], batch.index[n]), batch.ts[n])
        for n, raw in enumerate(events)
    ]


def _request(partition: int, record: Raw, request: Forget) -> Parcel:
    """A request to forget, which `decode` has dated."""
    value = msgspec.json.encode(request)
    place = (partition, record.offset)
    return Parcel(value, request.user.encode(), (), record.timestamp * 1000, record.timestamp, place)


def _text(content: bytes | None) -> Content:
    if content is None:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return Base64(content)


def _bytes(content: Content) -> bytes | None:
    if isinstance(content, Base64):
        return content.base64
    return None if content is None else content.encode()

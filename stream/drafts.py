"""Events before they are sent: completed with id and time, and judged with the worker's own rules. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from stream.adapters.cloudevents import Headers
from stream.decoding import decode
from stream.errors import BadInputError
from stream.events import Event
from stream.identity import completed

_encode: Final = msgspec.json.Encoder().encode


class Draft(NamedTuple):
    """An event as the worker will see it, for `decode`."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    headers: Headers = ()


def prepare(
    event: Event | Mapping[str, Any] | bytes, now_ns: int, timestamp_ms: int | None = None
) -> tuple[bytes, bytes]:
    """Record of an event: key and JSON, with id and time added where missing, checked as the worker will check it.

    Parameters
    ----------
    event
        An `Event`, its fields, or its JSON.
    now_ns
        Time of a missing id or time, ns since 1970.
    timestamp_ms
        Time of the record, if not now, ms since 1970.

    Returns
    -------
    tuple of bytes
        Canonical user and JSON.

    Raises
    ------
    BadInputError
        If the worker would refuse it.

    Examples
    --------
    >>> prepare({"event_name": "search", "user_id": "u1", "event_id": "e1", "event_timestamp": "2024-01-01"}, 0, 10**13)
    (b'u1', b'{"event_name":"search","user_id":"u1","event_id":"e1","event_timestamp":"2024-01-01"}')
    """
    recorded_us = timestamp_ms * 1000 if timestamp_ms else now_ns // 1000
    try:
        value = event if isinstance(event, bytes) else _completed(event, recorded_us, now_ns)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"the event is not JSON: {error}") from error
    batch = decode((Draft(0, recorded_us // 1000, None, value),))
    if batch.dead:
        raise BadInputError(f"the event would be refused ({batch.dead[0].reason}): {batch.dead[0].detail}")
    if len(batch.user) != 1 or batch.raw[0] != value:
        raise BadInputError("one event is expected, not a batch or a control record, nor another shape")
    if isinstance(event, bytes) and (batch.without_id or batch.ts[0] == batch.recorded[0]):
        value = completed(value, uuid7(now_ns // 1_000_000), recorded_us)
    return batch.user[0].encode(), value


def _completed(event: Event | Mapping[str, Any], recorded_us: int, now_ns: int) -> bytes:
    """JSON of an event, with id and time; a missing time is the record's, as it is for the worker."""
    get: Callable[[str], object] = event.get if isinstance(event, Mapping) else partial(getattr, event)
    added: dict[str, Any] = {}
    if get("event_id") is None:
        added["event_id"] = uuid7(now_ns // 1_000_000)
    if get("event_timestamp") is None:
        added["event_timestamp"] = recorded_us
    if not added:
        return _encode(event)
    return _encode({**event, **added} if isinstance(event, Mapping) else msgspec.structs.replace(event, **added))


def uuid7(now_ms: int) -> str:
    """Return a random UUID that sorts by time (RFC 9562, version 7; not in Python's library before 3.14).

    Parameters
    ----------
    now_ms
        Time, ms since 1970.

    Examples
    --------
    >>> uuid7(1_700_000_000_000)[:15]
    '018bcfe5-6800-7'
    """
    time_part = f"{now_ms:012x}"
    noise = os.urandom(10).hex()
    variant = "89ab"[int(noise[3], 16) & 3]
    return f"{time_part[:8]}-{time_part[8:]}-7{noise[:3]}-{variant}{noise[4:7]}-{noise[7:19]}"

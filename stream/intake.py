"""What the HTTP door makes of a request's body: events for topic ``events``, and what is refused and why.

Pure. The judge is the worker's own `decode`: what is accepted here is taken there, what is refused here would have been
a dead letter there, for the same reason. Only control records are refused here alone: not everybody who can reach a
port may have a person forgotten.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from models.hashing import partition_of
from stream.adapters import recognise
from stream.adapters.cloudevents import Headers
from stream.decoding import Batch, DeadLetter, decode
from stream.drafts import Draft, uuid7

_FAULT: Final = re.compile(
    r"at `\$(?:\[\d+\])?\.([^`]+)`|field `([^`]+)`|([\w.\[\]]+) is missing|\b((?:user_|event_|item_)\w+|items\[\]\.\w+)"
    r"|\d+ (items) in"
)
_LACKS: Final = re.compile(r"field `([^`]+)` - at `\$(?:\[\d+\])?\.([^`]+)`")


class Entry(NamedTuple):
    """One accepted event as a record of topic ``events``."""

    partition: int
    key: bytes
    value: bytes


class Refusal(msgspec.Struct, frozen=True, omit_defaults=True):
    """One refused element of a request.

    Attributes
    ----------
    index
        Its place in the request, from 0.
    reason
        As of a dead letter.
    detail
        What is wrong, for people.
    field
        Where it is wrong, as far as that is known.
    """

    index: int
    reason: str
    detail: str
    field: str = ""


class Judged(NamedTuple):
    """A request's elements, each in exactly one of two places.

    Attributes
    ----------
    entries
        Accepted, in the order of the request.
    refused
        Refused, likewise.
    mapped
        How many of the accepted ones had another shape than ours, by its name.
    """

    entries: list[Entry]
    refused: list[Refusal]
    mapped: dict[str, int]


def judge(body: bytes, now_ns: int, partitions: int, most: int, headers: Headers = ()) -> Judged:
    """Accept, map or refuse each element of a request.

    Parameters
    ----------
    body
        One event, an array, ``{"events":[...]}``, or another shape that `stream.adapters` knows.
    now_ns
        Time of arrival, ns since 1970: the time of events that say none.
    partitions
        Number of partitions of topic ``events``.
    most
        Most elements; a request with more is refused as a whole.
    headers
        Attributes of a CloudEvent in binary mode, under the names that they have in Kafka.

    Returns
    -------
    Judged
        Our own events completed with id (UUIDv7) and time where these were missing, events of other shapes as they
        were sent.

    Notes
    -----
    About 8 us per event.

    Examples
    --------
    >>> body = b'[{"event_name":"search","user_id":"u1","event_id":"e1"},{"event_name":7}]'
    >>> judged = judge(body, 1_700_000_000_000_000_000, partitions=4, most=10)
    >>> judged.entries[0].value
    b'{"event_name":"search","user_id":"u1","event_id":"e1","event_timestamp":1700000000000000}'
    >>> [(refusal.index, refusal.field, refusal.reason) for refusal in judged.refused]
    [(1, 'event_name', 'schema')]
    """
    batch = decode((Draft(0, now_ns // 1_000_000, None, body, headers),), most)
    refused = [_refusal(letter) for letter in batch.dead]
    refused += [Refusal(0, "unknown_shape", "control records are not taken here") for _ in batch.controls]
    return Judged(_entries(batch, now_ns, partitions), refused, dict(Counter(batch.shapes)))


def _entries(batch: Batch, now_ns: int, partitions: int) -> list[Entry]:
    entries = []
    complete = _completer(now_ns)
    for user, event_id, ts, recorded, value in zip(
        batch.user, batch.event_id, batch.ts, batch.recorded, batch.raw, strict=True
    ):
        key = user.encode()
        lacks_time = ts == recorded  # or says just this time, which is then said twice
        if (not event_id or lacks_time) and not (batch.shapes and recognise(value)[0] is not None):
            value = complete(value, not event_id, lacks_time)
        entries.append(Entry(partition_of(key, partitions), key, value))
    return entries


def _completer(now_ns: int) -> Callable[[bytes, bool, bool], bytes]:
    """What adds id and time at the end of an event's JSON, where they outrank a null that was said before."""
    now_ms = now_ns // 1_000_000
    time = b',"event_timestamp":%d' % (now_ns // 1_000)

    def complete(value: bytes, without_id: bool, without_time: bool) -> bytes:
        added = b',"event_id":"%s"' % uuid7(now_ms).encode() if without_id else b""
        return value.rstrip()[:-1] + added + (time if without_time else b"") + b"}"

    return complete


def _refusal(letter: DeadLetter) -> Refusal:
    return Refusal(letter.index, letter.reason, letter.detail, field_of(letter.detail))


def field_of(detail: str) -> str:
    """The field that a dead letter's detail names; empty if it names none.

    Examples
    --------
    >>> field_of("Expected `str`, got `int` - at `$.items[0].item_id`"), field_of("missing required field `type`")
    ('items[0].item_id', 'type')
    >>> field_of("event_timestamp 5 is before 2000"), field_of("neither user_id nor user_pseudo_id"), field_of("1 byte")
    ('event_timestamp', 'user_id', '')
    >>> field_of("missing required field `item_id` - at `$.items[0]`"), field_of("201 items in one event, at most 200")
    ('items[0].item_id', 'items')
    """
    if lacks := _LACKS.search(detail):
        return f"{lacks[2]}.{lacks[1]}"
    found = _FAULT.search(detail)
    return next(filter(None, found.groups()), "") if found else ""

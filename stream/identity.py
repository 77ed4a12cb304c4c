"""Ids: which ones are taken, and what an event is called that names itself nowhere, whoever finds it at its place."""

from __future__ import annotations

from typing import Any

import msgspec

from stream.events import MAX_ID_BYTES


class _Said(msgspec.Struct):
    event_id: Any = None
    event_timestamp: Any = None


def id_fault(value: str) -> str:
    r"""What is wrong with an id of a user, event or item; empty if nothing is.

    Examples
    --------
    >>> id_fault("帐篷"), id_fault("tent\n"), id_fault("帐" * 86)
    ('', 'has a control character', 'is longer than 256 bytes')
    """
    if value.isascii() and value.isprintable() and len(value) <= MAX_ID_BYTES:  # nearly all, at a tenth of the cost
        return ""
    if any(c < " " or "\x7f" <= c < "\xa0" for c in value):
        return "has a control character"
    return f"is longer than {MAX_ID_BYTES} bytes" if len(value.encode()) > MAX_ID_BYTES else ""


def derived_id(partition: int, offset: int, index: int) -> str:
    """Id of an event by its place in topic ``events``.

    A worker that sends it on, a replay of its record and a retry of its dead letter all give it this id, so that it
    counts once.
    """
    return f"rekeyed-{partition}-{offset}-{index}"


def with_fields(raw: bytes, **fields: Any) -> bytes:
    """A JSON object with more fields at its end, its bytes as they are; of two equal names the last one counts."""
    return raw.rstrip()[:-1] + b"," + msgspec.json.encode(fields)[1:]


def completed(raw: bytes, event_id: str, recorded_us: int) -> bytes:
    """An event of our schema with an id and a time: its own, else these; not a byte changes if it has both."""
    said = msgspec.json.decode(raw, type=_Said)
    added: dict[str, Any] = {}
    if not said.event_id:
        added["event_id"] = event_id
    if said.event_timestamp is None:
        added["event_timestamp"] = recorded_us
    return with_fields(raw, **added) if added else raw

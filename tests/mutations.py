"""Mutated events: what buggy trackers, cut-off connections and attackers send, made from valid events by a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

GOLDEN: Final = Path(__file__).parent / "stream" / "adapters" / "golden"
OURS: Final[tuple[dict[str, Any], ...]] = (
    {"event_name": "view_item", "user_id": "u1", "item_id": "i1"},
    {
        "event_name": "purchase",
        "event_id": "e1",
        "event_timestamp": 1_750_000_000_000_000,
        "user_id": "u1",
        "user_pseudo_id": "c1",
        "session_id": 7,
        "items": [{"item_id": "i1", "item_category": "tents", "price": 9.5, "quantity": 2}, {"item_id": "i2"}],
        "value": 19.0,
        "currency": "EUR",
        "transaction_id": "t1",
        "traffic_source": {"source": "google", "medium": "cpc", "name": "spring"},
        "consent": {"analytics_storage": "granted", "ad_personalization": "denied"},
        "user_properties": {"tier": "gold"},
        "event_params": {"x": [1, {"y": None}]},
    },
    {"control": "rank_all"},
    {"control": "forget", "user": "u1"},
    {"control": "rank", "users": ["u1"]},
)
STRANGE: Final[tuple[Any, ...]] = (
    *(None, True, 0, -1, 0.1, 1e308, 4e18, 2**63, 2**64, 10**40),
    *("", " ", "a\0b", "\u2028", "\ud83d", "\U0001f9ea" * 90, "x" * 300, "0", "9" * 25, "NaN", "granted", "1999-01-01"),
    *([], {}, [[]], [None], {"": ""}, {"events": []}, [{"item_id": 1}]),
)
WRONG_BYTES: Final = (b"\xff", b"\0", b"\n", b"\xef\xbb\xbf", *(byte.encode() for byte in '"\\{}[],:1e'))
TELLING: Final = (
    *("event_name", "event_date", "event_params", "event", "events", "batch", "control", "items", "data", "timestamp"),
    *("type", "source", "specversion", "ecommerce", "e", "tv", "schema", "client_id", "userId", "collector_tstamp"),
)

Headers = tuple[tuple[str, Any], ...]  # bytes, or None


def seeds() -> list[Any]:
    """Valid records of every shape, as the golden files have them, and of ours: JSON values, or text."""
    return [*OURS, *(case["sent"] for case in _cases())]


def _cases() -> list[dict[str, Any]]:
    return [case for file in sorted(GOLDEN.glob("*.json")) for case in json.loads(file.read_text())["cases"]]


def mutated(count: int, seed: int, known: Sequence[Any] = ()) -> Iterator[bytes]:
    """So many records, each a valid one changed in up to four places: fields, values, nesting or bytes.

    Valid ones are `known`, else `seeds`.
    """
    chance = random.Random(seed)
    known = list(known) or seeds()
    for _ in range(count):
        value = chance.choice(known)
        for _ in range(chance.choice((0, 1, 1, 2, 3))):
            value = _changed(value, chance)
        if chance.random() < 0.15:
            value = _wrapped(value, chance, known)
        record = _bytes(value)
        yield _damaged(record, chance) if chance.random() < 0.3 else record


def mutated_binary(count: int, seed: int) -> Iterator[tuple[bytes, Headers]]:
    """So many records as `mutated` gives, each with the attributes of a CloudEvent in its headers, changed likewise.

    A null stays one: Kafka's headers may be null.
    """
    chance = random.Random(seed)
    known = [case["headers"] for case in _cases() if "headers" in case]
    for value in mutated(count, seed):
        said = chance.choice(known)
        for _ in range(chance.choice((0, 0, 1, 2))):
            changed = _changed(said, chance)
            said = changed if isinstance(changed, dict) else said
        headers = [(name, None if content is None else _bytes(content)) for name, content in said.items()]
        yield value, tuple(headers)


def _bytes(value: Any) -> bytes:
    return value.encode(errors="surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


def _changed(value: Any, chance: random.Random) -> Any:
    """A copy in which one field, at any depth, is another, is gone, is renamed or is twice as deep."""
    if isinstance(value, dict) and value:
        changed = dict(value)
        name = chance.choice(list(changed))
        what = chance.random()
        if what < 0.5:
            changed[name] = _changed(changed[name], chance)
        elif what < 0.65:
            del changed[name]
        elif what < 0.75:
            changed[chance.choice((*TELLING, "x"))] = changed.pop(name)
        elif what < 0.85:
            changed[chance.choice(TELLING)] = chance.choice(STRANGE)
        else:
            changed[name] = [changed[name]]
        return changed
    if isinstance(value, list) and value and chance.random() < 0.8:
        changed_list = list(value)
        at = chance.randrange(len(changed_list))
        changed_list[at] = _changed(changed_list[at], chance)
        return changed_list
    return chance.choice(STRANGE)


def _wrapped(value: Any, chance: random.Random, known: list[Any]) -> Any:
    """A batch of some form around it, with others beside it."""
    several = [value, *chance.choices(known, k=chance.randrange(3))]
    return chance.choice(
        (several, {"events": several}, {"batch": several}, {"client_id": "c", "events": several}, [several], [])
    )


def _damaged(record: bytes, chance: random.Random) -> bytes:
    """Cut off, or with a byte too many, too few or wrong."""
    at = chance.randrange(len(record) + 1)
    what = chance.random()
    if what < 0.3:
        return record[:at]
    if what < 0.6:
        return record[:at] + chance.choice(WRONG_BYTES) + record[at:]
    if what < 0.8:
        return record[:at] + record[at + 1 :]
    return record[:at] + chance.choice(WRONG_BYTES) + record[at + 1 :]

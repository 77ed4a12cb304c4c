"""Small streams for the tests of the stages: events as dicts, records as the stages read them, batches cut anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition  # type: ignore[import-untyped]  # no py.typed

from models.neighbour_rows import NeighbourRows
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.wire import CovisitRecord

T0_US = 1_750_000_000_000_000  # 2025-06-15
HOUR = 3600


def event(user: str = "u", *items: str, at: float = 0, name: str = "view_item", **fields: Any) -> dict[str, Any]:
    """An event `at` seconds after T0; items in category ``cat-<first letter>`` unless `items` say otherwise."""
    made: dict[str, Any] = {"event_name": name, "event_timestamp": T0_US + int(at * 1e6), "user_id": user, **fields}
    if items:
        made["items"] = [{"item_id": item, "item_category": f"cat-{item[0]}", "price": 10.0} for item in items]
    return made


def record(offset: int, value: bytes | dict[str, Any] | list[Any], *, at: float = 0) -> LocalRecord:
    """A record whose own time is `at` seconds after T0."""
    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return LocalRecord(offset, T0_US // 1000 + int(at * 1000), b"key", data)


async def read_events(bootstrap: str, topic: str = "events") -> list[ConsumerRecord]:
    """Every record that the four partitions of a topic hold now, those of each in order."""
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(topic, p) for p in range(4)]
        expected = sum((await consumer.end_offsets(partitions)).values())
        consumer.assign(partitions)
        records: list[ConsumerRecord] = []
        while len(records) < expected:
            records += [r for batch in (await consumer.getmany(timeout_ms=100)).values() for r in batch]
        return records


def stream(events: Iterable[dict[str, Any]], start: int = 0) -> list[LocalRecord]:
    """One record per event, each recorded at its event's time."""
    return [
        LocalRecord(offset, event["event_timestamp"] // 1000, user_of(event).encode(), msgspec.json.encode(event))
        for offset, event in enumerate(events, start)
    ]


def cut(records: Sequence[LocalRecord], cuts: Iterable[int]) -> Iterator[Sequence[LocalRecord]]:
    """The same records in batches that end at the given positions (and at the end)."""
    start = 0
    for end in sorted({n for n in cuts if 0 < n < len(records)} | {len(records)}):
        yield records[start:end]
        start = end


def told(record: CovisitRecord) -> list[dict[str, Any]]:
    """What a record of topic ``covisits`` says, by id."""
    d = record.deltas
    return [
        {
            "item": record.items[d.item[v]],
            "weight": d.weight[v],
            "ts": d.ts[v],
            "offset": record.offset[v],
            "index": record.index[v],
            "category": None if record.category[v] < 0 else record.categories[record.category[v]],
            "pairs": [
                (record.items[d.other[p]], d.pull[p], d.step[p]) for p in range(int(d.start[v]), int(d.start[v + 1]))
            ],
        }
        for v in range(len(d.item))
    ]


def cells(rows: NeighbourRows, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Neighbour rows by id."""
    found: dict[str, dict[str, Any]] = {}
    a = rows.arrays
    for n, name in enumerate(names):
        row = a.row[n]
        if row >= 0:
            near = zip(a.item[row, : a.size[row]], a.value[row, : a.size[row]], strict=True)
            steps = zip(a.step_item[row, : a.steps[row]], a.step_value[row, : a.steps[row]], strict=True)
            found[name] = {
                "sums": {"epoch": int(a.epoch[row]), "total": float(a.total[row])},
                "near": {names[i]: float(v) for i, v in near},
                "steps": {names[i]: float(v) for i, v in steps},
            }
    return found


def close(rows: dict[str, dict[str, Any]], rel: float = 1e-9) -> dict[str, dict[str, Any]]:
    """The same rows, equal to what differs by rounding only."""
    return {
        name: {part: pytest.approx(numbers, rel=rel) for part, numbers in row.items()} for name, row in rows.items()
    }


def publish(pipeline: LocalPipeline, events: Iterable[dict[str, Any]]) -> None:
    """Feed events, each recorded at its own time, until everything is drained."""
    asyncio.run(
        pipeline.feed(
            (user_of(event).encode(), event["event_timestamp"] // 1000, msgspec.json.encode(event)) for event in events
        )
    )


def user_of(event: dict[str, Any]) -> str:
    """Canonical user of an event."""
    user: str = event.get("user_id") or event["user_pseudo_id"]
    return user


def dump(store: MemoryStore) -> dict[bytes, Any]:
    """Everything in a store, by key."""
    return {key: read(store, key) or read_hash(store, key) for key in sorted(store)}


def written(*batches: WriteBatch, into: MemoryStore | None = None) -> MemoryStore:
    """A store after some flushes."""
    store = into or MemoryStore()
    for batch in batches:
        asyncio.run(store.flush(batch))
    return store


def read(store: MemoryStore, key: bytes) -> bytes | None:
    """One string of a store."""
    return asyncio.run(store.get([key]))[0]


def read_hash(store: MemoryStore, key: bytes) -> dict[bytes, bytes]:
    """One hash of a store."""
    return asyncio.run(store.hgetall(key))

"""What item shards have told of the events that they know: of this installation's, and of nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream.fetches import TP
from stream.keys import Keys
from stream.memory_store import MemoryStore
from stream.meta import Meta
from stream.resp import WriteBatch
from stream.stats import Stats

KEYS = Keys()


async def marked(fields: dict[bytes, bytes]) -> int:
    """What is told of partition 1 of `events`, of two item partitions."""
    store, batch = MemoryStore(), WriteBatch()
    batch.hset(KEYS.meta, fields, None)
    await store.flush(batch)
    worker = SimpleNamespace(
        store=store,
        keys=KEYS,
        item_agent=SimpleNamespace(topic="covisits"),
        settings=SimpleNamespace(covisits_partitions=2),
    )
    meta = Meta.__new__(Meta)
    meta._worker = cast(Any, worker)
    return await meta.marked(1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({b"covisits-0": b'{"next":9,"marks":[4,7]}', b"covisits-1": b'{"marks":[9,5]}'}, 7),
        ({b"covisits-0": b'{"next":9}', b"covisits-2": b'{"marks":[1,99]}'}, -1),  # of a topic with more partitions
        ({b"covisits-0": b'{"marks":[3]}', b"events-1": b'{"marks":[1,8]}'}, -1),
        ({b"covisits-0": b"nonsense", b"covisits-1": b'{"marks":[9,5]}'}, -1),
        ({b"covisits-0": b"7"}, -1),
    ],
)
async def test_marks_are_those_of_the_item_shards_there_are(fields: dict[bytes, bytes], expected: int) -> None:
    assert await marked(fields) == expected


async def test_what_an_owner_of_before_has_spoilt_is_told_again_within_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("stream.meta.monotonic", lambda: now[0])
    store, nobody = MemoryStore(), SimpleNamespace(topic="", shards={})
    shards = {
        TP("events", 0): SimpleNamespace(next=9, owned_since=1.0),
        TP("events", 1): SimpleNamespace(next=0, owned_since=1.0),
    }
    host = SimpleNamespace(shards=shards, counts={"lost": 0}, may_write=lambda: True)
    others = dict.fromkeys(("users", "items", "user_agent", "item_agent", "global_agent"), nobody)
    cache = SimpleNamespace(hits=0, misses=0)
    meta = Meta(
        cast(Any, SimpleNamespace(store=store, keys=KEYS, host=host, stats=Stats(), neighbours=cache, **others))
    )

    async def spoil_and_tell() -> bytes | None:
        batch = WriteBatch()
        batch.hset(KEYS.meta, {b"events-0": b"older"}, None)
        await store.flush(batch)
        shards[TP("events", 1)].next += 1  # the worker itself is busy
        await meta.tell()
        return await store.hget(KEYS.meta, b"events-0")

    told = await spoil_and_tell()
    assert b'"next":9' in (told or b"")
    now[0] += 59
    assert await spoil_and_tell() == b"older"
    now[0] += 1
    assert await spoil_and_tell() == told

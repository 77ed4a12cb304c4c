"""What item shards have told of the events that they know: of this installation's, and of nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream.keys import Keys
from stream.memory_store import MemoryStore
from stream.meta import Meta
from stream.resp import WriteBatch
from stream.shard import Shard
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


class Busy:
    """A worker that owns two shards of `events`, the first of which moves; `doubted` times it had lost all."""

    def __init__(self, first: bool | None = True) -> None:
        self.store, self.doubted = MemoryStore(), 0
        shards = [Shard("events", 0, 1.0, next=1, first=first), Shard("events", 1, 1.0, next=9, first=first)]
        self.moving = shards[0]
        nobody = SimpleNamespace(topic="", shards={})
        host = SimpleNamespace(shards={s.tp: s for s in shards}, counts={"lost": 0}, may_write=lambda: True)
        worker = SimpleNamespace(
            store=self.store,
            keys=KEYS,
            host=host,
            stats=Stats(),
            neighbours=SimpleNamespace(hits=0, misses=0),
            user_agent=SimpleNamespace(topic="events"),
            **dict.fromkeys(("users", "items", "item_agent", "global_agent"), nobody),
            doubt=self._doubt,
        )
        self.meta = Meta(cast(Any, worker))

    def _doubt(self) -> None:
        self.doubted += 1

    async def tell(self) -> None:
        self.moving.next += 1
        await self.meta.tell()

    async def field(self, name: bytes) -> bytes | None:
        return await self.store.hget(KEYS.meta, name)


async def test_what_an_owner_of_before_has_spoilt_is_told_again_within_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1_000.0]
    monkeypatch.setattr("stream.meta.monotonic", lambda: now[0])
    worker = Busy()

    async def spoil_and_tell() -> bytes | None:
        batch = WriteBatch()
        batch.hset(KEYS.meta, {b"events-1": b"older"}, None)
        await worker.store.flush(batch)
        await worker.tell()
        return await worker.field(b"events-1")

    told = await spoil_and_tell()
    assert b'"next":9' in (told or b"")
    now[0] += 59
    assert await spoil_and_tell() == b"older"
    now[0] += 1
    assert await spoil_and_tell() == told


async def test_an_emptied_redis_is_noticed_whatever_is_written_meanwhile() -> None:
    worker = Busy()
    await worker.meta.connect()
    for _ in range(3):
        await worker.meta.notice_loss()
        await worker.tell()
    assert worker.doubted == 0
    for key in list(worker.store):
        worker.store._drop(key)
    await worker.tell()
    await worker.tell()
    assert await worker.field(b"events-0") is not None
    assert await worker.field(b"events-1") is None
    for _ in range(3):
        await worker.meta.notice_loss()
        await worker.tell()
    assert worker.doubted == 1
    assert await worker.field(b"events-1") is not None


async def test_a_shard_for_which_nothing_was_written_is_not_claimed() -> None:
    worker = Busy(first=None)
    await worker.meta.connect()
    await worker.meta.notice_loss()
    await worker.tell()
    assert await worker.field(b"owned-events-0") is None

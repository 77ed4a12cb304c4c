"""What item shards have told of the events that they know: of this installation's, and of nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream.keys import Keys
from stream.memory_store import MemoryStore
from stream.meta import Meta
from stream.resp import WriteBatch

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

from __future__ import annotations

from typing import Any

import msgspec

from stream.keys import Keys
from stream.memory_store import MemoryStore
from stream.progress import Progress
from stream.resp import WriteBatch
from stream.settings import Settings


async def test_a_shard_that_is_being_taken_up_has_no_book_yet() -> None:
    """Its new owner says so before the snapshot is read; whoever watched just then ended in a KeyError."""
    told: dict[bytes, dict[str, Any]] = {
        b"events-0": {"next": 5, "owner": "1@here since 2.000", "counts": {"learned": 4, "late": 1}},
        b"events-1": {"next": -1, "owner": "2@here since 3.000"},
        b"covisits-0": {"next": 1, "counts": {"visits": 9}},
    }
    progress = Progress(Settings())
    store: Any = MemoryStore()
    progress.store = store
    batch = WriteBatch()
    batch.hset(Keys().meta, {name: msgspec.json.encode(facts) for name, facts in told.items()}, None)
    await store.flush(batch)
    assert await progress.books() == {"learned": 4, "late": 1}
    assert await progress.included("events") == {0: 5, 1: 0}
    assert len(await progress.owners()) == 2

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from numpy.typing import NDArray

from stream.copying import Changes, Copying, Rows, Source, again, renewed
from stream.saving import NICE, NICEST, Saver
from stream.shard import Shard
from stream.snapshots import SnapshotStore, SnapshotWriter
from tests.patience import PATIENCE_S

PARTS = 40  # slices of the large array


class Counting:
    """State of one shard: a large array of counts, one of which grows with every record."""

    def __init__(self) -> None:
        self.changes = Changes()
        self.large = np.zeros((PARTS, 131_072), dtype=np.int64)
        self.shard = Shard("events", 0, 0.0, next=0)

    def learn(self) -> None:
        row = self.shard.next % PARTS
        self.changes.add(np.array([row]))
        self.large[row] += 1
        self.shard.next += 1

    def copy(self, _: int) -> Copying:
        self.changes.watch()
        return Copying({"large": Rows(self.large)}, self._still, end=self.changes.take)

    def _still(self) -> Mapping[str, Source]:
        return again({"large": self.large}, self.changes.take())


def counts(store: SnapshotStore) -> tuple[int, NDArray[Any]]:
    snapshot = store.latest("events-0")
    assert snapshot is not None
    return snapshot.offset, renewed(snapshot.arrays, "large", PARTS)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    return SnapshotStore(tmp_path)


async def turn_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0)


async def test_snapshot_of_a_shard_that_goes_on_is_exactly_that_of_its_offset(store: SnapshotStore) -> None:
    state, saver = Counting(), Saver(store, Counter())
    state.learn()
    saving = asyncio.create_task(saver.save(state.shard, state.copy))
    while not saving.done():
        if not state.shard.lock.locked():
            state.learn()
        await asyncio.sleep(0)
    offset, large = counts(store)
    assert 1 < offset == saving.result() == state.shard.saved <= state.shard.next
    expected = np.array([len(range(row, offset, PARTS)) for row in range(PARTS)])
    assert (large == expected[:, None]).all()
    assert state.shard.saved_bytes == store.generations()[0].nbytes


async def test_nothing_new_is_not_written(store: SnapshotStore) -> None:
    state, saver = Counting(), Saver(store, Counter())
    state.learn()
    assert await saver.save(state.shard, state.copy) == 1
    assert await saver.save(state.shard, state.copy) is None
    assert len(store.generations()) == 1


async def test_last_snapshot_does_not_wait_for_a_gentle_one(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, saver = Counting(), Saver(store, Counter())
    state.learn()
    pieces, released = Counter[str](), threading.Event()
    put = SnapshotWriter.put

    def slow(self: SnapshotWriter, name: str, piece: NDArray[Any]) -> None:
        thread = threading.current_thread().name.partition("_")[0]
        pieces[thread] += 1
        if thread == "snapshots":
            own = os.getpriority(os.PRIO_PROCESS, os.getpid())
            assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == min(own + NICE, NICEST)
            if pieces[thread] > 1:
                assert released.wait(2 * PATIENCE_S)
        put(self, name, piece)

    monkeypatch.setattr(SnapshotWriter, "put", slow)
    gentle = asyncio.create_task(saver.save(state.shard, state.copy))
    await turn_until(lambda: pieces["snapshots"] > 1)
    last = asyncio.create_task(saver.save(state.shard, state.copy, last=True))
    await turn_until(lambda: state.shard.leaving)
    released.set()  # no piece is given up in the middle, and none is begun any more
    assert await last == 1
    assert await gentle is None
    assert pieces["snapshots"] == 2
    assert counts(store)[0] == 1


@pytest.mark.parametrize("event", ["lost", "reloaded", "interrupted"])
async def test_shard_that_is_not_what_it_was_leaves_no_snapshot(store: SnapshotStore, event: str) -> None:
    state, saver = Counting(), Saver(store, Counter())
    state.learn()
    async with state.shard.lock:
        saving = asyncio.create_task(saver.save(state.shard, state.copy))
        await turn_until(lambda: bool(state.shard.lock._waiters))
        state.shard.lost |= event == "lost"
        state.shard.loads += event == "reloaded"
        state.shard.dirty |= event == "interrupted"
    assert await saving is None
    assert state.shard.saved == -1
    await turn_until(lambda: os.listdir(store.folder.scratch) == [])


async def test_disk_that_fails_is_told_and_counted(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch) -> None:
    state, told = Counting(), Counter[str]()
    saver = Saver(store, told)
    state.learn()
    assert await saver.save(state.shard, state.copy) == 1
    state.learn()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, structlog.testing.capture_logs() as logs:
        patched.setattr(os, "fsync", full)
        assert await saver.save(state.shard, state.copy) is None
    ((event, shard, reason, last),) = [(line["event"], line["shard"], line["reason"], line["last"]) for line in logs]
    assert (event, shard, reason, last) == ("snapshot_failed", "events-0", "[Errno 28] No space left on device", 1)
    assert told == {"snapshots": 1, "snapshot_errors": 1}
    assert await saver.save(state.shard, state.copy) == 2


async def test_cancelled_save_leaves_nothing_behind(store: SnapshotStore) -> None:
    state, saver = Counting(), Saver(store, Counter())
    state.learn()
    with pytest.raises(TimeoutError):
        async with state.shard.lock, asyncio.timeout(0.05):
            await saver.save(state.shard, state.copy, last=True)
    await turn_until(lambda: os.listdir(store.folder.scratch) == [])

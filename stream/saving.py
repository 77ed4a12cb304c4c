"""Snapshots of shards that go on learning: copied a slice at a time, compressed in a thread that gives way."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final, TypeVar

import structlog

from stream.copying import Copying, Piece
from stream.shard import Shard
from stream.snapshots import Generation, SnapshotStore, SnapshotWriter

log = structlog.get_logger(__name__)

T = TypeVar("T")
NICE: Final = 10  # added for the thread that writes: what serves visitors goes first
NICEST: Final = 19


class Saver:
    """Writes shards' states into a store.

    Parameters
    ----------
    store
        Where snapshots go.
    counts
        Counted here: snapshots, snapshot_errors.

    Notes
    -----
    The event loop is held for one slice at a time (under 1 ms), a shard only while what changed during the copy is
    copied again. A million users take about 1 s of a core at low priority.
    """

    def __init__(self, store: SnapshotStore, counts: Counter[str]) -> None:
        self._store, self._counts = store, counts
        self._gentle = ThreadPoolExecutor(1, "snapshots", initializer=_give_way)

    async def save(self, shard: Shard, begin: Callable[[int], Copying], *, last: bool = False) -> int | None:
        """Write a snapshot; the offset it includes, or None if there is nothing new or it could not be written.

        Parameters
        ----------
        shard
            Its lock is taken at the end of the copy only.
        begin
            Begins a copy of a partition's state.
        last
            The shard is leaving: at normal priority, and whatever else writes it makes room.
        """
        shard.leaving |= last
        async with shard.saving:
            if shard.lost:
                return None
            if shard.next <= shard.saved:
                shard.saved_at = time.monotonic()  # found to be still true
                return None
            started, executor = time.monotonic(), None if last else self._gentle
            copying = begin(shard.partition)
            try:
                found = await self._write(shard, copying, executor, last=last)
            except OSError as error:
                # it goes on learning; after a crash it would read again from the last one
                log.error("snapshot_failed", shard=shard.name, reason=str(error), last=max(shard.saved, 0))
                self._counts["snapshot_errors"] += 1
                return None
            finally:
                copying.end()
            if found is None:
                return None
            shard.saved, shard.saved_bytes = found.offset, found.nbytes
            shard.saved_at, shard.saved_seconds = started, time.monotonic() - started
            self._counts["snapshots"] += 1
            return found.offset

    async def _write(
        self, shard: Shard, copying: Copying, executor: Executor | None, *, last: bool
    ) -> Generation | None:
        loads = shard.loads
        writer = await _run(executor, self._store.begin, shard.name)
        try:
            for piece in copying.bulk():
                await _run(executor, writer.put, *piece)
                if shard.lost or shard.loads != loads or (shard.leaving and not last):
                    return None
            async with shard.lock:
                if shard.lost or shard.dirty or shard.loads != loads:
                    return None
                offset = shard.next
                pieces: deque[Piece] = deque()
                for piece in copying.rest():
                    pieces.append(piece)
                    await asyncio.sleep(0)  # a chance for everything else
                    if shard.lost:
                        return None
            while pieces:  # one by one: to free tens of megabytes at once takes milliseconds
                await _run(executor, writer.put, *pieces.popleft())
            return await _run(executor, writer.finish, offset)
        finally:
            _abandon(writer)


def _abandon(writer: SnapshotWriter) -> None:
    """Remove what is unfinished, also when this task was cancelled in the middle of a put."""
    asyncio.get_running_loop().run_in_executor(None, writer.close)


async def _run(executor: Executor | None, work: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(executor, work, *arguments)


def _give_way() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no priority of its own
        ours = os.getpriority(os.PRIO_PROCESS, 0)  # a worker above others must not wait for a thread below them all
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(ours + NICE, NICEST))

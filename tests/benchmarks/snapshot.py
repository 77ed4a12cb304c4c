"""What snapshots cost: how long they hold the event loop, the shard, and how much slower events are learned meanwhile.

``python -m tests.benchmarks.snapshot [--users 1000000] [--items 100000] [--json]``

One user shard with full state in this process learns and ranks batches as fast as it can, alternately with a snapshot
under way all the time and without. ``throughput_cost`` is the loss scaled to one snapshot per interval (30 s).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from stream.app import GC_ALLOCATIONS
from stream.demo.shop import Shop
from stream.keys import Keys
from stream.local import LocalRecord
from stream.saving import Saver
from stream.settings import Settings
from stream.shard import Shard
from stream.snapshots import SnapshotStore
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules, UserShard
from tests.benchmarks.harness import arguments, machine, report
from tests.benchmarks.memory import fill_users, ids

BATCH = 250
ROUNDS = 5


class Learner:
    """A shard that learns batches and takes the time they take."""

    def __init__(self, users: int, items: int) -> None:
        state, space = UserShard(UserRules(), 1), ItemSpace(1)
        space.encode(ids(2, 0, items))
        fill_users(state, space, 0, users)
        self.stage = UserStage(space, Keys(), UserRules(), 1)
        self.stage.shards[0] = state
        self.shard = Shard("events", 0, 0.0, next=0)
        self.events = Shop(seed=3, users=50_000, concurrent=5_000).json_events()

    async def learn(self, until: asyncio.Future[Any]) -> tuple[float, float]:
        """Batches until something is done: events per second, and the longest wait for the shard's lock."""
        events, longest, began = 0, 0.0, time.perf_counter()
        while not until.done():
            values = list(itertools.islice(self.events, BATCH))
            asked = time.perf_counter()
            async with self.shard.lock:
                longest = max(longest, time.perf_counter() - asked)
                start = self.shard.next
                records = [LocalRecord(start + n, int(time.time() * 1e3), b"k", v) for n, v in enumerate(values)]
                learned = self.stage.learn(0, records)
                self.stage.rank(0, learned.users, learned.ts_ms)
                self.shard.next += len(records)
            events += len(values)
            await asyncio.sleep(0)
        return events / (time.perf_counter() - began), longest


async def longest_hold(until: asyncio.Future[Any]) -> tuple[float, float]:
    """Longest time between two turns of an otherwise idle loop, and its part that was work of the loop itself.

    The rest is waiting for a core or for the interpreter's lock; on a busy machine there is some without snapshots too.
    """
    longest, most, last, used = 0.0, 0.0, time.perf_counter(), time.thread_time()
    while not until.done():
        await asyncio.sleep(0)
        now, cpu = time.perf_counter(), time.thread_time()
        longest, most, last, used = max(longest, now - last), max(most, cpu - used), now, cpu
    return longest, most


async def measure(users: int, items: int, folder: Path) -> dict[str, object]:
    """All figures."""
    learner, store = Learner(users, items), SnapshotStore(folder)
    saver = Saver(store, Counter())
    await learner.learn(asyncio.ensure_future(asyncio.sleep(1)))  # compiles
    await saver.save(learner.shard, lambda _: learner.stage.copy(0))
    await learner.learn(asyncio.ensure_future(asyncio.sleep(0.1)))
    gc.freeze()  # as workers do
    gc.set_threshold(GC_ALLOCATIONS)
    holds: list[tuple[float, float, float]] = []
    during, without, waits, seconds = [], [], [], []
    for _ in range(ROUNDS):
        gc.collect()  # what learning left is not what snapshots cost
        idle = asyncio.ensure_future(asyncio.sleep(0.5))
        quiet, _ = await longest_hold(idle)
        saving = asyncio.ensure_future(saver.save(learner.shard, lambda _: learner.stage.copy(0)))
        holds.append((*await longest_hold(saving), quiet))
        await learner.learn(asyncio.ensure_future(asyncio.sleep(0.1)))  # something new
        saving = asyncio.ensure_future(saver.save(learner.shard, lambda _: learner.stage.copy(0)))
        rate, waited = await learner.learn(saving)
        assert saving.result() is not None
        during.append(rate)
        waits.append(waited)
        seconds.append(learner.shard.saved_seconds)
        without.append((await learner.learn(asyncio.ensure_future(asyncio.sleep(learner.shard.saved_seconds))))[0])
    lost = 1 - float(np.median(during)) / float(np.median(without))
    took = float(np.median(seconds))
    began = time.perf_counter()
    loaded = await asyncio.to_thread(store.latest, learner.shard.name)
    read = time.perf_counter() - began
    assert loaded is not None
    began = time.perf_counter()
    learner.stage.open(0, loaded.arrays)
    return {
        "users": users,
        "longest_hold_ms": max(hold for hold, _, _ in holds) * 1e3,
        "longest_hold_own_work_ms": max(work for _, work, _ in holds) * 1e3,
        "longest_hold_without_ms": max(quiet for _, _, quiet in holds) * 1e3,
        "longest_wait_for_the_shard_ms": max(waits) * 1e3,
        "events_per_s_without": float(np.median(without)),
        "events_per_s_during": float(np.median(during)),
        "snapshot_s": took,
        "throughput_cost": lost * min(took / Settings().snapshot_every_s, 1),
        "megabytes": learner.shard.saved_bytes / 1e6,
        "load_s": read,
        "open_s": time.perf_counter() - began,
        "machine": machine(),
    }


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rivulet-bench-") as folder:
        report(asyncio.run(measure(options.users, options.items, Path(folder))), json=options.json)


if __name__ == "__main__":
    main()

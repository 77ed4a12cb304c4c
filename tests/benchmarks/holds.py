"""How long a backlog's batches hold the event loop: the user and the item agent on 2,000 records, turn by turn.

``python -m tests.benchmarks.holds [--batches 40] [--json]``

Redis and Kafka are in memory, so all that is left of a turn is the agents' own work. Beside them another task asks for
every second turn; what lies between two of its turns is what anything else in a worker would have waited.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from stream.agents.item import ItemAgent
from stream.app import GC_ALLOCATIONS
from stream.demo.shop import Shop
from stream.hindsight import Hindsight
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.shard import Shard
from stream.stages.sends import Send
from stream.stages.user_shard import UserRules
from stream.stats import Stats
from tests.benchmarks.harness import arguments, machine, report
from tests.fences import Group
from tests.user_agents import user_agent

BATCH = 2_000
WARM = 10  # batches
ITEM_PARTITIONS = 4


class Servers(MemoryStore):
    """Redis and Kafka in memory; each answer takes a turn, as any that comes over a network does."""

    def __init__(self) -> None:
        super().__init__()
        self.logs: list[list[LocalRecord]] = [[] for _ in range(ITEM_PARTITIONS)]

    async def flush(self, batch: WriteBatch) -> None:
        """See `Store`."""
        await asyncio.sleep(0)
        await super().flush(batch)

    async def send(self, sends: Sequence[Send]) -> None:
        """See `Publisher`."""
        await asyncio.sleep(0)
        for send in sends:
            if send.role == "covisits" and send.partition is not None:
                log = self.logs[send.partition]
                log.append(LocalRecord(len(log), 0, None, send.value))


class Turns:
    """What another task waits for its next turn, by CPU time of the thread, while something is under way."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    async def during(self, work: Any) -> None:
        """Await something, and note every wait."""
        task, used = asyncio.ensure_future(work), time.thread_time()
        while not task.done():
            await asyncio.sleep(0)
            now = time.thread_time()
            self.ms.append((now - used) * 1e3)
            used = now
        await task

    def figures(self) -> dict[str, float]:
        """Longest wait, and the one that all but 1 % of the long ones (above 0.1 ms) stay below."""
        long = [ms for ms in self.ms if ms > 0.1]
        return {"longest_ms": max(long), "p99_ms": float(np.quantile(long, 0.99)), "turns": len(long)}


async def measure(ranking: str, batches: int) -> dict[str, object]:
    """Turns of both agents with one shard of events."""
    servers = Servers()
    pipeline = LocalPipeline(servers, UserRules(ranking=ranking), partitions=1, item_partitions=ITEM_PARTITIONS)

    async def nobody(_: int) -> int:
        return -1

    users = user_agent(pipeline, Hindsight(pipeline.items, nobody))
    users.publisher = cast(Any, servers)
    items = ItemAgent("covisits", pipeline.items, cast(Any, servers), servers, Stats(), cast(Any, Group()))
    shard, shards = Shard("events", 0, 0.0, next=0), [Shard("covisits", n, 0.0) for n in range(ITEM_PARTITIONS)]
    source = Shop(seed=3, users=20_000, concurrent=2_000).json_events()
    turns = Turns(), Turns()
    for number in range(WARM + batches):
        if number == WARM:
            turns = Turns(), Turns()
            gc.collect()
            gc.freeze()  # as workers do
            gc.set_threshold(GC_ALLOCATIONS)
        values = itertools.islice(source, BATCH)
        now_ms = int(time.time() * 1e3)
        records: Any = [LocalRecord(shard.next + n, now_ms, b"k", value) for n, value in enumerate(values)]
        await turns[0].during(users.process(shard, records))
        shard.next += BATCH
        for log, item_shard in zip(servers.logs, shards, strict=True):
            await turns[1].during(items.process(item_shard, cast(Any, log[item_shard.next + 1 :])))
            item_shard.next = len(log) - 1
    assert pipeline.users.shards[0].counts["learned"] > 0.9 * BATCH * (WARM + batches)
    return {"user": turns[0].figures(), "item": turns[1].figures()}


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--batches", type=int, default=40)
    options = parser.parse_args()
    figures = {ranking: asyncio.run(measure(ranking, options.batches)) for ranking in ("covisit", "blend")}
    report({**figures, "batch": BATCH, "machine": machine()}, json=options.json)


if __name__ == "__main__":
    main()

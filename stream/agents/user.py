"""The user agent: topic ``events`` -> `UserStage` -> deltas to Kafka, lists to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from aiokafka import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed
from numpy.typing import NDArray

from stream.fencing import Fence
from stream.neighbours import Neighbours
from stream.publisher import Publisher
from stream.shards import Shard
from stream.stages.user import Learned, UserStage
from stream.stats import Stats
from stream.store import Store

SLICE: Final = 500  # users ranked at a time, so that the event loop is not held


class UserAgent:
    """Carries out what the user stage decides, in the order that keeps state exact.

    Parameters
    ----------
    topic
        Name of topic ``events``.
    stage
        The pure steps.
    publisher, store, neighbours
        Where deltas and lists go, and where neighbours that other workers own come from.
    stats
        Counts and times.
    fence
        Says when lists may be written.
    ready
        Awaits until more events may be read (broadcast read, `covisits` not far behind).
    """

    def __init__(  # what a worker consists of, each once
        self,
        topic: str,
        stage: UserStage,
        publisher: Publisher,
        store: Store,
        neighbours: Neighbours,
        stats: Stats,
        fence: Fence,
        ready: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.topic = topic
        self.stage = stage
        self.publisher = publisher
        self.store = store
        self.neighbours = neighbours
        self.stats = stats
        self.fence = fence
        self.ready = ready

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Learn, send the deltas, rank, write; returns when every answer has come."""
        learned = self.stage.learn(shard.partition, records)
        acks = asyncio.ensure_future(self.publisher.send(learned.sends))
        try:
            await self._push(shard, learned)
        except BaseException:
            acks.cancel()
            raise
        await acks
        self.stats.events(learned.event_ms, len(records))

    async def _push(self, shard: Shard, learned: Learned) -> None:
        force = learned.everyone or self.fence.is_fresh(shard)
        if learned.everyone:  # asked for after all rows were published: none read before may count
            self.neighbours.drop()
        for start in range(0, len(learned.users), SLICE):
            if shard.lost:  # after any await the partition may hold a new shard, or none
                return
            users, ts_ms = learned.users[start : start + SLICE], learned.ts_ms[start : start + SLICE]
            await self.neighbours.fetch(self.stage.seeds(shard.partition, users))
            if shard.lost:
                return
            pushes = self.stage.rank(shard.partition, users, ts_ms, force=force, as_of_ms=learned.as_of_ms)
            if not await self.fence.may_write(shard):
                return
            self.stats.lists(pushes.lists, len(pushes.writes))
            if len(pushes.writes):
                await self.store.flush(pushes.writes)

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Take up a shard; what Redis holds by now is not known."""
        self.stage.open(partition, arrays)
        self.stage.shards[partition].doubt()

    def copy(self, partition: int) -> dict[str, NDArray[Any]]:
        """Copies of a shard's state."""
        return self.stage.shards[partition].copy(self.stage.space)

    def close(self, partition: int) -> None:
        """Forget a shard."""
        self.stage.shards.pop(partition, None)

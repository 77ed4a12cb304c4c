"""The item agent: topic ``covisits`` -> `ItemStage` -> popularity to Kafka, neighbour lists to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed
from numpy.typing import NDArray

from stream.publisher import Publisher
from stream.shards import Shard
from stream.stages.item import ItemStage
from stream.stats import Stats
from stream.store import Store


class ItemAgent:
    """Carries out what the item stage decides.

    Parameters
    ----------
    topic
        Name of topic ``covisits``.
    stage
        The pure steps.
    publisher, store
        Where popularity and neighbour lists go.
    stats
        Counts and times.
    """

    def __init__(self, topic: str, stage: ItemStage, publisher: Publisher, store: Store, stats: Stats) -> None:
        self.topic = topic
        self.stage = stage
        self.publisher = publisher
        self.store = store
        self.stats = stats
        self.moved = asyncio.Event()

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Apply the deltas; publish at once only if a record asks for it."""
        if self.stage.learn(shard.partition, records):
            await self.publish(shard.partition)
        self.moved.set()

    async def publish(self, partition: int) -> None:
        """Write every changed neighbour list of a shard, slice by slice, and tell the global stage."""
        more = partition in self.stage.shards
        while more:
            published = self.stage.publish(partition, self.stats.now_ms())
            self.stats.keys(len(published.writes))
            if len(published.writes):
                await self.store.flush(published.writes)
            await self.publisher.send(published.sends)
            more = published.more and partition in self.stage.shards

    async def ready(self) -> None:
        """Deltas are always welcome."""

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Take up a shard; its last owner may have owned all of them, and published rows to nobody."""
        self.stage.open(partition, arrays)
        self.stage.touch_all(partition)

    def copy(self, partition: int) -> dict[str, NDArray[Any]]:
        """Copies of a shard's state."""
        return self.stage.copy(partition)

    def close(self, partition: int) -> None:
        """Forget a shard."""
        self.stage.close(partition)

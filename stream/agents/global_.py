"""The global agent: topic ``global`` -> `GlobalStage` -> trending and segments to Redis, models to everyone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed
from numpy.typing import NDArray

from stream.publisher import Publisher
from stream.shards import Shard
from stream.stages.global_ import GlobalStage
from stream.stats import Stats
from stream.store import Store


class GlobalAgent:
    """Carries out what the global stage decides.

    Parameters
    ----------
    topic
        Name of topic ``global``.
    stage
        The pure steps.
    publisher, store
        Where models, and trending lists and segments go.
    stats
        Counts and times.
    """

    def __init__(self, topic: str, stage: GlobalStage, publisher: Publisher, store: Store, stats: Stats) -> None:
        self.topic = topic
        self.stage = stage
        self.publisher = publisher
        self.store = store
        self.stats = stats
        self.owned = False

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Learn from samples and popularity."""
        self.stage.learn(shard.partition, records)

    async def publish(self) -> None:
        """Write trending lists and segments and broadcast the model, if anything changed and this worker owns them."""
        if not (self.owned and self.stage.changed):
            return
        broadcast = self.stage.publish()
        self.stats.keys(len(broadcast.writes))
        if len(broadcast.writes):
            await self.store.flush(broadcast.writes)
        await self.publisher.send(broadcast.sends)

    async def ready(self) -> None:
        """Samples are always welcome."""

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Take up the shard."""
        self.stage.open(partition, arrays)
        self.owned = True

    def copy(self, partition: int) -> dict[str, NDArray[Any]]:
        """Copies of the shard's state."""
        return self.stage.copy(partition)

    def close(self, partition: int) -> None:
        """Stop publishing; the state stays until the shard is opened again."""
        self.owned = False

"""The global agent: topic ``global`` -> `GlobalStage` -> trending and segments to Redis, models to everyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from stream.agents.base import Agent
from stream.fetches import ConsumerRecord
from stream.shards import Shard
from stream.stages.global_ import GlobalStage


@dataclass(eq=False)
class GlobalAgent(Agent[GlobalStage]):
    """Carries out what the global stage decides."""

    pace_s: ClassVar[float] = 0.25  # what it learns is published every few seconds

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Learn from samples and popularity; what follows from them is published every few seconds."""
        self.stats.batches["global"].add_one(len(records))
        with self.stats.timed("global", "learn"):
            self.stage.learn(shard.partition, records)

    async def publish(self) -> None:
        """Write trending lists and segments and broadcast the model, if anything changed and this worker owns them."""
        if not (self.stage.owned and self.stage.changed):
            return
        weights = self.stage.weights.changed
        broadcast = self.stage.publish()
        try:
            await self.write(broadcast.writes)
            self.stage.published(broadcast)
            await self.publisher.send(broadcast.sends)
        except BaseException:  # nobody may have heard it
            self.stage.changed = True
            self.stage.weights.changed |= weights
            raise

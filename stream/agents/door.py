"""The privacy agent: topic ``privacy`` -> `Door` -> topic ``events``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stream.agents.base import Agent
from stream.fetches import ConsumerRecord
from stream.shards import Shard
from stream.stages.door import Door


@dataclass(eq=False)
class DoorAgent(Agent[Door]):
    """Publishes what the door passes on."""

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Pass requests on; returns when they are acknowledged."""
        self.stats.batches["privacy"].add_one(len(records))
        with self.stats.timed("privacy", "send"):
            await self.publisher.send(self.stage.pass_on(shard.partition, records, self.stats.now_ms()))

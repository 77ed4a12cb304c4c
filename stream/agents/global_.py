"""The global agent: topic ``global`` -> `GlobalStage` -> trending and segments to Redis, models to everyone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import structlog

from stream.agents.base import Agent, in_turns
from stream.fencing import Fence
from stream.fetches import ConsumerRecord
from stream.shards import Shard
from stream.stages.global_ import GlobalStage
from stream.stages.sends import Send
from stream.wire import Popular, encode_global

# Teaches nothing; but whoever reads it publishes again, as after any record.
NOTHING_NEW: Final = encode_global(Popular(0, 0, 0, [], [], [], []))

SLICE_BYTES: Final = 16_000  # of records learned at a time, so that the event loop is not held

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class GlobalAgent(Agent[GlobalStage]):
    """Carries out what the global stage decides.

    Parameters
    ----------
    fence
        Says when lists and segments may be written.
    """

    pace_s: ClassVar[float] = 0.25  # what it learns is published every few seconds

    fence: Fence

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Learn from samples and popularity; what follows from them is published every few seconds."""
        self.stats.batches["global"].add_one(len(records))
        with self.stats.timed("global", "learn"):
            async for some in in_turns(shard, records, SLICE_BYTES):
                self.stage.learn(shard.partition, some)

    async def publish(self, shard: Shard) -> None:
        """Write trending lists and segments and broadcast the models, if anything changed."""
        late = False
        while self.stage.owned and self.stage.changed and await self.fence.may_write(shard):
            late = not await self._publish(shard)
            if not late:
                return
        if late:
            log.warning("trends_may_be_older", shard=shard.name, then="written again by the owner")
            await self.ask_owner(Send("global", NOTHING_NEW, partition=shard.partition))

    async def _publish(self, shard: Shard) -> bool:
        """Publish once; False if another worker may have done so before: the owner is to do it again."""
        weights = self.stage.weights.changed
        broadcast = self.stage.publish()
        told = False
        try:
            await self.write(broadcast.writes)
            if not self.fence.is_overtaken(shard):
                self.stage.published(broadcast)
                await self.publisher.send(broadcast.sends)
                told = True
        finally:
            if not told:  # nobody may have heard it
                self.stage.changed = True
                self.stage.weights.changed |= weights
        return told

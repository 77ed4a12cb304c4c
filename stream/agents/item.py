"""The item agent: topic ``covisits`` -> `ItemStage` -> popularity to Kafka, neighbour lists to Redis."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import structlog

from stream.agents.base import Agent, in_turns
from stream.fencing import Fence
from stream.fetches import ConsumerRecord
from stream.shards import Shard
from stream.stages.item import ItemStage
from stream.stages.sends import Send
from stream.wire import DOUBT

SLICE_BYTES: Final = 400_000  # of records applied at a time, some 10,000 visits, so that the event loop is not held

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class ItemAgent(Agent[ItemStage]):
    """Carries out what the item stage decides.

    Parameters
    ----------
    fence
        Says when rows may be written.

    Attributes
    ----------
    moved
        Set whenever deltas were applied.
    """

    pace_s: ClassVar[float] = 0.1  # lists may lack the deltas of so short a time; small batches cost more

    fence: Fence
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    _publishing: defaultdict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Apply the deltas; publish at once only if a record asks for it."""
        self.stats.batches["item"].add_one(len(records))
        flush = False
        with self.stats.timed("item", "learn"):
            async for some in in_turns(shard, records, SLICE_BYTES):
                flush |= self.stage.learn(shard.partition, some)
        if flush:
            await self.publish(shard)
        self.moved.set()

    async def publish(self, shard: Shard) -> None:
        """Write every changed neighbour list of a shard, slice by slice, and tell the global stage.

        One at a time: who was asked to publish everything may not say that it is done while a slice is under way.
        """
        async with self._publishing[shard.partition]:
            await self._publish(shard)

    async def _publish(self, shard: Shard) -> None:
        more, late = shard.partition in self.stage.shards, False
        while more and await self.fence.may_write(shard):
            with self.stats.timed("item", "publish"):
                published = self.stage.publish(shard.partition, self.stats.now_ms())
                try:
                    await self.write(published.writes)
                    if len(published.writes) and self.fence.is_overtaken(shard):
                        late = True
                        self.stage.publish_again(published)  # by us, if we are still its owner
                        continue
                    await self.publisher.send(published.sends)
                except BaseException:  # nobody may have heard it
                    self.stage.publish_again(published)
                    raise
            more = published.more
        if late and shard.lost:
            await self._ask_again(shard)

    async def _ask_again(self, shard: Shard) -> None:
        """Have the partition's new owner write all of its rows and tell the global stage again."""
        log.warning("rows_may_be_older", shard=shard.name, then="written again by the owner")
        await self.ask_owner(Send("covisits", DOUBT, partition=shard.partition))

    def open(self, partition: int, prepared: Any) -> None:
        """Take up a shard; its last owner may have owned all of them, and published rows to nobody."""
        super().open(partition, prepared)
        self.stage.touch_all(partition)

"""When events may be read: not before the broadcast's past is known, nor while `covisits` lags far behind."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from stream.agents.item import ItemAgent
from stream.broadcast import Broadcast
from stream.fetches import TP
from stream.publisher import Publisher
from stream.shards import ShardHost

TICK_S: Final = 0.25


class Gate:
    """Keeps a backlog from being ranked with no offers and no neighbours.

    Parameters
    ----------
    topic
        Name of topic ``events``.
    broadcast, publisher
        What was read, and what was sent to `covisits`.
    item_agent
        Applies `covisits`; tells when it has moved.
    limit
        Most records of `covisits` that may wait.
    """

    def __init__(
        self, topic: str, broadcast: Broadcast, publisher: Publisher, item_agent: ItemAgent, limit: int
    ) -> None:
        self.topic = topic
        self._broadcast, self._publisher, self._item_agent, self._limit = broadcast, publisher, item_agent, limit
        self.host: ShardHost  # made later than this

    @property
    def closed(self) -> bool:
        """Whether events have to wait."""
        return not self._broadcast.caught_up.is_set() or self.lag() > self._limit

    def lag(self) -> int:
        """Acknowledged records of `covisits` that the item shards of this process have not applied yet."""
        topic = self._item_agent.topic
        shards = self.host.shards
        return max(
            (
                at + 1 - shards[TP(topic, partition)].next
                for (role, partition), at in self._publisher.acked.items()
                if role == "covisits" and TP(topic, partition) in shards
            ),
            default=0,
        )

    async def ready(self) -> None:
        """Wait until events may be read."""
        await self._broadcast.caught_up.wait()
        while self.lag() > self._limit:
            self._item_agent.moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._item_agent.moved.wait()

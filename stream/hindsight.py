"""Tells when item rows know what follows: after a crash a user shard reads events again that they have learned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from stream.stages.item import ItemStage
from stream.stages.user_shard import UserShard


@dataclass(frozen=True)
class Hindsight:
    """Compares where a user shard stands with how far item shards have heard from its partition.

    Parameters
    ----------
    items
        The item shards of this process.
    told
        Gives the highest offset of a partition of which any worker's item shards have said that they hold the deltas.

    Notes
    -----
    What other workers say is up to a second old, and is asked for once per shard, then with each batch that it covers.
    """

    items: ItemStage
    told: Callable[[int], Awaitable[int]]

    async def reach(self, shard: UserShard, partition: int, offset: int) -> int:
        """Up to which offset rows may hold what is about to be read from an offset on."""
        if shard.heard_of is None or shard.heard_of >= offset:
            shard.heard_of = await self.told(partition)
        return max(shard.heard_of, self.items.mark_of(partition))

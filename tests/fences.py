"""What the group says of a worker, as a fence tells it, without a group."""

from __future__ import annotations

from dataclasses import dataclass

from stream.shard import Shard


@dataclass
class Group:
    """Gives so many leaves to write, after which the shard is lost; so many writes were `overtaken` by others'."""

    leaves: int = 100
    overtaken: int = 0

    async def may_write(self, shard: Shard) -> bool:
        """See `stream.fencing.Fence`."""
        self.leaves -= 1
        shard.lost |= self.leaves < 0
        return not shard.lost

    def is_overtaken(self, shard: Shard) -> bool:
        """See `stream.fencing.Fence`."""
        self.overtaken -= 1
        return self.overtaken >= 0

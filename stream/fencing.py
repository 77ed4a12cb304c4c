"""Keeps a worker that was paused or cut off from leaving an older list in Redis than its successor's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from stream.shard import LOG_START
from stream.shards import Shard, ShardHost

POLL_S: Final = 0.05


class Fence:
    """Says when a shard's worker may write, and when it should write even what seems unchanged.

    Parameters
    ----------
    host
        Gives the owner of the shards (made later than this).
    claim
        Leaves in Redis that a shard has had an owner; whether it had none before.
    session_s
        Session timeout of the group: after it, somebody else may own the shard.
    """

    def __init__(
        self, host: Callable[[], ShardHost], claim: Callable[[str], Awaitable[bool]], session_s: float
    ) -> None:
        self._host = host
        self._claim = claim
        self._session_s = session_s

    async def may_write(self, shard: Shard) -> bool:
        """Wait until the group has surely heard of this worker lately; False if the shard was lost meanwhile."""
        while not shard.lost:
            if self._host().may_write():
                return True
            await asyncio.sleep(POLL_S)
        return False

    def is_overtaken(self, shard: Shard) -> bool:
        """Whether another worker may have written for the shard before what this one has just written arrived."""
        return shard.lost or self._host().may_be_replaced()

    async def may_follow(self, shard: Shard) -> bool:
        """Whether a predecessor's writes may still arrive after ours: for two sessions after the shard was taken up.

        Asked before the first write. Whoever finds no snapshot and no claim has no predecessor: to write a whole
        backlog's unchanged lists for nobody's sake takes half as long again.
        """
        if shard.first is None:
            anew = shard.saved == LOG_START
            shard.first = await self._claim(shard.name) and anew
        return not shard.first and time.monotonic() < shard.owned_since + 2 * self._session_s

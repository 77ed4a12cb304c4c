"""Several partitions of a topic as one stream, ordered by the records' times as far as they are known."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from aiokafka import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed

WAIT_MS: Final = 200


class Merge:
    """What was fetched of each partition, until it is that partition's turn.

    A recording of many partitions can only be replayed at its own pace if an old record of one does not stand behind
    new ones of another: so nothing is handed out while a partition that goes on has nothing to compare with. Within a
    partition the order is the log's. Memory: one fetch per partition (1 MB, or one larger record).

    Parameters
    ----------
    consumer
        An aiokafka consumer that has sought.
    partitions
        All of them.

    Attributes
    ----------
    ends
        Ends of the logs as last seen; set from outside.
    until_ms, until_offsets
        Records from this time, or these offsets, on are not handed out; None = no such bound.
    """

    def __init__(self, consumer: Any, partitions: Sequence[Any]) -> None:
        self._consumer = consumer
        self.partitions = partitions
        self._fetched: dict[Any, deque[ConsumerRecord]] = {tp: deque() for tp in partitions}
        self.ends: Mapping[Any, int] = {}
        self.until_ms: int | None = None
        self.until_offsets: Mapping[int, int] | None = None

    async def next(self) -> dict[int, int]:
        """First offset of each partition that was not handed out."""
        return {tp.partition: await self._next(tp) for tp in self.partitions}

    async def lag(self) -> int:
        """Records that are known to be there and were not handed out."""
        return sum([max(self._goal(tp) - await self._next(tp), 0) for tp in self.partitions])

    async def fetch(self) -> None:
        """Fetch what the order needs next, or wait a moment for anything new."""
        behind = [tp for tp in self.partitions if not self._fetched[tp] and await self._goes_on(tp)]
        going = [tp for tp in self.partitions if not self._is_past(tp)]
        if not behind and any(self._fetched[tp] for tp in going):
            return
        if not going:
            await asyncio.sleep(WAIT_MS / 1000)
            return
        for tp, records in (await self._consumer.getmany(*(behind or going), timeout_ms=WAIT_MS)).items():
            self._fetched[tp].extend(records)

    async def records(self) -> AsyncIterator[tuple[int, ConsumerRecord]]:
        """Partition and record, the oldest first, until a fetch of a partition that goes on is used up."""
        going_on = {tp for tp in self.partitions if await self._goes_on(tp)}
        if any(not self._fetched[tp] for tp in going_on):
            return
        fetched = [(tp, records) for tp, records in self._fetched.items() if records and not self._is_past(tp)]
        heads = [(records[0].timestamp, tp.partition, tp) for tp, records in fetched]
        heapq.heapify(heads)
        while heads:
            _, partition, tp = heads[0]
            records = self._fetched[tp]
            yield partition, records.popleft()
            if records and not self._is_past(tp):
                heapq.heapreplace(heads, (records[0].timestamp, partition, tp))
            elif not records and tp in going_on:
                return
            else:
                heapq.heappop(heads)

    async def _next(self, tp: Any) -> int:
        records = self._fetched[tp]
        return int(records[0].offset if records else await self._consumer.position(tp))

    async def _goes_on(self, tp: Any) -> bool:
        """Whether there is more of a partition to fetch."""
        return bool(await self._consumer.position(tp) < self._goal(tp))

    def _goal(self, tp: Any) -> int:
        end = self.ends.get(tp, 0)
        return end if self.until_offsets is None else min(end, self.until_offsets.get(tp.partition, end))

    def _is_past(self, tp: Any) -> bool:
        """Whether a partition's next record is beyond a bound."""
        records = self._fetched[tp]
        if not records:
            return False
        if self.until_ms is not None and records[0].timestamp >= self.until_ms:
            return True
        limits = self.until_offsets
        return limits is not None and records[0].offset >= limits.get(tp.partition, records[0].offset + 1)

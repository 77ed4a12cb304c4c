"""Partitions merged into one stream: each in its own order, all in the order of their times, nothing lost or twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.bounds import places
from stream.merging import Merge


class Record(NamedTuple):
    offset: int
    timestamp: int


class Consumer:
    """Hands out logs in fetches of given sizes, as a broker might: of some partitions, sometimes of none."""

    def __init__(self, logs: Mapping[Any, Sequence[int]], sizes: Sequence[int]) -> None:
        self.logs = {tp: [Record(n, ts) for n, ts in enumerate(log)] for tp, log in logs.items()}
        self.at = dict.fromkeys(logs, 0)
        self.sizes = list(sizes)
        self.held = 0

    async def position(self, tp: Any) -> int:
        return self.at[tp]

    async def getmany(self, *partitions: Any, timeout_ms: int) -> dict[Any, list[Record]]:
        found = {}
        for tp in partitions:
            size = self.sizes.pop(0) if self.sizes else 3
            part = self.logs[tp][self.at[tp] : self.at[tp] + size]
            self.at[tp] += len(part)
            if part:
                found[tp] = part
        self.held = max(self.held, sum(map(len, found.values())))
        return found


logs = st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=4)
sizes = st.lists(st.integers(0, 5), max_size=20)


async def merged(merge: Merge) -> list[tuple[int, Record]]:
    found: list[tuple[int, Record]] = []
    while await merge.lag():
        await merge.fetch()
        found += [each async for each in merge.records()]
        assert await merge.next() == {
            tp.partition: sum(partition == tp.partition for partition, _ in found) for tp in merge.partitions
        }
    return found


@settings(deadline=None)
@given(logs.map(lambda each: [sorted(log) for log in each]), sizes)
async def test_the_order_is_that_of_the_times_whatever_is_fetched_when(times: list[list[int]], cuts: list[int]) -> None:
    parts = places("t", set(range(len(times))))
    merge = Merge(Consumer(dict(zip(parts, times, strict=True)), cuts), parts)
    merge.ends = {tp: len(log) for tp, log in zip(parts, times, strict=True)}
    found = await merged(merge)
    assert [record.timestamp for _, record in found] == sorted(ts for log in times for ts in log)
    for partition, log in enumerate(times):
        assert [record.timestamp for where, record in found if where == partition] == log


@settings(deadline=None)
@given(logs, sizes, st.dictionaries(st.integers(0, 3), st.integers(0, 14)))
async def test_bounds_by_offset_and_times_that_jump(
    times: list[list[int]], cuts: list[int], until: dict[int, int]
) -> None:
    parts = places("t", set(range(len(times))))
    merge = Merge(Consumer(dict(zip(parts, times, strict=True)), cuts), parts)
    merge.ends = {tp: len(log) for tp, log in zip(parts, times, strict=True)}
    merge.until_offsets = until
    found = await merged(merge)
    for partition, log in enumerate(times):
        assert [record.timestamp for where, record in found if where == partition] == log[: until.get(partition, 99)]


async def test_a_bound_by_time_ends_a_partition_at_its_first_record_from_then_on() -> None:
    parts = places("t", {0, 1})
    merge = Merge(Consumer(dict(zip(parts, ([1, 5, 2], [3, 4, 9]), strict=True)), [3, 3]), parts)
    merge.ends = dict.fromkeys(parts, 3)
    merge.until_ms = 5
    await merge.fetch()
    assert [(where, record.timestamp) async for where, record in merge.records()] == [(0, 1), (1, 3), (1, 4)]
    assert await merge.next() == {0: 1, 1: 2}

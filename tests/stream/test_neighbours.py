from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.histories import Histories, Touches
from models.neighbour_rows import NO_ROW
from stream.keys import Keys
from stream.memory_store import MemoryStore
from stream.neighbours import MAX_AGE_S, Neighbours
from stream.resp import WriteBatch
from stream.row_wire import pack_rows
from stream.stages.space import ItemSpace

KEYS = Keys()
PARTITIONS = 4
NAMES = [f"item-{n}" for n in range(40)]


class Counting(MemoryStore):
    """A store that tells what was read from it, and may be kept from answering."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[list[bytes]] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked.append(list(keys))
        await self.answers.wait()
        return await super().get(keys)


class World:
    """A worker that owns partition 0, and users who touched items; others' rows are in the store."""

    def __init__(self, max_rows: int = 1000) -> None:
        self.now = 100.0
        self.space = ItemSpace(PARTITIONS, neighbours=4, transitions=2)
        self.space.owned.add(0)
        self.items = self.space.encode(NAMES)
        self.foreign = {name for name, at in zip(NAMES, self.space.partition[self.items], strict=True) if at != 0}
        self.store = Counting()
        self.cache = Neighbours(self.space, self.store, KEYS, lambda: self.now, max_rows)
        self.histories = Histories(8)

    def publish(self, names: Sequence[str], total: float) -> None:
        """What the owners of some items say of them now."""
        theirs = ItemSpace(1, neighbours=4, transitions=2)
        codes = theirs.encode(list(names))
        theirs.rows.open(codes)
        theirs.rows.arrays.total[theirs.rows.arrays.row[codes]] = total
        batch = WriteBatch()
        for name, value in zip(names, pack_rows(theirs.rows, codes, theirs.ids), strict=True):
            batch.set(KEYS.neighbours(name), value, 60)
        asyncio.run(self.store.flush(batch))

    def touch(self, touches: Sequence[tuple[int, str]]) -> NDArray[np.int32]:
        """Let users touch items; who they are."""
        users = np.array([user for user, _ in touches], dtype=np.int32)
        codes = self.space.encode([name for _, name in touches])
        n = len(touches)
        self.histories.reserve(int(users.max()) + 1)
        append(self.histories, Touches(users, codes, *columns(n)))
        return np.unique(users)

    def fetch(self, users: NDArray[np.int32]) -> set[str]:
        """Which items were asked for."""
        self.store.asked.clear()
        asyncio.run(self.cache.fetch(self.histories.arrays, users))
        asked = [key for keys in self.store.asked for key in keys]
        assert len(set(asked)) == len(asked)
        return {key.decode().removeprefix("rv:nb:") for key in asked}

    def totals(self) -> dict[str, float]:
        """Rows that are known, by their owner's total."""
        arrays = self.space.rows.arrays
        known = np.flatnonzero(arrays.row != NO_ROW).astype(np.int32)
        return dict(zip(self.space.ids.texts(known), arrays.total[arrays.row[known]].tolist(), strict=True))


def columns(n: int) -> tuple[NDArray[np.uint8], NDArray[np.uint32], NDArray[np.bool_]]:
    return np.ones(n, dtype=np.uint8), np.arange(n, dtype=np.uint32), np.zeros(n, dtype=np.bool_)


def append(histories: Histories, touches: Touches) -> None:
    a, size = histories.arrays, histories.arrays.item.shape[1]
    for user, item in zip(touches.user, touches.item, strict=True):  # the ring as `models.histories` keeps it
        head = (int(a.head[user]) + 1) % size if a.count[user] else 0
        a.item[user, head], a.head[user], a.count[user] = item, head, min(int(a.count[user]) + 1, size)


TOUCHES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(NAMES)), min_size=1, max_size=80)


@settings(deadline=None)
@given(TOUCHES, st.sets(st.integers(0, 5), min_size=1))
def test_exactly_the_foreign_items_of_the_users_are_read_once(touches: list[tuple[int, str]], asked: set[int]) -> None:
    world = World()
    world.touch(touches)
    world.histories.reserve(6)
    recent = {name for user in asked for name in [item for who, item in touches if who == user][-8:]}
    needed = recent & world.foreign
    users = np.array(sorted(asked), dtype=np.int32)
    assert world.fetch(users) == needed
    assert (world.cache.misses, world.cache.hits) == (len(needed), 0)
    world.now += MAX_AGE_S / 2
    assert world.fetch(users) == set()
    assert (world.cache.misses, world.cache.hits) == (len(needed), len(needed))
    world.now += MAX_AGE_S / 2
    assert world.fetch(users) == needed
    assert len(world.cache) == len(needed)


def test_nothing_is_read_while_all_items_are_owned() -> None:
    world = World()
    users = world.touch([(0, name) for name in NAMES[:8]])
    world.space.owned.update(range(PARTITIONS))
    assert world.fetch(users) == set()


def test_rows_are_those_of_the_latest_reading() -> None:
    world = World()
    name, other = sorted(world.foreign)[:2]
    world.publish([name], 2.0)
    users = world.touch([(0, name), (0, other)])
    world.fetch(users)
    assert world.totals() == {name: 2.0}  # of the other nothing is published
    world.publish([name, other], 3.0)
    world.fetch(users)
    assert world.totals() == {name: 2.0}  # cached
    world.now += MAX_AGE_S
    world.fetch(users)
    assert world.totals() == {name: 3.0, other: 3.0}


def test_after_a_drop_nothing_read_before_counts() -> None:
    world = World()
    names = sorted(world.foreign)[:8]
    world.publish(names, 2.0)
    users = world.touch([(0, name) for name in names])
    world.fetch(users)
    own = world.space.encode([next(name for name in NAMES if name not in world.foreign)])
    world.space.rows.open(own)
    asyncio.run(world.cache.drop())
    assert len(world.totals()) == 1  # the row that this worker learns itself
    assert len(world.cache) == 0
    assert world.fetch(users) == set(names)


def test_a_full_cache_keeps_what_every_reading_under_way_needs() -> None:
    world = World(max_rows=8)
    names = sorted(world.foreign)[:16]
    world.publish(names, 1.0)
    both = [world.touch([(user, name) for name in names[8 * user : 8 * user + 8]]) for user in (0, 1)]

    async def run() -> None:
        world.store.answers.clear()
        readings = [asyncio.create_task(world.cache.fetch(world.histories.arrays, users)) for users in both]
        await asyncio.sleep(0)
        world.store.answers.set()
        await asyncio.gather(*readings)

    asyncio.run(run())
    assert world.totals() == dict.fromkeys(names, 1.0)


@pytest.mark.parametrize("given_up", [False, True])
def test_rows_that_go_while_others_are_read_are_read_again(given_up: bool) -> None:
    """Chaos, seeds 64 and 81: two shards ranked everyone, and one dropped the rows that the other was about to use."""
    world = World()
    own = next(name for name in NAMES if name not in world.foreign)
    names = [own if given_up else sorted(world.foreign)[1], sorted(world.foreign)[0]]
    world.publish(names, 2.0)
    if given_up:
        world.space.rows.open(world.space.encode([own]))
    else:
        world.fetch(world.touch([(0, names[0])]))
    users = world.touch([(1, name) for name in names])

    async def run() -> None:
        world.store.answers.clear()
        reading = asyncio.create_task(world.cache.fetch(world.histories.arrays, users))
        await asyncio.sleep(0)
        if given_up:
            world.space.owned.discard(0)
            world.space.rows.drop(world.space.encode([own]))
        else:
            await world.cache.drop()
        world.store.answers.set()
        await reading

    asyncio.run(run())
    assert world.totals() == dict.fromkeys(names, 2.0)


def test_a_full_cache_drops_what_was_asked_for_longest_ago() -> None:
    world = World(max_rows=16)
    names = sorted(world.foreign)[:24]
    world.publish(names, 1.0)
    for user, start in enumerate((0, 8, 16)):
        world.fetch(world.touch([(user, name) for name in names[start : start + 8]]))
        world.now += 1
    left = set(world.totals())
    assert len(world.cache) == len(left) == 15  # eight too many, and a sixteenth of 16
    assert set(names[16:]) <= left <= set(names[8:])
    assert world.fetch(np.arange(3, dtype=np.int32)) == set(names) - left


@pytest.mark.parametrize("published", [True, False])
def test_what_is_taken_up_during_the_reading_keeps_its_own_row(published: bool) -> None:
    world = World()
    name = sorted(world.foreign)[0]
    if published:
        world.publish([name], 9.0)
    users = world.touch([(0, name)])
    (item,) = world.space.encode([name])

    async def run() -> None:
        world.store.answers.clear()
        reading = asyncio.create_task(world.cache.fetch(world.histories.arrays, users))
        await asyncio.sleep(0)
        world.space.owned.add(int(world.space.partition[item]))
        world.space.rows.open(np.array([item], dtype=np.int32))
        world.space.rows.arrays.total[world.space.rows.arrays.row[item]] = 5.0
        world.store.answers.set()
        await reading

    asyncio.run(run())
    assert world.totals() == {name: 5.0}
    assert len(world.cache) == 0


def test_no_index_goes_to_another_item_while_the_answer_is_awaited() -> None:
    world = World()
    users = world.touch([(0, name) for name in sorted(world.foreign)[:4]])

    async def run() -> None:
        world.store.answers.clear()
        reading = asyncio.create_task(world.cache.fetch(world.histories.arrays, users))
        await asyncio.sleep(0)
        world.space.encode([f"much-{n}" for n in range(20_000)])  # nothing refers to them: enough to collect
        for _ in range(100):
            world.space.reclaimer.step()
        assert world.space.dropped == 0
        world.store.answers.set()
        await reading
        for _ in range(100):
            world.space.reclaimer.step()
        assert world.space.dropped > 0

    asyncio.run(run())


def test_items_that_are_gone_are_forgotten() -> None:
    world = World()
    gone = sorted(world.foreign)[:3]
    users = world.touch([(0, name) for name in gone])
    world.fetch(users)
    assert len(world.cache) == 3
    codes = world.space.encode(gone)
    world.space.drop(codes)
    others = world.touch([(1, name) for name in sorted(world.foreign)[4:6]])
    world.histories.arrays.count[0] = 0
    world.fetch(others)
    assert len(world.cache) == 2

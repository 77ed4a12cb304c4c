"""The catalogue's writer: a batch of a predecessor that comes late is written again, however late it comes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from aiokafka import TopicPartition  # type: ignore[import-untyped]  # no py.typed

from stream.item_writer import REVIEW_S, ItemProgress, ItemWriter
from stream.keys import Keys, parse_item
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.settings import Settings

PARTITION = TopicPartition("items", 0)
KEYS = Keys()


class Topic:
    """A partition of topic ``items`` as a consumer of it."""

    def __init__(self) -> None:
        self.records: list[Any] = []
        self.at = 0
        self.rounds = 0

    def put(self, price: float, item: str = "tent") -> None:
        value = msgspec.json.encode({"item_id": item, "price": price})
        self.records.append(
            SimpleNamespace(key=item.encode(), value=value, offset=len(self.records), timestamp=len(self.records))
        )

    def assignment(self) -> set[TopicPartition]:
        return {PARTITION}

    async def end_offsets(self, partitions: set[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, len(self.records))

    async def position(self, _: TopicPartition) -> int:
        return self.at

    def seek(self, _: TopicPartition, at: int) -> None:
        self.at = at

    async def getmany(self, **_: int) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        found, self.at = self.records[self.at :], len(self.records)
        self.rounds += 1
        return {PARTITION: found} if found else {}

    async def stop(self) -> None:
        pass


class World:
    """A writer, its Redis and its clock."""

    def __init__(self, topic: Topic, store: MemoryStore) -> None:
        self.now, self.owned, self.topic, self.store = 0.0, True, topic, store
        self.settings = Settings()
        self.written: list[int] = []
        worker = SimpleNamespace(
            settings=self.settings,
            keys=KEYS,
            store=store,
            globe=self,
            host=SimpleNamespace(may_write=lambda: True),
            stats=SimpleNamespace(keys=self.written.append),
        )
        self.writer = ItemWriter(cast(Any, worker), lambda: self.now)

    async def some_rounds(self) -> None:
        rounds = self.topic.rounds
        for _ in range(20):  # nothing here waits for anything
            await asyncio.sleep(0)
        assert self.topic.rounds > rounds + 3

    async def price(self, item: str = "tent") -> float | None:
        (value,) = await self.store.get([KEYS.item(item)])
        return None if value is None else parse_item(value).price

    async def late(self, price: float, progress: ItemProgress | None) -> None:
        """What a predecessor had under way arrives; without progress if it has ended since."""
        batch = WriteBatch()
        batch.set(KEYS.item("tent"), b'{"v":1,"price":%d}' % price, None)
        if progress is not None:
            batch.hset(KEYS.meta, {b"items-0": msgspec.json.encode(progress)}, None)
        await self.store.flush(batch)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(Topic(), MemoryStore())

    async def consumer(*_: object) -> Topic:
        world.topic.at = 0
        return world.topic

    monkeypatch.setattr("stream.item_writer.groupless_consumer", consumer)
    return world


async def test_a_successor_writes_again_after_two_sessions_and_then_no_more(world: World) -> None:
    for price in (10, 20, 30):
        world.topic.put(price)
    world.topic.put(5, "bag")
    # the predecessor had told of the first record and was frozen within the second
    await world.late(10, ItemProgress(1, 0, "predecessor"))
    following = asyncio.create_task(world.writer._follow())
    await world.some_rounds()
    assert await world.price() == 30
    await world.late(20, None)
    world.now = 2 * world.settings.session_s - 0.1
    await world.some_rounds()
    assert await world.price() == 20
    world.now += 0.2
    await world.some_rounds()
    assert await world.price() == 30
    written = len(world.written)
    world.now += 100 * world.settings.session_s
    await world.some_rounds()
    assert len(world.written) == written == 2
    world.owned = False
    await following


async def test_a_batch_that_comes_later_still_is_noticed_by_what_it_tells(world: World) -> None:
    for price in (10, 20, 30):
        world.topic.put(price)
    following = asyncio.create_task(world.writer._follow())
    world.now = 1_000 * world.settings.session_s
    await world.some_rounds()
    world.now += REVIEW_S
    await world.some_rounds()
    written = len(world.written)
    await world.late(20, ItemProgress(2, 1, "predecessor"))
    world.now += REVIEW_S + 0.1
    await world.some_rounds()
    assert await world.price() == 30
    assert len(world.written) == written + 1
    world.now += REVIEW_S + 0.1
    await world.some_rounds()
    assert len(world.written) == written + 1  # its own word is not another's
    world.owned = False
    await following


async def test_a_successor_goes_on_with_the_last_batch(world: World) -> None:
    for number in range(10):
        world.topic.put(number, f"i{number}")
    await world.late(0, ItemProgress(9, 7, "predecessor"))
    following = asyncio.create_task(world.writer._follow())
    await world.some_rounds()
    assert [await world.price(f"i{number}") for number in (6, 7, 9)] == [None, 7, 9]
    world.owned = False
    await following


async def test_a_topic_that_was_made_anew_is_read_from_its_start(world: World) -> None:
    world.topic.put(1, "i1")
    await world.late(0, ItemProgress(90, 80, "predecessor"))
    following = asyncio.create_task(world.writer._follow())
    await world.some_rounds()
    assert await world.price("i1") == 1
    world.owned = False
    await following

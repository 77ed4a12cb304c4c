"""Two workers share the partitions: lists need what the other one learned, and one takes over when the other leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from models.hashing import partition_of
from stream.demo.shop import Shop
from tests.records import T0_US, event
from tests.worker_process import (
    ROOM,
    Installation,
    balance,
    canonical_users,
    different,
    local_lists,
)

PARTITIONS = 4


def shelf_events() -> Iterator[dict[str, Any]]:
    """A shop's events on 250 items, so that a row has room for all others."""
    shop = Shop(seed=2, users=2_000)
    shelf = {product["item_id"] for product in shop.catalogue()[:250]}
    return (each for each in shop.events() if all(item["item_id"] in shelf for item in each.get("items", ())))


def named(name: str, partition: int) -> str:
    """An id of this name that belongs to a partition."""
    return next(
        text for text in (f"{name}{n}" for n in range(1000)) if partition_of(text.encode(), PARTITIONS) == partition
    )


async def test_two_workers_share_and_take_over(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    source, written = shelf_events(), list[dict[str, Any]]()
    # a session that no busy machine ends: each has its half until the second one leaves
    names = {"neighbours": ROOM, "transitions": ROOM, "session_s": 10}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **names) as shop:

        async def publish(events: list[dict[str, Any]]) -> None:
            written.extend(events)
            await shop.publish(events)

        first = shop.start()
        await publish([*pairs(), *islice(source, 3_000)])
        await shop.drained()  # all of it learned by one worker, which needed to tell nobody
        second = shop.start()

        async def shared() -> bool:
            await publish(list(islice(source, 40)))
            return await shop.processed_by(second) > 0

        await shop.until(shared, "the second worker has no part")
        await shop.until(lambda: all_published(shop), "what one worker had learned alone is not published")
        await neighbours_are_known_everywhere(shop, publish, written)
        before = [await shop.processed_by(worker) for worker in (first, second)]
        await publish(list(islice(source, 2_000)))
        await shop.republish()
        after = [await shop.processed_by(worker) for worker in (first, second)]
        assert all(now - then > 200 for now, then in zip(after, before, strict=True))
        await check(shop, written)
        for worker in (first, second):
            facts = (await shop.progress.facts())[worker.field]
            assert facts["cache_hits"] > 0
            assert facts["cache_misses"] > 0

        assert await second.terminate() == 0
        await publish(list(islice(source, 2_000)))
        await shop.republish()
        await check(shop, written)
        assert await shop.processed_by(first) > after[0] + 2_000


def pairs() -> list[dict[str, Any]]:
    """For each item partition an item there that is always followed by the same other one."""
    visits = [(named("left", partition), f"right{partition}") for partition in range(PARTITIONS)]
    return [
        event(f"teacher{number}-{pair[0]}", item, at=number + place)
        for number in range(5)
        for pair in visits
        for place, item in enumerate(pair)
    ]


async def all_published(shop: Installation) -> bool:
    """Whether neighbours of items that nobody has touched since are there for all workers."""
    keys = [shop.keys.neighbours(f"right{partition}") for partition in range(PARTITIONS)]
    return None not in await shop.progress.store.get(keys)


async def neighbours_are_known_everywhere(shop: Installation, publish: Any, written: list[dict[str, Any]]) -> None:
    """New users in every partition get what follows an item of every other partition, whoever owns which."""
    wanted = {
        named(f"user{q}-", p): (named("left", q), f"right{q}") for p in range(PARTITIONS) for q in range(PARTITIONS)
    }

    async def everyone_knows() -> bool:
        at = (written[-1]["event_timestamp"] - T0_US) / 1e6 + 1  # not late, however much was published meanwhile
        await publish([event(user, left, at=at) for user, (left, _) in wanted.items()])
        await shop.drained()
        found = await shop.lists(wanted)
        return all(user in found and right in found[user].items for user, (_, right) in wanted.items())

    await shop.until(everyone_knows, "neighbours learned by the other worker are not known")


async def check(shop: Installation, written: list[dict[str, Any]]) -> None:
    counts = await shop.counts()
    assert counts["learned"] == balance(counts) == shop.sent == len(written)
    expected = await local_lists(written, shop.settings)
    assert len(expected) > 300
    assert different(await shop.lists(canonical_users(written)), expected) == []
    assert all(worker.running for worker in shop.workers[:1])

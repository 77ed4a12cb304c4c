"""A worker killed in mid-stream, twice, learns what an undisturbed one learns."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.app import rules_of
from stream.demo.shop import Shop
from stream.packing import MAGIC
from stream.stages.item import ItemStage
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard
from stream.wire import unpack_covisits
from tests.records import cells, close
from tests.worker_process import ROOM, Installation, balance, canonical_users, different

EVENTS = 20_000
CHUNK = 250
AHEAD = 1_500  # records written ahead of the worker, so that it is busy when it is killed
AHEAD_SAVED = 4_000  # and ahead of its snapshots, so that there are some when it is killed
UNSAVED = 100  # events learned since the last snapshots, so that there is something to learn again
BROKEN = b'{"event_name": "view_item", "user_id": '


def shop_events() -> Iterator[dict[str, Any]]:
    shop = Shop(seed=1, users=2_000)
    shelf = {product["item_id"] for product in shop.catalogue()[:250]}
    found = (event for event in shop.events() if all(item["item_id"] in shelf for item in event.get("items", ())))
    return itertools.islice(found, EVENTS)


def rough_stream() -> list[dict[str, Any] | bytes]:
    """A shop's events, now and then one that comes twice, one that is two days late, and one that is cut off."""
    rough: list[dict[str, Any] | bytes] = []
    recent: dict[str, Any] = {}
    for number, event in enumerate(shop_events()):
        rough.append(event)
        if number % 200 == 100:
            rough.append(recent)
        if number % 500 == 499:
            rough.append(
                {**event, "event_id": f"late{number}", "event_timestamp": event["event_timestamp"] - 2 * 86_400_000_000}
            )
            rough.append(BROKEN)
        if number % 200 == 50:
            recent = event
    return rough


async def write_all(shop: Installation, stream: list[dict[str, Any] | bytes]) -> None:
    """Write the stream, never far ahead of the worker."""
    for start in range(0, len(stream), CHUNK):
        await shop.until(lambda: not_far_ahead(shop), "the worker does not get on")
        await shop.publish(stream[start : start + CHUNK], key="broken")


async def not_far_ahead(shop: Installation) -> bool:
    return shop.sent - await shop.included() <= AHEAD and shop.sent - saved(shop) <= AHEAD_SAVED


def saved(shop: Installation) -> int:
    """Events that the newest snapshots include."""
    return sum(shop.saved("events").values())


async def kill_between(shop: Installation, low: float, high: float) -> None:
    """SIGKILL the only worker in the middle of work that no snapshot includes yet."""

    async def deep_in_work() -> bool:
        included = await shop.included()
        return included >= low and included - saved(shop) >= UNSAVED and shop.sent > included

    await shop.until(deep_in_work, "not in mid-stream")
    shop.workers[-1].end(signal.SIGKILL)
    assert low <= await shop.included() <= high


def learned_by_users(shop: Installation) -> dict[str, Any]:
    """State of the user shards, by name."""
    learned: dict[str, Any] = {}
    for partition in range(shop.settings.events_partitions):
        snapshot = shop.snapshots().latest(f"{shop.settings.topic('events')}-{partition}")
        assert snapshot is not None
        space = ItemSpace(shop.settings.covisits_partitions)
        shard = UserShard.restore(rules_of(shop.settings), space, snapshot.arrays)
        learned[f"shard {partition}"] = {
            "offset": snapshot.offset,
            "counts": {name: count for name, count in shard.counts.items() if count},
            "watermark": shard.watermark,
            "seen": {name: array.tolist() for name, array in shard.seen.arrays().items() if array.size < 100_000},
        }
        learned |= {shard.users.text(user): one_user(shard, space, user) for user in range(len(shard.users))}
    return learned


def one_user(shard: UserShard, space: ItemSpace, user: int) -> dict[str, Any]:
    ring, profile = shard.histories.arrays, shard.profiles.arrays
    head, count = int(ring.head[user]), int(ring.count[user])
    slots = [(head - back) % ring.item.shape[1] for back in range(count)]
    names = [name for name in profile._fields if name not in {"category", "affinity"}]
    return {
        "history": [
            (space.ids.text(ring.item[user, s]), int(ring.ts[user, s]), int(ring.kind[user, s])) for s in slots
        ],
        "profile": {name: getattr(profile, name)[user].item() for name in names},
        "affinity": {
            space.categories.text(category): weight.item()
            for category, weight in zip(profile.category[user], profile.affinity[user], strict=True)
            if weight > 0
        },
    }


def learned_by_items(shop: Installation) -> tuple[ItemSpace, ItemStage]:
    """State of the item shards, put together."""
    settings = shop.settings
    space = ItemSpace(settings.covisits_partitions, neighbours=ROOM, transitions=ROOM)
    stage = ItemStage(space, shop.keys, settings.events_partitions)
    for partition in range(settings.covisits_partitions):
        snapshot = shop.snapshots().latest(f"{settings.topic('covisits')}-{partition}")
        assert snapshot is not None
        stage.open(partition, snapshot.arrays)
    return space, stage


def popularity(space: ItemSpace) -> dict[str, float]:
    """Logarithm of each item's decayed popularity, which does not depend on the moment it is scaled to."""
    known = np.flatnonzero(space.trend[: len(space.ids)] > 0)
    strength = np.log2(space.trend[known]) + space.trend_epoch[known]
    return dict(zip(space.ids.texts(known.astype(np.int32)), strength.tolist(), strict=True))


async def last_deltas(shop: Installation) -> dict[tuple[int, int], int]:
    """By (item partition, events partition): the offset of the last event that had something for it."""
    last: dict[tuple[int, int], int] = {}
    for record in await shop.read("covisits"):
        if record.value[:4] == MAGIC:
            deltas = unpack_covisits(record.value)
            place = (record.partition, deltas.source)
            last[place] = max(last.get(place, -1), *deltas.offset.tolist())
    return last


async def test_a_worker_killed_twice_learns_what_an_undisturbed_one_learns(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    stream = rough_stream()
    users = canonical_users(event for event in stream if isinstance(event, Mapping))
    # small batches make the worker slow enough to be met in the middle
    killed = Installation(
        kafka, redis_url, tmp_path / "k", topic_prefix + "k-", batch_records=100, neighbours=ROOM, transitions=ROOM
    )
    calm = Installation(kafka, redis_url, tmp_path / "c", topic_prefix + "c-", neighbours=ROOM, transitions=ROOM)
    async with killed, calm:
        killed.start()
        writing = asyncio.create_task(write_all(killed, stream))
        try:
            for low, high in ((0.25, 0.5), (0.55, 0.8)):
                await kill_between(killed, low * len(stream), high * len(stream))
                killed.start()
            await calm.publish(stream, key="broken")
            calm.start()
            await killed.finish(writing, "not written")
        finally:
            writing.cancel()

        for shop in (killed, calm):
            await shop.republish()
        lists, expected = await killed.lists(users), await calm.lists(users)
        assert len(expected) > 500
        assert different(lists, expected) == []

        for shop in (killed, calm):
            assert await shop.workers[-1].terminate() == 0
            counts = await shop.counts()
            assert balance(counts) == shop.sent == len(stream)
            assert {kind: counts[kind] for kind in ("duplicates", "late", "dead:not_json")} == {
                "duplicates": EVENTS // 200,
                "late": EVENTS // 500,
                "dead:not_json": EVENTS // 500,
            }
            dead = {(r.headers[3], r.headers[4]) for r in await shop.read("dlq")}
            assert len(dead) == EVENTS // 500
        mine, theirs = learned_by_users(killed), learned_by_users(calm)
        assert mine.keys() == theirs.keys()
        assert [(name, state, theirs[name]) for name, state in mine.items() if state != theirs[name]] == []
        await check_items(killed, calm)


async def check_items(killed: Installation, calm: Installation) -> None:
    (mine, one), (theirs, two) = learned_by_items(killed), learned_by_items(calm)
    names = [mine.ids.texts(range(len(mine.ids))), theirs.ids.texts(range(len(theirs.ids)))]
    assert int(mine.rows.arrays.size.max()) < ROOM
    assert cells(mine.rows, names[0]) == close(cells(theirs.rows, names[1]))
    assert popularity(mine) == pytest.approx(popularity(theirs), rel=1e-9)
    for partition, shard in one.shards.items():
        assert shard.counts["visits"] == two.shards[partition].counts["visits"]
    # a mark is the end of the last batch that had something for the shard, so it depends on how batches were cut
    ends = await killed.progress.ends("events")
    last = await last_deltas(calm)
    for stage in (one, two):
        marks = {(p, s): int(shard.marks[s]) for p, shard in stage.shards.items() for s in ends}
        assert all(last[place] <= mark < ends[place[1]] for place, mark in marks.items())
    assert sum(shard.counts["repeated"] for shard in one.shards.values()) > 0
    assert sum(shard.counts["repeated"] for shard in two.shards.values()) == 0

"""A worker killed in mid-stream, twice, learns what an undisturbed one learns."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stream.demo.shop import Shop
from stream.packing import MAGIC
from stream.wire import unpack_covisits
from tests.learned import compare, item_shards, learned
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


async def kill_after(shop: Installation, events: float) -> None:
    """SIGKILL the only worker once it has learned so many, in the middle of work that no snapshot includes yet."""

    async def deep_in_work() -> bool:
        included = await shop.included()
        return included >= events and included - saved(shop) >= UNSAVED and shop.sent > included

    await shop.until(deep_in_work, "not in mid-stream")
    shop.workers[-1].end(signal.SIGKILL)


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
            for share in (0.25, 0.55):
                await kill_after(killed, share * len(stream))
                assert not writing.done(), "not in mid-stream"
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
        mine, theirs = learned(killed.settings), learned(calm.settings)
        assert theirs.fullest < ROOM
        assert compare(mine, theirs, mine.events(), theirs.events()).exact
        assert mine.repeated > 0
        assert theirs.repeated == 0
        await check_marks(killed, calm)


async def check_marks(killed: Installation, calm: Installation) -> None:
    # a mark is the end of the last batch that had something for the shard, so it depends on how batches were cut
    ends = await killed.progress.ends("events")
    last = await last_deltas(calm)
    for shop in (killed, calm):
        _, stage = item_shards(shop.settings)
        marks = {(p, s): int(shard.marks[s]) for p, shard in stage.shards.items() for s in ends}
        assert all(last[place] <= mark < ends[place[1]] for place, mark in marks.items())

"""The worker as a process: its end and its next start, its first words when something is wrong, Redis away."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from models.hashing import partition_of
from stream.demo.shop import Shop
from stream.rules import rules_of
from stream.stages.space import ItemSpace
from stream.stages.user_snapshot import restore
from tests.brokers import RedisServer, free_ports
from tests.held_worker import BEHIND
from tests.pages import Pages, installation, recovered
from tests.records import event
from tests.worker_process import Installation, WorkerProcess, balance, canonical_users

GONE_S = 10.0


async def stopped(worker: WorkerProcess) -> float:
    """SIGTERM: gone without a complaint; the seconds it took."""
    began = time.monotonic()
    assert await worker.terminate() == 0
    assert "Traceback" not in worker.output
    return time.monotonic() - began


async def test_sigterm_saves_everything_and_the_next_start_reads_only_what_is_new(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    events = Shop(seed=3, users=500).events(1_000_000)  # made when asked for: no end of them in this test
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, batch_records=100) as shop:
        worker = shop.start()
        await shop.publish(islice(events, 3_000))
        await shop.drained()
        took = [await stopped(worker)]
        assert worker.field not in await shop.progress.facts()
        for role in ("events", "covisits"):
            assert shop.saved(role) == await shop.progress.ends(role)

        second = shop.start()
        await shop.publish(islice(events, 500))
        await shop.drained()
        assert await shop.processed_by(second) == 500

        async def traffic() -> None:
            while second.running:
                await shop.publish(islice(events, 500))

        visitors = asyncio.create_task(traffic())  # and now in the middle of work
        await shop.until(lambda: beyond(shop, 5_000), "no progress")
        took.append(await stopped(second))
        await visitors
        assert max(took) < GONE_S, took
        await shop.publish(islice(events, 500))
        saved = sum(shop.saved("events").values())
        assert 5_000 <= saved < shop.sent
        third = shop.start()
        await shop.drained()
        assert await shop.processed_by(third) == shop.sent - saved
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent


async def beyond(shop: Installation, events: int) -> bool:
    return await shop.included() >= events


async def test_a_backlog_is_drained_however_tightly_its_stages_are_coupled(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """More fetches of events than an agent's queue holds, while events wait for deltas: these must get past them."""
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, batch_records=10, skew_records=1) as shop:
        await shop.publish(Shop(seed=3, users=500).events(1_500))
        shop.start()
        await shop.drained()
        assert (await shop.counts())["learned"] == 1_500


async def test_events_wait_while_covisits_are_too_far_behind(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    limit, file = 5, tmp_path / "go on"
    async with Installation(
        kafka, redis_url, tmp_path, topic_prefix, batch_records=10, skew_records=limit, session_s=30
    ) as shop:
        await shop.publish(Shop(seed=3, users=500).events(1_500))
        worker = WorkerProcess(shop.settings, ["tests.held_worker", str(file)])
        shop.workers.append(worker)
        partitions = shop.settings.events_partitions

        async def held_up() -> bool:
            """Every partition of events may have passed the gate once before the others' deltas were acknowledged."""
            assert max((await shop.progress.ends("covisits")).values()) <= limit + 1 + partitions
            return worker.output.count(BEHIND) > 10 * partitions

        await shop.until(held_up, "events do not ask whether they may go on")
        assert 0 < await shop.included() <= (limit + 1 + partitions) * partitions * 10
        file.touch()
        await shop.drained()
        assert (await shop.counts())["learned"] == 1_500


async def test_what_is_wrong_is_said_in_one_line(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    (tmp_path / "file").write_text("")
    with RedisServer(password="right") as locked, socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = f"redis://:wrong@127.0.0.1:{locked.port}/0"
        cases: list[tuple[dict[str, str], int, list[str]]] = [
            ({"kafka": f"127.0.0.1:{nobody}"}, 3, [f"Kafka at 127.0.0.1:{nobody} does not answer"]),
            (
                {"topic_prefix": topic_prefix + "no-"},
                2,
                [f"topic {topic_prefix}no-events does not exist", "rivulet topics"],
            ),
            ({"events_partitions": "3"}, 2, [f"topic {topic_prefix}events has 4 partitions, expected 3"]),
            ({"redis": f"redis://127.0.0.1:{nobody}/0"}, 3, ["Redis does not answer", str(nobody)]),
            ({"redis": wrong}, 2, ["Redis refused the login"]),
            ({"web_port": str(taken.getsockname()[1])}, 2, ["RIVULET_WEB_PORT", "in use", "or 0 for none"]),
            ({"redis": "http://127.0.0.1"}, 2, ["bad Redis address"]),
            ({"k": "abc"}, 2, ["RIVULET_K", "'abc'", "integer"]),
            ({"consent_default": "perhaps"}, 2, ["RIVULET_CONSENT_DEFAULT", "'granted' or 'denied'"]),
            (
                {"snapshot_folder": str(tmp_path / "file" / "snapshots")},
                2,
                ["RIVULET_SNAPSHOT_FOLDER", "Not a directory"],
            ),
            ({"snapshot_folder": "/proc"}, 2, ["RIVULET_SNAPSHOT_FOLDER=/proc"]),
        ]
        async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
            for half in (cases[::2], cases[1::2]):  # not all at once: each imports for a second or two
                workers = [shop.start(**changes) for changes, _, _ in half]
                for worker, (changes, code, words) in zip(workers, half, strict=True):
                    assert await worker.exit_code() == code, (changes, worker.output)
                    (line,) = worker.output.strip().splitlines()
                    assert line.startswith("rivulet: ")
                    assert [word for word in words if word not in line] == [], line
                    assert "wrong@" not in line


@asynccontextmanager
async def small_shop(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> AsyncIterator[tuple[Installation, Pages, list[dict[str, Any]]]]:
    """A worker that has drained the events of a small shop."""
    events = list(Shop(seed=4, users=300).events(2_000))
    async with installation(kafka, redis_server.url, tmp_path, topic_prefix) as (shop, pages):
        shop.start()
        await shop.publish(events)
        await shop.republish()
        yield shop, pages, events


def crash(server: RedisServer) -> None:
    server.kill()
    server.start()


def flush(server: RedisServer) -> None:
    with server.client() as client:
        client.flushall()


@pytest.mark.parametrize(("empty", "line"), [(crash, "redis_restarted"), (flush, "redis_emptied")])
async def test_an_emptied_redis_is_filled_again(
    kafka: str,
    redis_server: RedisServer,
    topic_prefix: str,
    tmp_path: Path,
    empty: Callable[[RedisServer], None],
    line: str,
) -> None:
    async with small_shop(kafka, redis_server, topic_prefix, tmp_path) as (shop, pages, events):
        users = canonical_users(events)
        before = await shop.lists(users)
        assert len(before) > 50
        similar = [shop.keys.similar(item["item_id"]) for each in events for item in each.get("items", ())]
        neighbours = await shop.progress.store.get(similar)
        await asyncio.to_thread(empty, redis_server)
        assert not await shop.lists(users)

        # what is not about a user comes back by itself: progress, neighbours, trending
        async def neighbours_are_back() -> bool:
            return await shop.progress.store.get(similar) == neighbours

        await shop.until(lambda: told(shop), "progress is not told again")
        await shop.until(neighbours_are_back, "neighbours do not come back")
        await shop.until(lambda: trending(shop), "trending does not come back")

        # a user who does the same thing again gets the same list, which is not there any more
        touched = next(user for user in reversed(users) if user in before)
        last = next(each for each in reversed(events) if touched in each.values() and each.get("items"))
        await shop.publish([last | {"event_id": "again"}])
        await shop.drained()
        again = await shop.list_of(touched)
        assert again is not None
        assert again.items == before[touched].items

        await shop.republish()
        after = await shop.lists(users)
        assert after.keys() == before.keys()
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent
        assert shop.workers[0].output.count(line) == 1
        await recovered(shop, pages)


async def told(shop: Installation) -> bool:
    return await shop.included() == sum((await shop.progress.ends("events")).values())


async def trending(shop: Installation) -> bool:
    (value,) = await shop.progress.store.get([shop.keys.trending()])
    return value is not None


async def test_a_paused_redis_delays_and_loses_nothing(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    async with small_shop(kafka, redis_server, topic_prefix, tmp_path) as (shop, _, events):
        done = sum((await shop.progress.ends("events")).values())
        more = list(islice(Shop(seed=4, users=300).events(), 2_000, 4_000))
        walk = [event("walker", f"step{number}", at=86_400 + number) for number in range(15)]

        async def noticed() -> bool:
            return "redis_away" in shop.workers[0].output

        redis_server.pause()
        try:
            await shop.publish([*more, *walk])
            await shop.until(noticed, "that Redis does not answer is not noticed")
        finally:
            redis_server.resume()
        await shop.drained()
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == len(events) + len(more) + len(walk)
        assert sum((await shop.progress.ends("events")).values()) - done == len(more) + len(walk)
        await stopped(shop.workers[0])
        assert history(shop, "walker") == [f"step{number}" for number in reversed(range(15))]


def history(shop: Installation, user: str) -> list[str]:
    """Items of a user in the last snapshot, newest first."""
    partition = partition_of(user.encode(), shop.settings.events_partitions)
    snapshot = shop.snapshots().latest(f"{shop.settings.topic('events')}-{partition}")
    assert snapshot is not None
    space = ItemSpace(shop.settings.covisits_partitions)
    shard = restore(rules_of(shop.settings), space, snapshot.arrays)
    return [space.ids.text(item) for item in shard.histories.recent(int(shard.users.lookup([user])[0]))]


async def test_faust_starts_it_too(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    """``faust -A stream.faust_app worker --without-web``, as the README says."""
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        worker = WorkerProcess(shop.settings, ["faust", "-A", "stream.faust_app", "worker", "--without-web"])
        shop.workers.append(worker)
        await shop.publish([event("u1", "tent", at=1), event("u1", "mat", at=2), event("u2", "tent", at=3)])
        await shop.republish()
        found = await shop.list_of("u2")
        assert found is not None
        assert found.items == ["mat"]
        await stopped(worker)

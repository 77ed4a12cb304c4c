"""What somebody else does to the topics while a worker runs: partitions added, a topic or records deleted."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import (  # type: ignore[import-untyped]  # no py.typed
    AIOKafkaAdminClient,
    NewPartitions,
    RecordsToDelete,
)

from models.hashing import partition_of
from stream.topics import create, layout
from tests.pages import installation, values
from tests.records import event
from tests.worker_process import Installation, WorkerProcess, balance

LOOKED_ON_S = 3.0  # by the watchdog: what stands still has stood for almost as long by then
ROLES = ("events", "covisits", "global")


@asynccontextmanager
async def administrator(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def test_more_partitions_are_told_and_lose_nothing(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with installation(kafka, redis_url, tmp_path, topic_prefix) as (shop, pages), administrator(kafka) as admin:
        worker = shop.start()
        await shop.until(pages.is_ready, "not ready")
        names = [shop.settings.topic(role) for role in ROLES]
        await admin.create_partitions({name: NewPartitions(total_count=6) for name in names})
        await shop.until(lambda: pages.fails("topics"), "the new partitions are not told")
        failing = await pages.failing()
        assert failing is not None
        assert f"topic {names[0]} has 6 partitions, expected 4" in failing["topics"]

        async def everywhere() -> bool:
            return len((await pages.metrics())["rivulet_lag_records"].samples) == 19  # and one of `privacy`

        await shop.until(everywhere, "the new partitions are not read")
        await shop.look_again()
        users = [f"u{n}" for n in range(60)]
        for user in users:  # a producer that knows of six partitions
            home = partition_of(user.encode(), 6)
            await shop.write("events", msgspec.json.encode(event(user, "tent", at=1)), user.encode(), home)
        await shop.drained()
        counts = await shop.counts()
        assert counts["learned"] == len(users)
        assert counts["rekeyed"] == sum(
            partition_of(user.encode(), 6) != partition_of(user.encode(), 4) for user in users
        )
        assert worker.output.count("topic_changed") == len(names)
        assert "Traceback" not in worker.output
        assert await pages.failing("/healthz") == {}


def visits(users: range) -> list[dict[str, Any]]:
    return [event(f"u{n}", item, at=10 * n + place) for n in users for place, item in enumerate(("tent", "bag"))]


async def test_events_wait_for_a_topic_that_was_deleted_and_nobody_ends_for_it(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    quick = {"stall_s": 8, "batch_records": 20}
    async with installation(kafka, redis_url, tmp_path, topic_prefix, **quick) as (shop, pages):
        worker = shop.start()
        await shop.publish(visits(range(400)))
        await shop.drained()
        async with administrator(kafka) as admin:
            await admin.delete_topics([shop.settings.topic("covisits")])
        missing = f"topic {shop.settings.topic('covisits')} does not exist: run `rivulet topics` to create it"

        async def told() -> bool:
            return missing in (await pages.failing() or {}).get("topics", "")

        await shop.until(told, "the deleted topic is not told")
        before, said = await shop.included(), len(worker.output.splitlines())
        await shop.publish(visits(range(400, 410)))
        # it gives up sending after half a minute, which is more than the watchdog's patience, and tries again
        await shop.until(lambda: reloaded(worker), "it does not try again")
        assert await told()
        assert worker.output.count("topic_changed") == 1
        assert await pages.failing("/healthz") == {}
        assert await shop.included() == before  # nothing is done whose deltas are not written
        assert len(worker.output.splitlines()) - said < 60
        assert await worker.terminate() == 0
        worker = shop.start()
        assert await worker.exit_code() == 2
        assert worker.output == f"rivulet: {missing} (or this login may not see it)\n"

        await create(kafka, layout(prefix=topic_prefix))
        worker = shop.start()
        assert await worker.exit_code() != 0
        assert "the topic was made anew or the broker lost records" in worker.output

        # what the line says
        shutil.rmtree(shop.settings.snapshot_folder)
        async with administrator(kafka) as admin:
            await admin.delete_topics([shop.settings.topic("covisits")])
        await made_anew(shop, "covisits")
        shop.start()
        await shop.drained()
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent
        assert await shop.visits() == shop.sent


@pytest.mark.parametrize("role", ["events", "global"])
async def test_a_worker_outlives_a_topic_and_its_successor_learns_what_there_is(
    role: str, kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with installation(kafka, redis_url, tmp_path, topic_prefix) as (shop, pages):
        worker = shop.start()
        await shop.publish(visits(range(100)))
        await shop.drained()
        async with administrator(kafka) as admin:
            await admin.delete_topics([shop.settings.topic(role)])
        missing = f"topic {shop.settings.topic(role)} does not exist: run `rivulet topics` to create it"

        async def told() -> bool:
            return missing in (await pages.failing() or {}).get("topics", "")

        await shop.until(told, "the deleted topic is not told")
        assert worker.output.count("topic_changed") == 1
        assert await pages.failing("/healthz") == {}
        assert await worker.terminate() == 0

        # what the README says
        shutil.rmtree(shop.settings.snapshot_folder)
        async with administrator(kafka) as admin:
            await admin.delete_topics([shop.settings.topic("covisits")])
        await made_anew(shop, "covisits", role)
        shop.sent = 0 if role == "events" else shop.sent
        shop.start()
        await shop.publish(visits(range(100, 150)))  # other numbers than Redis still tells of before

        async def all_learned() -> bool:
            counts = await shop.counts()
            return counts["learned"] == balance(counts) == await shop.visits() == shop.sent

        await shop.until(all_learned, "it does not go on")
        await shop.until(pages.is_ready, "not ready")


async def made_anew(shop: Installation, *roles: str) -> None:
    """Create what is missing; the broker deletes in its own time."""
    topics, wanted = layout(prefix=shop.settings.topic_prefix), set(map(shop.settings.topic, roles))

    async def made() -> bool:
        wanted.difference_update(await create(shop.settings.kafka, topics))
        return not wanted

    await shop.until(made, "the topics are not made anew")


async def reloaded(worker: WorkerProcess) -> bool:
    return "shard_reloaded" in worker.output


async def test_records_that_were_deleted_before_they_were_read_are_counted_as_lost(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with installation(kafka, redis_url, tmp_path, topic_prefix) as (shop, pages):
        worker = shop.start()
        await shop.publish(visits(range(100)))
        await shop.drained()
        assert await worker.terminate() == 0
        at = (await shop.progress.ends("events"))[0]
        await shop.publish(visits(range(100, 300)))
        place = TopicPartition(shop.settings.topic("events"), 0)
        async with administrator(kafka) as admin:
            await admin.delete_records({place: RecordsToDelete(before_offset=at + 30)})
        worker = shop.start()
        await shop.drained()
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent - 30
        assert (await shop.progress.facts())[worker.field]["lost"] == 30
        assert values((await pages.metrics())["rivulet_shard_actions"], "action")[("lost",)] == 30
        assert f"30 records of {place.topic}-0 are missing: offsets {at} to {at + 29}" in worker.output
        assert await pages.failing("/healthz") == {}
        assert await worker.terminate() == 0


async def test_a_log_whose_end_nobody_can_read_is_included_and_ends_no_worker(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Deleted up to the end while no worker ran, and the marker of a transaction as last of all: nothing comes on."""
    quick = {"stall_s": 8, "on_gap": "accept"}
    async with installation(kafka, redis_url, tmp_path, topic_prefix, **quick) as (shop, pages):
        worker = shop.start()
        await shop.publish(visits(range(100)))
        await shop.drained()
        assert await worker.terminate() == 0
        before = await shop.progress.ends("events")
        await shop.publish(visits(range(100, 200)))
        ends = await shop.progress.ends("events")
        deleted = sum(ends.values()) - sum(before.values())
        topic = shop.settings.topic("events")
        async with administrator(kafka) as admin:
            await admin.delete_records({TopicPartition(topic, p): RecordsToDelete(end) for p, end in ends.items()})
        worker = shop.start()
        await shop.drained()
        assert await shop.included() == sum(ends.values())

        home = partition_of(b"u1", shop.settings.events_partitions)
        producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=topic)
        async with producer, producer.transaction():
            await producer.send_and_wait(topic, msgspec.json.encode(event("u1", "stove", at=9_000)), b"u1", home)
        await shop.drained()
        assert (await shop.progress.ends("events"))[home] == ends[home] + 2
        since, _ = await pages.watched()

        async def gets_on() -> bool:
            watched, stood = await pages.watched()
            return watched - since > LOOKED_ON_S + stood

        await shop.until(gets_on, "it stands still")  # and the watchdog would end it
        assert await pages.is_ready()
        assert await pages.failing("/healthz") == {}
        assert (await shop.progress.facts())[worker.field]["lost"] == deleted + 1
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent - deleted + 1
        assert await worker.terminate() == 0

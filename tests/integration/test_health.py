"""What a worker says about itself: health pages, metrics and log lines, while servers come and go."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from models.hashing import partition_of
from stream.demo.shop import Shop
from stream.watchdog import EXIT_CODE
from stream.web.metrics import FAMILIES
from tests.brokers import KafkaBroker, RedisServer
from tests.pages import Pages, installation, values
from tests.records import event
from tests.worker_process import Installation, WorkerProcess, balance

MARK = "someone-special"


def events_logged(worker: WorkerProcess) -> Counter[str]:
    return Counter(line["event"] for line in lines(worker))


def lines(worker: WorkerProcess) -> list[dict[str, Any]]:
    """Its log, every line of which must be JSON with time, level and logger."""
    found = [msgspec.json.decode(line) for line in worker.output.splitlines()]
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in found)
    return found


async def test_ready_when_caught_up_and_the_metrics_are_the_books(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    stream: list[dict[str, Any] | bytes] = list(itertools.islice(Shop(seed=5, users=200).events(), 1_500))
    stream += [event(f"{MARK}-{n}", f"item{n}", at=n, event_id=f"{MARK}-id-{n}") for n in range(20)]
    stream += [event(f"{MARK}-0", "item0", at=0, event_id=f"{MARK}-id-0")]  # a duplicate
    stream += [b'{"event_name":"view_item","user_id":"%s"' % MARK.encode()]
    stream += [{"event_name": "view_item", "user_id": f"{MARK}\n", "item_id": "x"}]
    async with installation(kafka, redis_url, tmp_path, topic_prefix, ready_records=0, session_s=30) as (shop, pages):
        await shop.publish(stream, key=MARK)
        worker = shop.start()
        seen: list[Mapping[str, str]] = []

        async def ready() -> bool:
            failing = await pages.failing()
            if failing is not None:
                seen.append(failing)
            return failing == {}

        await shop.until(ready, "not ready")
        assert {"assigned", "broadcast"} & seen[0].keys(), "the port opens before the partitions are there"
        assert await pages.failing("/healthz") == {}
        await shop.drained()
        await shop.until(pages.is_ready, "not ready although nothing waits")
        await shop.until(lambda: calm(pages), "something lags or is away")

        metrics = await pages.metrics()
        books = await shop.counts()
        outcomes = values(metrics["rivulet_events"], "outcome", "reason")
        assert outcomes[("dead", "id_invalid")] == outcomes[("dead", "not_json")] == outcomes[("duplicates", "")] == 1
        assert {":".join(filter(None, key)): n for key, n in outcomes.items() if n} == {
            name: n for name, n in books.items() if n and name != "without_id"
        }
        assert sum(outcomes.values()) == balance(books) == len(stream)
        freshness = {sample.name: sample.value for sample in metrics["rivulet_freshness_seconds"].samples}
        assert freshness["rivulet_freshness_seconds_count"] == books["learned"]
        batches = {
            sample.labels["stage"]: sample.value
            for sample in metrics["rivulet_batch_records"].samples
            if sample.name.endswith("_sum")
        }
        assert batches["user"] == len(stream)
        worker_facts = (await shop.progress.facts())[worker.field]
        memory = values(metrics["rivulet_memory_bytes"], "structure")
        assert {"histories", "rows"} <= {structure for (structure,) in memory}
        assert all(size > 0 for size in memory.values())
        assert metrics.keys() >= {family.name for family in FAMILIES}
        silent = {family.name for family in FAMILIES if not metrics[family.name].samples}
        assert silent <= {"rivulet_model_version", *(name for name in metrics if name.startswith("rivulet_blend_"))}
        assert values(metrics["rivulet_skew_records"])[()] == 0
        assert all(took > 0 for took in values(metrics["rivulet_snapshot_seconds"], "topic", "partition").values())
        assert values(metrics["rivulet_neighbour_cache"], "result").keys() == {("hit",), ("miss",)}
        assert values(metrics["rivulet_shard_actions"], "action")[("records",)] >= len(stream)
        steps = values(metrics["rivulet_step_seconds"], "stage", "step")
        assert {("user", "learn"), ("user", "rank"), ("user", "write"), ("item", "learn")} <= steps.keys()
        assert values(metrics["rivulet_keys"])[()] == worker_facts["keys"]
        assert values(metrics["rivulet_lists"])[()] == worker_facts["lists"]
        await shop.until(lambda: snapshots_shown(pages), "no snapshot is shown")

        assert await worker.terminate() == 0
        assert len(lines(worker)) == len(worker.output.splitlines())
        assert MARK not in worker.output


async def calm(pages: Pages) -> bool:
    metrics = await pages.metrics()
    up = values(metrics["rivulet_up"], "server")
    lags = values(metrics["rivulet_lag_records"], "topic", "partition").values()
    return up == {("kafka",): 1, ("redis",): 1} and len(lags) == 10 and not any(lags)


async def snapshots_shown(pages: Pages) -> bool:
    metrics = await pages.metrics()
    sizes = values(metrics["rivulet_snapshot_bytes"], "topic", "partition").values()
    ages = values(metrics["rivulet_snapshot_age_seconds"], "topic", "partition").values()
    return len(sizes) >= 8 and all(size > 0 for size in sizes) and all(age < 10 for age in ages)


async def no_standstill(shop: Installation, pages: Pages, away: str) -> None:
    """For some beats of the watchdog, nothing is held against a worker whose server is away."""
    since, _ = await pages.watched()

    async def looked_on() -> bool:
        watched, _ = await pages.watched()
        return watched - since > 3

    await shop.until(looked_on, "the watchdog does not look")
    assert await pages.failing("/healthz") == {}
    metrics = await pages.metrics()
    assert values(metrics["rivulet_up"], "server")[(away,)] == 0
    assert values(metrics["rivulet_standstill_seconds"])[()] == 0


async def test_redis_away_is_unready_not_dead_and_said_once(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    async with installation(kafka, redis_server.url, tmp_path, topic_prefix) as (shop, pages):
        worker = shop.start()
        await shop.until(pages.is_ready, "not ready")
        for away, back in ((redis_server.pause, redis_server.resume), (redis_server.kill, redis_server.start)):
            await asyncio.to_thread(away)
            try:
                await shop.publish([event("u1", "tent", at=1)])
                await shop.until(lambda: pages.fails("redis"), "Redis' absence is not told")
                await no_standstill(shop, pages, "redis")
            finally:
                await asyncio.to_thread(back)
            await shop.until(pages.is_ready, "not ready again")
        await shop.drained()
        assert worker.running
        metrics = await pages.metrics()
        assert values(metrics["rivulet_redis_retries"])[()] > 0
        assert values(metrics["rivulet_redis_errors"])[()] == 0
        logged = events_logged(worker)
        assert 2 <= logged["redis_away"] == logged["redis_back"] <= 4  # once a time: a busy server may seem away, too

        async def restart_noticed() -> bool:
            return events_logged(worker)["redis_restarted"] == 1

        await shop.until(restart_noticed, "that Redis was restarted is not said, or more than once")


async def test_kafka_away_is_unready_not_dead_and_said_once(
    kafka_broker: KafkaBroker, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with installation(kafka_broker.bootstrap, redis_url, tmp_path, topic_prefix) as (shop, pages):
        worker = shop.start()
        await shop.until(pages.is_ready, "not ready")
        kafka_broker.pause()
        try:
            await shop.until(lambda: pages.fails("kafka", "assigned"), "Kafka's absence is not told")
            await no_standstill(shop, pages, "kafka")
        finally:
            kafka_broker.resume()
        await shop.until(pages.is_ready, "not ready again")
        await shop.publish([event("u1", "tent", at=1)])
        await shop.drained()
        assert worker.running
        logged = events_logged(worker)
        assert 1 <= logged["kafka_away"] == logged["kafka_back"] <= 3  # once a time: it registers anew after the pause


async def test_a_stalled_worker_says_so_and_ends_itself(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with installation(kafka, redis_url, tmp_path, topic_prefix, stall_s=20) as (shop, pages):
        worker = WorkerProcess(shop.settings, ["tests.stalled_worker"])
        shop.workers.append(worker)
        await shop.until(pages.is_ready, "not ready")
        await shop.publish([event("u1", "tent", at=1)])
        partition = partition_of(b"u1", shop.settings.events_partitions)

        async def told() -> bool:
            failing = await pages.failing("/healthz")
            return failing is not None and f"events-{partition} stands at offset 0" in failing.get("progress", "")

        await shop.until(told, "the standstill is not told")
        assert await worker.exit_code() == EXIT_CODE
        assert events_logged(worker)["stalled"] == 1

"""Kafka or Redis away, and a slow Redis, while events keep coming: nothing is lost, memory does not grow.

Away for 20 s; by hand for 5 minutes: ``RIVULET_TEST_AWAY_S=300 pytest tests/integration/test_fault_servers.py``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from stream.demo.shop import Shop
from tests.brokers import KafkaBroker, RedisServer, Server
from tests.pages import installation, recovered
from tests.proxy import Proxy
from tests.records import event
from tests.worker_process import Installation, balance, canonical_users

AWAY_S = float(os.environ.get("RIVULET_TEST_AWAY_S", "20"))
LINES_A_SECOND = 5  # in the log, while a server is away
GROWTH_MB = 60  # of a worker, at most, while events pile up: 30 MB of them would come on top without back-pressure


def shop_events(seed: int) -> Iterator[dict[str, Any]]:
    return Shop(seed=seed, users=500).events()


async def check_books(shop: Installation) -> None:
    """Everything that was written is learned, once, by the worker that was started first."""
    counts = await shop.counts()
    assert counts["learned"] == balance(counts) == shop.sent
    (worker,) = shop.workers
    assert worker.running


@pytest.mark.parametrize("away", ["kafka", "redis"])
async def test_a_server_that_is_away_delays_and_loses_nothing(
    kafka_broker: KafkaBroker, redis_server: RedisServer, tmp_path: Path, away: str
) -> None:
    server: Server = kafka_broker if away == "kafka" else redis_server
    source = shop_events(seed=5)
    async with installation(kafka_broker.bootstrap, redis_server.url, tmp_path, "away-") as (shop, pages):
        worker = shop.start()
        await shop.publish(islice(source, 5_000))
        await shop.drained()
        said = len(worker.output.splitlines())
        before = worker.resident_mb

        late = list(islice(source, 30_000))
        writing = asyncio.create_task(shop.publish(late))
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(AWAY_S)
        await shop.until(lambda: pages.fails(away), "its absence is not told")
        assert await pages.failing("/healthz") == {}
        assert worker.resident_mb - before < GROWTH_MB
        await asyncio.to_thread(server.start)
        back = time.monotonic()
        await shop.finish(writing, "not written")
        await shop.drained()

        assert len(worker.output.splitlines()) - said < LINES_A_SECOND * (AWAY_S + time.monotonic() - back)
        assert worker.output.count(f"{away}_away") == worker.output.count(f"{away}_back") > 0
        await check_books(shop)
        await recovered(shop, pages)
        await shop.publish([event("guest", "tent", at=90_000), event("guest", "stove", at=90_001)])
        await shop.republish()
        assert len(await shop.lists(canonical_users(late))) > 100
        assert await worker.terminate() == 0


async def test_a_redis_that_takes_no_writes_and_a_foreign_key_delay_and_end_nothing(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    source = shop_events(seed=7)
    async with installation(kafka, redis_server.url, tmp_path, topic_prefix) as (shop, pages):
        with redis_server.client() as client:

            async def told() -> bool:
                return bool(client.type(shop.keys.meta) == b"hash")

            client.set(shop.keys.meta, "somebody else's")
            client.config_set("min-replicas-to-write", "1")  # a failover: the replica is not there yet
            worker = shop.start()  # its first write is the claim of a shard
            await shop.publish(islice(source, 500))
            await shop.until(lambda: pages.fails("redis"), "it is not told")
            client.config_set("min-replicas-to-write", "0")
            await shop.until(told, "rv:meta is not replaced")
            await shop.drained()
            await shop.until(pages.is_ready, "not ready")

            profile = shop.keys.profile("guest").decode()
            client.set(profile, "somebody else's")
            client.config_set("min-replicas-to-write", "1")
            await shop.publish([event("guest", "tent", at=90_000)])
            await shop.until(lambda: pages.fails("redis"), "it is not told again")
            assert await pages.failing("/healthz") == {}
            client.config_set("min-replicas-to-write", "0")
            await shop.drained()
            assert client.type(profile) == b"hash"
        await check_books(shop)
        await recovered(shop, pages)
        assert "reloaded" not in worker.output
        assert await worker.terminate() == 0


async def test_a_slow_redis_slows_the_worker_and_nothing_piles_up_in_it(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    source = shop_events(seed=6)
    async with (
        Proxy(redis_server.port) as proxy,
        installation(kafka, redis_server.url, tmp_path, topic_prefix, ready_records=500) as (shop, pages),
    ):
        worker = shop.start(redis=f"redis://127.0.0.1:{proxy.port}/0")
        await shop.publish(islice(source, 5_000))
        await shop.drained()
        before = worker.resident_mb

        proxy.bytes_per_s = 300_000  # a tenth of what the worker would write
        await shop.publish(islice(source, 20_000))
        await shop.until(lambda: pages.fails("caught_up"), "the lag is not told")
        assert await pages.failing("/healthz") == {}
        slow = await shop.included()

        async def goes_on() -> bool:
            return await shop.included() > slow + 1_000

        await shop.until(goes_on, "it does not go on slowly")
        assert await shop.included() < shop.sent
        assert worker.resident_mb - before < GROWTH_MB
        proxy.bytes_per_s = 0
        await shop.drained()
        await check_books(shop)
        await recovered(shop, pages)
        assert "reloaded" not in worker.output
        assert await worker.terminate() == 0

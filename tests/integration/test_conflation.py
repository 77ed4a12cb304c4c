"""A shared key is written at most once per interval, however often its item is touched."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.client import Monitor

from tests.records import event
from tests.worker_process import Installation

EVERY_S = 2.0
SHARED = ("similar:", "trending:", "segment:")
ITEMS = ("tent", "mat")


async def count(monitor: Monitor, prefix: str, writes: Counter[str]) -> None:
    """Count the writes of every key of an installation, for ever."""
    async for said in monitor.listen():
        verb, _, rest = said["command"].partition(" ")
        if verb in ("SET", "HSET") and rest.startswith(prefix):
            writes[rest.split(" ", 1)[0].removeprefix(f"{prefix}:")] += 1


async def test_shared_keys_are_written_once_per_interval_and_users_with_each_flush(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    writes: Counter[str] = Counter()
    async with (
        Installation(kafka, redis_url, tmp_path, topic_prefix, publish_every_s=EVERY_S) as shop,
        Redis.from_url(redis_url, decode_responses=True) as client,
        client.monitor() as monitor,
    ):
        counting = asyncio.create_task(count(monitor, shop.settings.prefix, writes))
        shop.start()
        await shop.publish(event("first", item) for item in ITEMS)
        await shop.drained()
        began, turns = time.monotonic(), 0

        async def published() -> bool:
            """One more visitor, in a flush of his own; True once the item's list was written thrice."""
            nonlocal turns
            turns += 1
            await shop.publish(event(f"u{turns}", item) for item in ITEMS)
            await shop.drained()
            return writes["similar:tent"] >= 3 and writes["trending:all"] >= 3

        await shop.until(published, "tent's neighbours and trends were not written thrice")
        passed = time.monotonic() - began
        counting.cancel()
    most = 2 + passed / EVERY_S  # one was due at each end
    assert {key: n for key, n in writes.items() if key.startswith(SHARED) and n > most} == {}
    assert all(writes[f"{{u{turn}}}:recs"] >= 1 for turn in range(1, turns))
    assert turns > most  # it was touched more often than written

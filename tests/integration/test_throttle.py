"""A replay does not run away from the workers: it waits when too many of its records are not learned yet."""

from __future__ import annotations

import asyncio
from itertools import islice
from pathlib import Path

from stream.demo.shop import Shop
from stream.replay import MAX_LAG, Pace, replay
from tests.worker_process import Installation

MORE = 5_000


async def test_a_replay_waits_for_workers_that_are_behind_and_goes_on_with_them(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    events = islice(Shop(seed=4, users=500).events(), MAX_LAG + MORE)
    seen: list[tuple[int, int]] = []

    def note(pace: Pace) -> None:
        seen.append((pace.sent, pace.lag))

    async def stands() -> bool:
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        running = asyncio.create_task(replay(shop.settings, events, None, note))
        await shop.until(stands, "nobody learns, and it does not wait")
        sent, lag = seen[-1]
        assert MAX_LAG <= sent == lag < MAX_LAG + MORE
        shop.start()
        await shop.finish(running, "it does not go on")
        assert seen[-1] == (MAX_LAG + MORE, 0)
        assert running.result().books["learned"] == MAX_LAG + MORE

"""The short version of `tests.benchmarks.soak`: ten times the visitors and items that a worker may keep."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from tests.benchmarks.soak import CHURN, Churn, Sample, growth_mb
from tests.worker_process import Installation

ROUNDS = 20


async def test_memory_reaches_a_plateau(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    churn = Churn(200_000, users_each=2, items_each=5)
    events = churn.stream(time.time_ns() // 1000 - 60_000_000, rate=3_000)
    bounds = churn.bounds(4)
    samples: list[Sample] = []
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, dedup=1_000, **bounds) as shop:
        worker = shop.start()
        for _ in range(ROUNDS):
            await shop.publish(itertools.islice(events, churn.events // ROUNDS))
            await shop.drained()
            samples.append(Sample(0.0, shop.sent, worker.resident_mb))
        counts = await shop.counts()
        facts = {name.removeprefix(topic_prefix): fact for name, fact in (await shop.progress.facts()).items()}
    assert counts["learned"] == churn.events
    assert all(facts[f"events-{n}"]["users"] <= bounds["users"] for n in range(4))
    assert counts["evicted"] > (CHURN - 4) * bounds["users"] * 4
    assert sum(facts[f"covisits-{n}"]["counts"]["evicted"] for n in range(4)) > (CHURN - 4) * bounds["items"] * 4
    assert growth_mb(samples) < 0.75 * churn.unbounded_mb() / 3, samples

"""Memory of a worker while visitors and items come and go, ten times as many of both as it may keep.

A real worker on a real broker and Redis; events at a steady rate, each visitor and each item there for a twentieth of
the run. ``python -m tests.benchmarks.soak --minutes 30 [--rate 2000] [--json]``
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import psutil
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed

from models.hashing import partition_of
from stream.progress import Progress
from stream.settings import Settings
from tests.benchmarks.harness import Bench, WorkerProcess, arguments, bench, machine, report

CHURN = 10
EVENTS_PER_USER = 5
EVENTS_PER_ITEM = 20
STEP_S = 0.25
BYTES_PER_USER, BYTES_PER_ITEM = 460, 1_600  # what each would add if nothing were dropped


class Churn(NamedTuple):
    """A run of so many events, and the bounds that a tenth of its visitors and items fill."""

    events: int
    users_each: int = EVENTS_PER_USER
    items_each: int = EVENTS_PER_ITEM

    def bounds(self, partitions: int) -> dict[str, int]:
        """Settings per partition."""
        return {
            "users": self.events // self.users_each // CHURN // partitions,
            "items": self.events // self.items_each // CHURN // partitions,
        }

    def unbounded_mb(self) -> float:
        """What the visitors and items of the run would take if all were kept."""
        return (self.events / self.users_each * BYTES_PER_USER + self.events / self.items_each * BYTES_PER_ITEM) / 1e6

    def stream(self, start_us: int, rate: float) -> Iterator[dict[str, Any]]:
        """Events of those who are there: half of what the bounds hold, new ones more often than old ones."""
        draw, stay = random.Random(1).random, self.events / CHURN / 2
        for n in range(self.events):
            users, items = n // self.users_each, n // self.items_each
            user = users - int(draw() ** 2 * stay / self.users_each)
            item = items - int(draw() ** 2 * stay / self.items_each)
            yield {
                "event_name": "view_item",
                "event_timestamp": start_us + int(n / rate * 1e6),
                "event_id": f"soak-{n:012x}",
                "user_id": f"soaking-visitor-{abs(user):020x}",
                "item_id": f"item-{abs(item):010x}",
            }


class Sample(NamedTuple):
    """Resident memory at a time of the run."""

    seconds: float
    events: int
    mb: float


def growth_mb(samples: list[Sample]) -> float:
    """How much more memory the last third of a run needed than the middle one, at most."""
    events = samples[-1].events
    middle = [sample.mb for sample in samples if events / 3 <= sample.events < events * 2 / 3]
    last = [sample.mb for sample in samples if sample.events >= events * 2 / 3]
    return max(last) - max(middle)


async def publish(settings: Settings, events: Iterable[dict[str, Any]], rate: float, sent: list[int]) -> None:
    """Send events at a steady rate; counts them in `sent`."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, linger_ms=20, enable_idempotence=True)
    await producer.start()
    began = time.monotonic()
    for event in events:
        key = event["user_id"].encode()
        partition = partition_of(key, settings.events_partitions)
        await producer.send(settings.topic("events"), msgspec.json.encode(event), key=key, partition=partition)
        sent[0] += 1
        if sent[0] % int(rate * STEP_S) == 0:
            await asyncio.sleep(max(began + sent[0] / rate - time.monotonic(), 0))
    await producer.stop()


async def sampled(pid: int, sent: list[int], every_s: float) -> list[Sample]:
    """Resident memory of a process until cancelled."""
    process, began, samples = psutil.Process(pid), time.monotonic(), list[Sample]()
    try:
        while True:
            samples.append(Sample(time.monotonic() - began, sent[0], process.memory_info().rss / 1e6))
            await asyncio.sleep(every_s)
    except asyncio.CancelledError:
        return samples


async def soak(bench_: Bench, churn: Churn, rate: float, every_s: float) -> dict[str, object]:
    """Run a worker through the whole churn."""
    settings, sent = bench_.settings, [0]
    async with Progress(settings) as progress:
        worker = WorkerProcess(bench_)
        sampling = asyncio.create_task(sampled(worker.process.pid, sent, every_s))
        await publish(settings, churn.stream(time.time_ns() // 1000, rate), rate, sent)
        await progress.drained()
        worker.check()
        sampling.cancel()
        samples = await sampling
        shards = {name: fact for name, fact in (await progress.facts()).items() if "counts" in fact}
        worker.stop()
    grown = growth_mb(samples)
    return {
        "events": churn.events,
        **{f"bound_{name}": bound for name, bound in churn.bounds(settings.events_partitions).items()},
        "users": sum(fact.get("users", 0) for fact in shards.values()),
        "evicted": sum(fact["counts"].get("evicted", 0) for fact in shards.values()),
        "rss_mb": [(round(sample.seconds), round(sample.mb)) for sample in samples],
        "growth_last_third_mb": grown,
        "growth_if_all_were_kept_mb": churn.unbounded_mb() / 3,
        "plateau": grown < 0.1 * churn.unbounded_mb() / 3,
    }


def main() -> None:
    """Print the figures."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=2_000.0, help="events per second")
    options = parser.parse_args()
    churn = Churn(int(options.minutes * 60 * options.rate))
    redis = {"maxmemory": "256mb", "maxmemory-policy": "volatile-ttl"}  # what it holds for 72 h is not the matter here
    with bench(redis, **churn.bounds(4), dedup=100_000) as bench_:
        figures = asyncio.run(soak(bench_, churn, options.rate, options.minutes * 60 / 60))
    report(figures | {"machine": machine()}, json=options.json)


if __name__ == "__main__":
    main()

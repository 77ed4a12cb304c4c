"""From an event's scheduled send time to its list visible in Redis, open loop, seen from outside.

``python -m tests.benchmarks.latency [--rate 5000] [--low 500] [--seconds 20] [--samples 1000] [--quiet] [--json]``

The shop's events are sent by a fixed schedule whatever the answers do (no coordinated omission). Probe visitors, 1 % of
the events or as many more as give the wanted number of samples, view alternately two items that share no neighbour, so
that each of their events must change their list; a reader polls their keys and takes the time at which the list's
newest event is the one sent.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from confluent_kafka import Producer

from models.hashing import partition_of
from stream.demo.shop import Shop
from stream.keys import Keys, parse_list
from stream.progress import Progress
from tests.benchmarks.harness import Bench, WorkerProcess, arguments, bench, first_progress, machine, report

PROBES = 200  # probe visitors, each used again only after its last list was seen
PROBE_EVERY = 100  # events, at least so often
NEVER_S = 1e6
POLL_S = 0.001
TICK_S = 0.001  # at least so long the sender sleeps: finer takes from the two cores what the worker needs
ITEMS = (("probe-a", "probe-a2"), ("probe-b", "probe-b2"))
WARM_S = 30.0  # so long a fresh broker compiles itself, on a whole core
UNSEEN_S = 10.0


@dataclass(slots=True)
class Probes:
    """Visitors whose lists are watched: waiting for the event of which time (ms), since which scheduled time."""

    waiting: dict[str, tuple[int, float]] = field(default_factory=dict)
    free: list[str] = field(default_factory=lambda: [f"probe-{n}" for n in range(PROBES)])
    turn: dict[str, int] = field(default_factory=dict)
    ms: list[float] = field(default_factory=list)
    skipped: int = 0


class _User(msgspec.Struct):
    user_id: str = ""
    user_pseudo_id: str = ""


def _event(user: str, item: str, at_us: int) -> bytes:
    return msgspec.json.encode({"event_name": "view_item", "user_id": user, "item_id": item, "event_timestamp": at_us})


async def _watch(progress: Progress, probes: Probes, keys: Keys, stop: asyncio.Event) -> None:
    """Poll the waiting probes' keys; a list as young as the event includes it."""
    while not stop.is_set() or probes.waiting:
        users = list(probes.waiting)
        if users:
            values = await progress.store.get([keys.recs(user) for user in users])
            seen = time.monotonic()
            for user, value in zip(users, values, strict=True):
                sent_ms, due = probes.waiting[user]
                if value is not None and parse_list(value).ts >= sent_ms:
                    probes.ms.append((seen - due) * 1e3)
                    del probes.waiting[user]
                    probes.free.append(user)
        await asyncio.sleep(POLL_S)


async def _send(bench_: Bench, rate: int, seconds: float, probes: Probes, probe_every: int | None = None) -> None:
    """Send by schedule: event n is due at n / rate, late or not; every `probe_every`th, if any, is a probe's."""
    partitions = bench_.settings.events_partitions
    # It lingers a little, as producers do, which counts as latency. librdkafka: it sends from threads of its own, and
    # costs the two cores a tenth of what a Python client would.
    producer = Producer({"bootstrap.servers": bench_.settings.kafka, "acks": 1, "linger.ms": 1})
    seed = time.time_ns() % 2**31  # events of its own each time: known ids would be dropped as repeats
    began_us = time.time_ns() // 1000
    source = Shop(seed=seed, users=20_000, concurrent=2_000, rate=rate, start_ts_us=began_us).json_events()
    total = int(rate * seconds)
    encoded = list(itertools.islice(source, total))
    users = [msgspec.json.decode(value, type=_User) for value in encoded]
    keys = [(user.user_id or user.user_pseudo_id).encode() for user in users]
    background = list(zip(encoded, keys, strict=True))  # made before the clock starts: it costs what the worker needs
    start = time.monotonic()
    for n in range(total):
        due = start + n / rate
        ahead = due - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(max(ahead, TICK_S))  # late counts as latency, early would not be open loop
        if probe_every and n % probe_every == 0:
            if not probes.free:
                probes.skipped += 1
                continue
            user = probes.free.pop(0)
            turn = probes.turn[user] = 1 - probes.turn.get(user, 1)
            item = ITEMS[turn][0]
            at_us = time.time_ns() // 1000
            probes.waiting[user] = (at_us // 1000, due)
            value, key = _event(user, item, at_us), user.encode()
        else:
            value, key = background[n]
        producer.produce("events", value, key=key, partition=partition_of(key, partitions))
        producer.poll(0)
    if producer.flush(UNSEEN_S):
        raise RuntimeError("the broker did not take every event")


async def _teach(bench_: Bench) -> None:
    """Let each probe item have one neighbour of its own, so that a list can name it as the reason."""
    producer = AIOKafkaProducer(bootstrap_servers=bench_.settings.kafka)
    await producer.start()
    for n in range(50):
        for pair in ITEMS:
            for item in pair:
                user = f"teacher-{n}-{pair[0]}".encode()
                partition = partition_of(user, bench_.settings.events_partitions)
                event = _event(user.decode(), item, time.time_ns() // 1000)
                await producer.send("events", event, key=user, partition=partition)
    await producer.stop()


async def measure(bench_: Bench, rates: list[int], seconds: float, samples: int) -> list[dict[str, object]]:
    """Latency at each rate with one worker."""
    async with Progress(bench_.settings) as progress:
        worker = WorkerProcess(bench_)
        await _teach(bench_)
        await first_progress(progress, worker)
        await progress.drained()
        results: list[dict[str, object]] = []
        turns: dict[str, int] = {}  # of all rates: who viewed an item last must not view it again, or nothing changes
        for rate in rates:
            await _send(bench_, rate, WARM_S, Probes())
            probes, stop = Probes(turn=turns), asyncio.Event()
            watching = asyncio.create_task(_watch(progress, probes, Keys(bench_.settings.prefix), stop))
            began, used = time.monotonic(), worker.cpu_s()
            await _send(bench_, rate, seconds, probes, max(1, min(PROBE_EVERY, int(rate * seconds / samples))))
            stop.set()
            cores = (worker.cpu_s() - used) / (time.monotonic() - began)
            try:
                await asyncio.wait_for(watching, UNSEEN_S)
            except TimeoutError:
                user, (at_ms, _) = next(iter(probes.waiting.items()))
                shown = await progress.store.get([Keys(bench_.settings.prefix).recs(user)])
                raise RuntimeError(
                    f"{len(probes.waiting)} lists never changed; {user} had an event at {at_ms}: {shown}"
                ) from None
            worker.check()
            p50, p99 = np.quantile(probes.ms, [0.5, 0.99]).tolist()
            results.append(
                {
                    "rate": rate,
                    "p50_ms": p50,
                    "p99_ms": p99,
                    "samples": len(probes.ms),
                    "skipped": probes.skipped,
                    "worker_cores": round(cores, 2),
                }
            )
        worker.stop()
    return results


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--low", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--samples", type=int, default=1_000, help="wanted at each rate")
    parser.add_argument("--ranking", choices=("covisit", "blend"), default="covisit")
    parser.add_argument("--quiet", action="store_true", help="without snapshots and publication")
    options = parser.parse_args()
    quiet = {"snapshot_every_s": NEVER_S, "publish_every_s": NEVER_S} if options.quiet else {}
    with bench(ranking=options.ranking, **quiet) as bench_:
        low, high = asyncio.run(measure(bench_, [options.low, options.rate], options.seconds, options.samples))
    report(
        high | {"low": low, "ranking": options.ranking, "quiet": options.quiet, "machine": machine()}, json=options.json
    )


if __name__ == "__main__":
    main()

"""What distribution costs: CPU per event with one, two and four workers on the same events in batches of the same size.

``python tests/benchmarks/scale.py [--stream shop|taobao] [--events N] [--batch N] [--json]``

A worker alone owns every neighbour row. Several read rows of others through the bounded cache, publish their own for
others, and take turns on the machine's cores: wall time says nothing here, CPU time per event does.
"""

# ruff: noqa: E402  # the path first: this is run as a file
from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    os.environ["PYTHONPATH"] = str(ROOT)  # for the workers

from stream.progress import Progress
from stream.roster import worker_name
from tests.benchmarks.harness import Bench, WorkerProcess, arguments, bench, included, machine, preload, report, stream

WORKERS = (1, 2, 4)
STEP = 500  # events at a time until every worker has had a share
SESSION_S = 20.0  # workers are frozen while the topic is filled
READY_S = 180.0
IDLE_S = 5.0
POLL_S = 0.02


@dataclass(frozen=True)
class Cost:
    """What a number of workers needed for the same events."""

    us_per_event: float
    batch: float
    hit_rate: float
    lists_per_event: float
    keys_per_event: float
    wall_s: float
    most_users: float  # share of all users that the worker with the most of them keeps
    idle_cores: float  # that all workers together use while nothing happens: it goes into the ratio with the wall time


async def cost(bench_: Bench, events: Sequence[bytes], workers: int) -> Cost:
    """CPU of all workers together, from a full topic to everything drained."""
    async with Progress(bench_.settings) as progress:
        group = [WorkerProcess(bench_) for _ in range(workers)]
        start = await warm_up(bench_, progress, group, events)
        idle = await idle_cores(group)
        for worker in group:
            worker.process.send_signal(signal.SIGSTOP)
        await preload(bench_.settings, events[start:], bench_.settings.events_partitions)
        before, used, began = await totals(progress, group), cpu_s(group), time.monotonic()
        for worker in group:
            worker.process.send_signal(signal.SIGCONT)
        while await included(progress) < len(events):
            for worker in group:
                worker.check()
            await asyncio.sleep(POLL_S)
        await progress.drained()
        used, wall_s = cpu_s(group) - used, time.monotonic() - began
        gained = await totals(progress, group)
        gained.subtract(before)
        most_users = await largest_share(progress)
        for worker in group:
            worker.stop()
    asked = gained["cache_hits"] + gained["cache_misses"]
    return Cost(
        used / gained["records"] * 1e6,
        gained["records"] / gained["batches"],
        gained["cache_hits"] / asked if asked else 1.0,
        gained["lists"] / gained["records"],
        gained["keys"] / gained["records"],
        wall_s,
        most_users,
        idle,
    )


async def warm_up(bench_: Bench, progress: Progress, group: Sequence[WorkerProcess], events: Sequence[bytes]) -> int:
    """Publish the first half of the events, so that neighbours are known, and wait until all are drained.

    Until every worker has a share they come in small steps; how many it were in the end. Also waits until lists are no
    longer written just because shards are new to their owners.
    """
    end, sent = time.monotonic() + READY_S, 0
    while time.monotonic() < end:
        await preload(bench_.settings, events[sent : sent + STEP], bench_.settings.events_partitions)
        sent += STEP
        await progress.drained()
        for worker in group:
            worker.check()
        if all([(await totals(progress, [worker]))["records"] for worker in group]):
            break
    else:
        raise TimeoutError(f"not every worker has a share after {READY_S:g} s")
    shared = time.monotonic()
    await preload(bench_.settings, events[sent : len(events) // 2], bench_.settings.events_partitions)
    await progress.drained()
    await asyncio.sleep(max(0.0, shared + 2 * SESSION_S - time.monotonic()))
    return max(sent, len(events) // 2)


async def totals(progress: Progress, group: Sequence[WorkerProcess]) -> Counter[str]:
    """What some workers have counted, together."""
    facts = await progress.facts()
    found = (facts.get(f"worker-{worker_name(worker.process.pid)}", {}) for worker in group)
    return sum((Counter(fact) for fact in found), start=Counter())


async def largest_share(progress: Progress) -> float:
    """Share of all users whose state the worker with the most of them keeps."""
    users: Counter[str] = Counter()
    for facts in (await progress.facts()).values():
        users[facts.get("owner", "").partition(" ")[0]] += facts.get("users", 0)
    return max(users.values()) / users.total()


async def idle_cores(group: Sequence[WorkerProcess]) -> float:
    """CPU seconds per second of a group that has nothing to do."""
    used = cpu_s(group)
    await asyncio.sleep(IDLE_S)
    return (cpu_s(group) - used) / IDLE_S


def cpu_s(group: Sequence[WorkerProcess]) -> float:
    """CPU seconds of some workers so far."""
    return sum(worker.cpu_s() for worker in group)


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--stream", choices=("shop", "taobao"), default="shop", help="600 items, or a long tail")
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--batch", type=int, default=500, help="most records of a batch")
    options = parser.parse_args()
    events = list(stream(options.stream, options.events))
    costs = {}
    for workers in WORKERS:
        with bench(batch_records=options.batch, session_s=SESSION_S) as bench_:
            costs[workers] = asyncio.run(cost(bench_, events, workers))
    figures: dict[str, object] = {"events": options.events}
    for workers, found in costs.items():
        figures[f"cpu_ratio_{workers}"] = found.us_per_event / costs[1].us_per_event
        figures |= {f"{name}_{workers}": value for name, value in asdict(found).items()}
    report(figures | {"machine": machine()}, json=options.json)


if __name__ == "__main__":
    main()

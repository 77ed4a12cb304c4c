"""Kill -9 of a worker that holds a million users, and how long until another has taken everything over.

``python -m tests.benchmarks.recovery [--users 1000000] [--late 50000] [--json]``

The worker learns one event of each user and saves its state; then more events come, and it is killed before they are
saved. Another one is started at once, as a supervisor would. ``seconds`` is the time from the kill until every event,
also one sent to each partition after the kill, is learned and answered, less the session timeout, which Kafka lets
pass before it gives the partitions away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from stream.progress import Progress
from stream.roster import worker_name
from stream.snapshots import SnapshotStore
from tests.benchmarks.harness import Bench, WorkerProcess, arguments, bench, first_progress, machine, preload, report

ITEMS = 20_000
NEAR = 3
PROBES = 64  # users, so many that each partition has some


def visits(users: int, first: int = 0) -> Iterator[bytes]:
    """One event of each of some users, with a few items that are often met together."""
    began = time.time_ns() // 1000
    for n in range(first, first + users):
        base = n * 7919 % ITEMS
        items = ",".join(
            f'{{"item_id":"item-{(base + k) % ITEMS}","item_category":"c{base % 50}"}}' for k in range(NEAR)
        )
        user = f"{n * 0x9E3779B97F4A7C15 % 2**64:016x}-{n:019d}"
        head = f'{{"event_id":"e{n}","event_name":"view_item","event_timestamp":{began},"user_id":"{user}"'
        yield f'{head},"items":[{items}]}}'.encode()


async def saved(bench_: Bench, ends: dict[int, int]) -> None:
    """Wait until snapshots include everything."""
    store, topic = SnapshotStore(bench_.settings.snapshot_folder), bench_.settings.topic("events")
    for partition, end in ends.items():
        name = f"{topic}-{partition}"
        while max((found.offset for found in store.generations(name)), default=0) < end:  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.2)


async def measure(bench_: Bench, users: int, late: int) -> dict[str, object]:
    """Kill and take over."""
    settings = bench_.settings
    async with Progress(settings) as progress:
        worker = WorkerProcess(bench_)
        await first_progress(progress, worker)
        await progress.drained()
        await saved(bench_, await progress.ends("events"))
        await preload(settings, visits(late, users), settings.events_partitions)
        before = await progress.ends("events")
        while sum((await progress.included("events")).values()) < sum(before.values()):
            worker.check()
            await asyncio.sleep(0.02)
        worker.process.kill()
        killed = time.monotonic()
        worker.process.wait()
        successor = WorkerProcess(bench_)
        await preload(settings, visits(PROBES, users + late), settings.events_partitions)
        ends = await progress.ends("events")
        assert all(ends[partition] > before[partition] for partition in ends)
        while any(ends[p] > at for p, at in (await progress.included("events")).items()):
            successor.check()
            await asyncio.sleep(0.02)
        took = time.monotonic() - killed
        facts = await progress.facts()
        known = sum(fact["users"] for name, fact in facts.items() if name.startswith(settings.topic("events") + "-"))
        again = facts[f"worker-{worker_name(successor.process.pid)}"]["records"]
        successor.stop()
    return {
        "users": known,
        "seconds": took - settings.session_s,
        "seconds_from_kill": took,
        "session_timeout_s": settings.session_s,
        "records_learned_again": again,
        "machine": machine(),
    }


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--late", type=int, default=50_000, help="events that no snapshot includes when it is killed")
    options = parser.parse_args()
    with bench() as bench_:
        asyncio.run(preload(bench_.settings, visits(options.users), bench_.settings.events_partitions))
        figures = asyncio.run(measure(bench_, options.users, options.late))
    report(figures, json=options.json)


if __name__ == "__main__":
    main()

"""How soon a change of the catalogue is seen and a new item recommended, and what a large catalogue costs the worker.

``python -m tests.benchmarks.catalogue [--json] [--items 100000] [--changes 50] [--new 200]``

A change is timed from acknowledgement to when a reader with its default cache, that asked just before, shows it. A new
item, which nobody has touched, is timed from when its record is sent to when the list in Redis of a visitor whom it
suits holds it; the visitor looks around every 20 ms. That is with the blend, on an installation without other items.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
import numpy as np

from stream.catalogue import CatalogueItem
from stream.catalogue_topic import write_items
from stream.client import Client
from stream.kafka import careful_producer
from stream.keys import Keys, parse_list
from stream.producer import EventProducer
from stream.progress import Progress
from tests.benchmarks.harness import READY_S, Bench, WorkerProcess, arguments, bench, report, sibling

VISIT_S = 0.02  # between two visits of the visitor who waits for a new item
POLL_S = 0.002


def catalogue(count: int, price: float) -> Iterator[CatalogueItem]:
    """Items as shops have them."""
    for n in range(count):
        yield CatalogueItem(
            item_id=f"item-{n}",
            title=f"A tent for two, green, number {n}",
            text="A description of some length. " * 10,
            category=f"category-{n % 200}",
            price=price,
            currency="EUR",
            stock=5,
            url=f"https://shop.example/tents/green-{n}",
            image=f"https://shop.example/img/green-{n}.jpg",
        )


async def shown(client: Client, item: str, price: float) -> bool:
    """Whether a reader shows a price."""
    known = (await client.items([item])).get(item)
    return known is not None and known.price == price


async def seen_after(client: Client, item: str, price: float, worker: WorkerProcess) -> float:
    """Seconds until it does."""
    began = time.monotonic()
    while not await shown(client, item, price):
        worker.check()
        if time.monotonic() - began > READY_S:
            raise TimeoutError(f"{item} is not shown")
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def measure(made: Bench, worker: WorkerProcess, count: int, changes: int) -> dict[str, object]:
    """One whole catalogue, then single changes."""
    settings = made.settings
    waits: list[float] = []
    async with Client(settings.redis) as client, Progress(settings) as progress:

        async def put(items: Iterable[CatalogueItem]) -> None:
            await write_items(settings, items)

        await put(catalogue(1, 0.0))
        await seen_after(client, "item-0", 0.0, worker)  # it has begun
        cpu, began = worker.cpu_s(), time.monotonic()
        await put(catalogue(count, 1.0))
        ends = await progress.ends("items")
        while {p: (await written(progress, settings.topic("items"), p)) for p in ends} != ends:
            worker.check()
            await asyncio.sleep(0.02)
        whole = {"put_s": time.monotonic() - began, "worker_cpu_us_per_item": (worker.cpu_s() - cpu) / count * 1e6}
        for change in range(changes):
            price = float(change + 2)
            await shown(client, "item-0", price)
            await put(catalogue(1, price))
            waits.append(await seen_after(client, "item-0", price, worker))
    p50, p99 = np.quantile(waits, [0.5, 0.99])
    return {"items": count, **whole, "seen_p50_s": float(p50), "seen_p99_s": float(p99), "seen_max_s": max(waits)}


async def written(progress: Progress, topic: str, partition: int) -> int:
    """How far the keys of items are."""
    facts = await progress.facts()
    return int(facts.get(f"{topic}-{partition}", {"next": 0})["next"])


@contextmanager
def running(made: Bench) -> Iterator[WorkerProcess]:
    """A worker that is ended whatever happens."""
    worker = WorkerProcess(made)
    try:
        yield worker
    finally:
        worker.stop()


async def newcomers(made: Bench, worker: WorkerProcess, count: int) -> dict[str, object]:
    """New items one after another, each alike to one that a visitor of its own is on."""
    settings, keys = made.settings, Keys(made.settings.prefix)
    events = EventProducer(settings.kafka, settings.topic("events"), linger_ms=0)
    waits: list[float] = []
    async with Progress(settings) as progress, events, careful_producer(settings, "items") as records:

        async def put(item: str, title: str) -> None:
            value = msgspec.json.encode(CatalogueItem(item_id=item, title=title))
            await (await records.send(settings.topic("items"), value, key=item.encode()))

        async def visit(visitor: str) -> None:
            await events.send({"event_name": "view_item", "user_id": visitor, "item_id": f"{visitor}-known"})

        async def listed(visitor: str) -> list[str]:
            (value,) = await progress.store.get([keys.recs(visitor)])
            return [] if value is None else parse_list(value).items

        async def waited(visitor: str, item: str) -> float:
            began = visited = time.monotonic()
            await put(item, f"{visitor} lantern, new")
            while item not in await listed(visitor):
                worker.check()
                now = time.monotonic()
                if now - began > READY_S:
                    raise TimeoutError(f"{item} is not recommended")
                if now - visited >= VISIT_S:
                    visited = now
                    await visit(visitor)
                await asyncio.sleep(POLL_S)
            return time.monotonic() - began

        for n in range(count + 1):
            visitor = f"visitor{n}"
            await put(f"{visitor}-known", f"{visitor} lantern")
            waits.append(await waited(visitor, f"{visitor}-new"))
    p50, p99 = np.quantile(waits[1:], [0.5, 0.99])  # the first one waited for the worker to start
    return {
        "new": count,
        "new_p50_ms": float(p50) * 1e3,
        "new_p99_ms": float(p99) * 1e3,
        "new_max_ms": max(waits[1:]) * 1e3,
    }


def main() -> None:
    """Measure on a real broker and Redis."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=50)
    parser.add_argument("--new", type=int, default=200)
    options = parser.parse_args()
    found: dict[str, object] = {}
    with bench() as made:
        if options.changes:
            with running(made) as worker:
                found |= asyncio.run(measure(made, worker, options.items, options.changes))
        if options.new:
            other = sibling(made, "blend", ranking="blend")
            with running(other) as worker:
                found |= asyncio.run(newcomers(other, worker, options.new))
    report(found, json=options.json)


if __name__ == "__main__":
    main()

"""Real Kafka -> one worker -> real Redis, everything on, against readers that only decode; same topic, same run.

``python -m tests.benchmarks.end_to_end [--stream shop|taobao] [--events N] [--ranking covisit|blend|both] [--json]``

``both``: by co-visitation, then by the blend, on two installations on the same servers with the same events.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import time
from importlib.resources import files

import msgspec

from models.offers import load_offers
from stream.catalogue import CatalogueItem
from stream.catalogue_topic import write_items
from stream.cli.offers import publish_offers
from stream.demo.shop import Shop
from stream.progress import Progress
from tests.benchmarks.harness import (
    ROOT,
    Bench,
    WorkerProcess,
    arguments,
    bench,
    first_progress,
    included,
    machine,
    preload,
    report,
    sibling,
    stream,
)

Figures = dict[str, object]


def baseline(kind: str, bench_: Bench, total: int) -> dict[str, float]:
    """Time a reader of `tests.benchmarks.baselines`."""
    command = [sys.executable, "-m", "tests.benchmarks.baselines", kind, bench_.settings.kafka, str(total)]
    done = subprocess.run(
        [*command, str(bench_.folder / kind)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    found = re.search(r'{"events".*}', done.stdout)  # Faust writes terminal codes before it
    if found is None:
        raise RuntimeError(f"{kind} printed no figures: {done.stdout[-500:]} {done.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(found[0])
    return figures


async def worker_figures(bench_: Bench, total: int) -> Figures:
    """Let a worker drain the topic; figures from its first progress to everything drained and answered."""
    async with Progress(bench_.settings) as progress:
        worker = WorkerProcess(bench_)
        before, began, cpu = await first_progress(progress, worker)
        while await included(progress) < total:
            worker.check()
            await asyncio.sleep(0.02)
        events_done = time.monotonic()
        await progress.drained()
        ended, used = time.monotonic(), worker.cpu_s() - cpu
        facts = next(fact for name, fact in (await progress.facts()).items() if name.startswith("worker-"))
        worker.stop()
    return {
        "events": total - before,
        "events_per_s": (total - before) / (ended - began),
        "cpu_us_per_event": used / (total - before) * 1e6,
        "lists_per_event": facts["lists"] / facts["records"],
        "keys_written_per_event": facts["keys"] / facts["records"],
        "skew_ms": (ended - events_done) * 1e3,
    }


def fill(bench_: Bench, options: argparse.Namespace) -> None:
    """Write the events, the shop's catalogue, and the offers if they are wanted."""
    asyncio.run(preload(bench_.settings, stream(options.stream, options.events), bench_.settings.events_partitions))
    if options.stream == "shop":
        items = (msgspec.convert(item, CatalogueItem) for item in Shop(seed=1).catalogue())
        asyncio.run(write_items(bench_.settings, items))
    if not options.no_offers:
        text = files("stream.demo").joinpath("offers.toml").read_text(encoding="utf-8")
        asyncio.run(publish_offers(bench_.settings, load_offers(text, "offers.toml"), []))


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--stream", choices=("shop", "taobao"), default="shop")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--baseline-events", type=int, default=100_000, help="records the slow readers take")
    parser.add_argument("--no-offers", action="store_true", help="leave topic offers empty")
    parser.add_argument("--ranking", choices=("covisit", "blend", "both"), default="covisit")
    options = parser.parse_args()
    first = "covisit" if options.ranking == "both" else options.ranking
    with bench(ranking=first) as bench_:
        fill(bench_, options)
        few = min(options.events, options.baseline_events)
        stock = baseline("faust", bench_, few)
        plain = baseline("aiokafka", bench_, few)
        figures = asyncio.run(worker_figures(bench_, options.events))
        if options.ranking == "both":
            other = sibling(bench_, "blend", ranking="blend")
            fill(other, options)
            blend = asyncio.run(worker_figures(other, options.events))
            figures |= {f"blend_{name}": value for name, value in blend.items()} | {
                "blend_throughput_ratio": blend["events_per_s"] / figures["events_per_s"],  # type: ignore[operator]  # floats
                "blend_cpu_ratio": blend["cpu_us_per_event"] / figures["cpu_us_per_event"],  # type: ignore[operator]  # floats
            }
    per_event = {name: one["cpu_s"] / one["events"] * 1e6 for name, one in (("faust", stock), ("aiokafka", plain))}
    ours, rate = figures["cpu_us_per_event"], figures["events_per_s"]
    assert isinstance(ours, float)
    assert isinstance(rate, float)
    figures |= {
        "stream": options.stream,
        "ranking": first,
        "stock_faust_us_per_event": per_event["faust"],
        "aiokafka_us_per_event": per_event["aiokafka"],
        "ratio_vs_stock_faust": ours / per_event["faust"],
        "ratio_vs_aiokafka": ours / per_event["aiokafka"],
        "wall_ratio_vs_stock_faust": (1 / rate) / (stock["wall_s"] / stock["events"]),
        "machine": machine(),
    }
    report(figures, json=options.json)


if __name__ == "__main__":
    main()

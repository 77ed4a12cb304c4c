"""What a page's list costs a reader, and what keeping shared keys saves: CPU, round trips and hit rate per call.

``python -m tests.benchmarks.readers [--json] [--rate 200] [--pages 2000]``

Visitors have lists of 20 out of 10,000 items, popular ones more often (Zipf); every item has details.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import redis

from stream.client import SyncClient
from stream.keys import Keys
from tests.benchmarks.harness import arguments, report
from tests.brokers import RedisServer
from tests.reader_shop import rendered

USERS = 1_000
ITEMS = 10_000
K = 20
VARIANTS: dict[str, dict[str, Any]] = {
    "kept_not": {"cache_s": 0.0},
    "kept_1_s": {"cache_s": 1.0},
    "tracked": {"cache_s": 1.0, "tracking": True},
    "without_catalogue": {"catalogue": False},
}


class Counting(SyncClient):
    """Counts round trips."""

    trips = 0

    def _exchange(self, wire: Any) -> list[Any]:
        self.trips += 1
        return super()._exchange(wire)


def fill(url: str, keys: Keys) -> None:
    """Write lists and details."""
    random = np.random.default_rng(1)
    weights = 1 / np.arange(1, ITEMS + 1)
    weights /= weights.sum()
    details = {
        "v": 1,
        "ts": 1,
        "title": "A tent for two, green",
        "category": "camping",
        "price": 149.5,
        "currency": "EUR",
    }
    details |= {"url": "https://shop.example/tents/green-1", "image": "https://shop.example/img/green-1.jpg"}
    with redis.Redis.from_url(url) as client, client.pipeline(transaction=False) as pipeline:
        for user in range(USERS):
            items = [f"item-{n}" for n in random.choice(ITEMS, K, replace=False, p=weights)]
            pipeline.set(keys.recs(f"user-{user}"), rendered(items))
        for item in range(ITEMS):
            pipeline.set(keys.item(f"item-{item}"), json.dumps(details))
        pipeline.set(keys.trending(), rendered([f"item-{n}" for n in range(K)]))
        pipeline.execute()


def visit(url: str, pages: int, rate: float, **options: Any) -> dict[str, float]:
    """Read pages at a rate."""
    random = np.random.default_rng(2)
    with Counting(url, strict=True, **options) as client:
        client.recommendations("user-0")  # connected before it counts
        client.cache.hits = client.cache.misses = client.trips = 0
        began, cpu = time.monotonic(), 0.0
        for page, user in enumerate(random.integers(USERS, size=pages)):
            time.sleep(max(0.0, began + page / rate - time.monotonic()))
            start = time.process_time()
            found = client.recommendations(f"user-{user}")
            cpu += time.process_time() - start
            assert len(found.items) == K
        asked = client.cache.hits + client.cache.misses
        return {
            "hit_rate": round(client.cache.hits / asked, 3),
            "round_trips": round(client.trips / pages, 2),
            "cpu_us": round(cpu / pages * 1e6, 1),
        }


def main() -> None:
    """Measure each variant on a fresh Redis."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--rate", type=float, default=200.0, help="pages per second and process")
    parser.add_argument("--pages", type=int, default=2_000)
    options = parser.parse_args()
    figures: dict[str, object] = {}
    with RedisServer() as server:
        fill(server.url, Keys())
        for name, variant in VARIANTS.items():
            found = visit(server.url, options.pages, options.rate, **variant)
            figures |= {f"{name}_{figure}": value for figure, value in found.items()}
    report(figures, json=options.json)


if __name__ == "__main__":
    main()

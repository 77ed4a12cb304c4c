"""A worker's web port, as its supervisor and Prometheus see it."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.brokers import free_ports
from tests.worker_process import Installation


class Pages:
    """The web port of a worker."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(self._base + path, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    async def failing(self, path: str = "/readyz") -> dict[str, str] | None:
        """The failing checks; None while nobody answers."""
        status, body = await asyncio.to_thread(self._get, path)
        if status == 0:
            return None
        answer = msgspec.json.decode(body)
        assert answer["ok"] == (not answer["failing"]) == (status == 200), (status, answer)
        found: dict[str, str] = answer["failing"]
        return found

    async def metrics(self) -> dict[str, Metric]:
        status, body = await asyncio.to_thread(self._get, "/metrics")
        assert status == 200
        return {family.name: family for family in text_string_to_metric_families(body.decode())}

    async def watched(self) -> tuple[float, float]:
        """Seconds the watchdog has looked on, and for how many of the last ones something has stood still."""
        metrics = await self.metrics()
        return values(metrics["rivulet_watched_seconds"])[()], values(metrics["rivulet_standstill_seconds"])[()]

    async def fails(self, *checks: str) -> bool:
        return set(checks) <= (await self.failing() or {}).keys()

    async def is_ready(self) -> bool:
        return await self.failing() == {}


@asynccontextmanager
async def installation(
    kafka: str, redis_url: str, folder: Path, name: str, **settings: Any
) -> AsyncIterator[tuple[Installation, Pages]]:
    (port,) = free_ports(1)
    async with Installation(kafka, redis_url, folder, name, web_port=port, **settings) as shop:
        yield shop, Pages(port)


async def recovered(shop: Installation, pages: Pages) -> None:
    """After a fault: the worker is ready, and no log holds an error that nobody had foreseen."""
    await shop.until(pages.is_ready, "not ready")
    assert [worker.output for worker in shop.workers if "Traceback" in worker.output] == []


def values(family: Metric, *labels: str) -> Counter[tuple[str, ...]]:
    """Sums of a metric's samples by some of its labels."""
    found: Counter[tuple[str, ...]] = Counter()
    for sample in family.samples:
        found[tuple(sample.labels[label] for label in labels)] += sample.value  # type: ignore[assignment]  # floats
    return found

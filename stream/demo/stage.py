"""What the demo consists of, and what it counts."""

from __future__ import annotations

import asyncio
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import msgspec

from stream.demo.child import Child
from stream.demo.embedded import EmbeddedKafka, EmbeddedRedis
from stream.demo.traffic import Traffic
from stream.errors import RivuletError, UnavailableError
from stream.keys import Keys, Reason, parse_list
from stream.progress import Progress
from stream.settings import Settings
from stream.topics import layout

START_S = 60.0  # a busy machine is no fault
LOOK_S = 0.1  # how often it is seen whether the worker still runs
SHOWN = 3  # items of a list in the demo's line
OUTCOMES = ("learned", "duplicates", "late", "denied", "rekeyed")


class Summary(msgspec.Struct, frozen=True):
    """State of a demo; `lost` counts published events that are in no shard's books.

    `weights`: of the blend, mean of the shards; `drifts`: lasting falls of its hit rate; `memories`: short memories of
    popularity that lead somewhere, in touches; `reasons`: why items were listed, by model, in the lists that were
    glimpsed.
    """

    events: int
    events_per_s: float
    users: int
    users_with_recs: int
    users_with_offers: int
    lost: int
    freshness_p50_ms: float
    freshness_p99_ms: float
    hit_rate: float
    weights: dict[str, float]
    drifts: int
    memories: list[int]
    reasons: dict[str, int]


class DemoStage:
    """Broker, Redis, worker and shop of one demo; an async context manager.

    Parameters
    ----------
    seed, rate
        Of the shop: its draws, and events per second.

    Attributes
    ----------
    kafka, redis
        Addresses, while it runs.
    traffic
        The shop, while it runs.
    stop
        To be set when nobody wants it any more.

    Raises
    ------
    UnavailableError
        If the worker ends by itself or stands still; with the end of its log.
    RivuletError
        If it is to stop before the worker is up.
    """

    def __init__(self, *, seed: int = 1, rate: float = 200.0) -> None:
        self.stop = asyncio.Event()
        self._seed, self._rate = seed, rate
        self._before = (0, 0.0)
        self._reasons: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            topics = {topic.name: topic.partitions for topic in layout()}
            self.kafka = stack.enter_context(EmbeddedKafka(topics)).bootstrap
            self.redis = stack.enter_context(EmbeddedRedis()).url
            self.settings = Settings(kafka=self.kafka, redis=self.redis)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rivulet-demo-")))
            self.traffic = await stack.enter_async_context(Traffic(self.settings, seed=self._seed, rate=self._rate))
            await self.traffic.stock()
            command = [sys.executable, "-m", "stream.cli", "worker"]
            self._worker = Child(command, folder, self._environment(folder))
            stack.callback(self._worker.end)
            self.progress = await stack.enter_async_context(Progress(self.settings))
            await self._beside_worker(self._until_up(), START_S)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _environment(self, folder: Path) -> dict[str, str]:
        return {
            "RIVULET_KAFKA": self.kafka,
            "RIVULET_REDIS": self.redis,
            "RIVULET_SNAPSHOT_FOLDER": str(folder / "snapshots"),
            "RIVULET_ON_GAP": "accept",
            "RIVULET_WEB_PORT": "0",
            "RIVULET_PUBLISH_EVERY_S": "1",
            "RIVULET_LOG_LEVEL": "warning",
        }

    async def _until_up(self) -> None:
        """Wait until the worker has learned a first event."""
        await self.traffic.step()
        await self.traffic.flush()
        while not sum((await self.progress.included("events")).values()):
            if self.stop.is_set():
                raise RivuletError("the demo was stopped before its worker was up")
            await asyncio.sleep(0.05)

    async def _beside_worker(self, work: Coroutine[Any, Any, None], seconds: float = math.inf) -> None:
        """Await what needs the worker, for so long at most and no longer than it runs."""
        task, end = asyncio.create_task(work), time.monotonic() + seconds
        try:
            while not task.done():
                if not self._worker.running or time.monotonic() > end:
                    what = f"stood still for {seconds:g} s" if self._worker.running else "ended"
                    raise UnavailableError(f"the demo's worker {what}: {self._worker.log_end()}")
                await asyncio.wait([task], timeout=LOOK_S)
        finally:
            task.cancel()
            await asyncio.wait([task])
        await task

    async def run(self, duration: float | None) -> Summary:
        """Let the shop's visitors act until told to stop or the time is over, then drain; the final summary."""
        before, began = self.traffic.sent, time.monotonic()
        await self._beside_worker(self.traffic.run(self.stop, duration))
        rate = (self.traffic.sent - before) / (time.monotonic() - began)
        await self._beside_worker(self.progress.drained(), START_S)
        return msgspec.structs.replace(await self.summary(), events_per_s=rate)

    async def summary(self) -> Summary:
        """What the worker's books say now."""
        sent = self.traffic.sent
        facts = await self.progress.facts()
        shards = [fact for name, fact in facts.items() if name.startswith("events-") and "counts" in fact]  # taken up
        worker: dict[str, Any] = next((fact for name, fact in facts.items() if name.startswith("worker-")), {})
        counted = sum(n for s in shards for name, n in s["counts"].items() if name in OUTCOMES or name[:5] == "dead:")
        predictions = sum(s["hits"][0] for s in shards)
        blends = [s["blend"] for s in shards if "blend" in s]
        names = blends[0]["weights"] if blends else {}
        before, at = self._before
        now = time.monotonic()
        self._before = (sent, now)
        return Summary(
            events=sent,
            events_per_s=(sent - before) / (now - at) if at else 0.0,
            users=sum(s["users"] for s in shards),
            users_with_recs=sum(s["with_recs"] for s in shards),
            users_with_offers=sum(s["with_offers"] for s in shards),
            lost=sent - counted,
            freshness_p50_ms=worker.get("freshness_p50_ms", 0.0),
            freshness_p99_ms=worker.get("freshness_p99_ms", 0.0),
            hit_rate=sum(s["hits"][1] for s in shards) / predictions if predictions else 0.0,
            weights={name: sum(blend["weights"][name] for blend in blends) / len(blends) for name in names},
            drifts=sum(blend["drifts"] for blend in blends),
            memories=sorted({int(blend["constants"]["memory"]) for blend in blends}),
            reasons=dict(self._reasons.most_common()),
        )

    async def glimpse(self) -> tuple[str, list[tuple[str, Reason]]]:
        """The latest visitor, and the first items of the list that was pushed, each with its reason."""
        (value,) = await self.progress.store.get([Keys(self.settings.prefix).recs(self.traffic.visitor)])
        if value is None:
            return self.traffic.visitor, []
        listed = parse_list(value)
        self._reasons.update(model for _, model in listed.why)
        return self.traffic.visitor, list(zip(listed.items, listed.why, strict=True))[:SHOWN]

"""What the benchmarks on real parts share: a broker, a Redis, a preloaded topic, a worker process, its CPU clock."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed

from models.hashing import partition_of
from stream.demo.shop import Shop
from stream.progress import Progress
from stream.recordings import open_recording
from stream.settings import Settings
from stream.topics import create, layout
from tests.brokers import KafkaBroker, RedisServer
from tests.worker_process import environment

ROOT = Path(__file__).parents[2]
READY_S = 120.0


@dataclass(slots=True)
class Bench:
    """Servers and folder of one benchmark run."""

    settings: Settings
    folder: Path

    def environment(self) -> dict[str, str]:
        """Settings for a child process."""
        return os.environ | environment(self.settings)


@contextmanager
def bench(redis: Mapping[str, str] | None = None, /, **settings: Any) -> Iterator[Bench]:
    """Start a real broker and Redis (with more options), create the topics, and clean up.

    Lists are ranked by co-visitation alone unless told, as in the figures of the README that do not name the blend.
    """
    settings = {"ranking": "covisit"} | settings
    with ExitStack() as stack:
        broker = stack.enter_context(KafkaBroker())
        server = stack.enter_context(RedisServer(options=redis))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rivulet-bench-")))
        made = Settings(
            kafka=broker.bootstrap,
            redis=server.url,
            snapshot_folder=folder / "snapshots",
            web_port=0,
            log_level="warning",
            **settings,
        )
        asyncio.run(create(made.kafka, layout(made.events_partitions, made.covisits_partitions)))
        yield Bench(made, folder)


def sibling(bench_: Bench, name: str, **settings: Any) -> Bench:
    """Another installation on the same servers, with topics, keys and snapshots of its own."""
    folder = bench_.folder / name
    folder.mkdir()
    names = {"topic_prefix": f"{name}-", "prefix": name, "group": name, "snapshot_folder": str(folder / "snapshots")}
    made = bench_.settings.model_copy(update=names | settings)
    asyncio.run(create(made.kafka, layout(made.events_partitions, made.covisits_partitions, made.topic_prefix)))
    return Bench(made, folder)


async def preload(settings: Settings, events: Iterable[bytes], partitions: int) -> list[int]:
    """Publish encoded events by user as fast as possible; records per partition."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka, acks="all", linger_ms=20, max_batch_size=262_144, enable_idempotence=True
    )
    await producer.start()
    counts = [0] * partitions
    user_of = msgspec.json.Decoder(_User).decode
    for value in events:
        user = user_of(value)
        key = (user.user_id or user.user_pseudo_id).encode()
        partition = partition_of(key, partitions)
        counts[partition] += 1
        await producer.send(settings.topic("events"), value, key=key, partition=partition)
    await producer.stop()
    return counts


class _User(msgspec.Struct):
    user_id: str = ""
    user_pseudo_id: str = ""


class WorkerProcess:
    """A worker in a process of its own."""

    def __init__(self, bench: Bench) -> None:
        log = (bench.folder / "worker.log").open("ab")
        self.log = bench.folder / "worker.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stream.cli", "worker"],
            cwd=ROOT,
            env=bench.environment(),
            stdout=log,
            stderr=log,
        )
        self._clock = psutil.Process(self.process.pid)

    def cpu_s(self) -> float:
        """CPU seconds it has used so far."""
        times = self._clock.cpu_times()
        return times.user + times.system

    def check(self) -> None:
        """Fail with its log if it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the worker ended: {self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)


async def included(progress: Progress, role: str = "events") -> int:
    """Records of a topic that the worker has included."""
    return sum((await progress.included(role)).values())


async def first_progress(progress: Progress, worker: WorkerProcess) -> tuple[int, float, float]:
    """Wait until the worker has begun: (records included, wall seconds, its CPU seconds) at that moment."""
    end = time.monotonic() + READY_S
    while True:
        worker.check()
        done = await included(progress)
        if done:
            return done, time.monotonic(), worker.cpu_s()
        if time.monotonic() > end:
            raise TimeoutError(f"the worker does not begin: {worker.log.read_text()[-3000:]}")
        await asyncio.sleep(0.02)


def looped(path: Path, count: int) -> Iterator[bytes]:
    """Events of a recording again and again, each round with other users and later times, as JSON."""
    base = list(open_recording(path))
    span = base[-1]["event_timestamp"] - base[0]["event_timestamp"] + 1_000_000
    sent = 0
    for round_ in range(count // len(base) + 1):
        for event in base:
            if sent == count:
                return
            name = "user_id" if "user_id" in event else "user_pseudo_id"
            again = event | {
                name: f"{event[name]}-{round_}",
                "event_id": f"{sent:012x}",
                "event_timestamp": event["event_timestamp"] + round_ * span,
            }
            yield msgspec.json.encode(again)
            sent += 1


def stream(name: str, count: int) -> Iterator[bytes]:
    """Encoded events: the synthetic shop's with many visitors at once, or a recorded stream looped with other users."""
    if name == "shop":
        return Shop(seed=1, users=100_000, concurrent=20_000, rate=100).json_events(count)
    return looped(data_folder() / "taobao_2h.csv.gz", count)


def data_folder() -> Path:
    """Folder with the recorded streams."""
    return Path(os.environ.get("RIVULET_DATA", ROOT.parent / "shared" / "data"))


def arguments(description: str) -> argparse.ArgumentParser:
    """Parser with ``--json``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def machine() -> str:
    """What it ran on, for the README."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def report(figures: dict[str, object], *, json: bool) -> None:
    """Print the figures."""
    if json:
        print(msgspec.json.encode(figures).decode())
    else:
        for name, value in figures.items():
            print(f"{name:28} {value:.4g}" if isinstance(value, float) else f"{name:28} {value}")

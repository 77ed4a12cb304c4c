"""A topic with workers that count it, for tests of what becomes of shards on a real broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # no py.typed

from stream.snapshots import SnapshotStore
from tests.patience import PATIENCE_S, Patience
from tests.shard_worker import Orders, Status, chain

PARTITIONS = 4


class Group:
    """A topic, its writer, and worker processes that count it."""

    def __init__(self, kafka: str, topic: str, folder: Path) -> None:
        self.kafka, self.topic, self.folder = kafka, topic, folder
        self.store = SnapshotStore(folder / "snapshots")
        self.ends = [0] * PARTITIONS
        self.workers: dict[str, subprocess.Popen[bytes]] = {}

    async def open(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        await admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])
        await admin.close()
        self.producer = AIOKafkaProducer(bootstrap_servers=self.kafka, enable_idempotence=True)
        await self.producer.start()

    async def close(self) -> None:
        for worker in self.workers.values():
            worker.kill()
            worker.wait()
        await self.producer.stop()

    async def write(self, count: int) -> None:
        """Spread records over the partitions."""
        sent = [await self.producer.send(self.topic, b"x", partition=index % PARTITIONS) for index in range(count)]
        for metadata in await asyncio.gather(*sent):
            self.ends[metadata.partition] = max(self.ends[metadata.partition], metadata.offset + 1)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write about 4000 records a second all the while."""
        done = False

        async def write_on() -> None:
            while not done:
                await self.write(80)
                await asyncio.sleep(0.02)

        task = asyncio.create_task(write_on())
        try:
            yield
        finally:
            done = True
            await task

    def start(self, name: str = "a", **orders: Any) -> subprocess.Popen[bytes]:
        wanted = Orders(self.kafka, self.topic + "-g", self.topic, str(self.folder), name=name, **orders)
        (self.folder / f"status-{name}.json").unlink(missing_ok=True)
        with (self.folder / f"log-{name}.txt").open("ab") as log:
            self.workers[name] = subprocess.Popen(
                [sys.executable, "-m", "tests.shard_worker", msgspec.json.encode(wanted).decode()],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[1],
            )
        return self.workers[name]

    def log(self, name: str = "a") -> str:
        return (self.folder / f"log-{name}.txt").read_text()

    def status(self, name: str = "a") -> Status:
        with suppress(FileNotFoundError):
            return msgspec.json.decode((self.folder / f"status-{name}.json").read_bytes(), type=Status)
        return Status({}, {}, [], False, 0)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = PATIENCE_S) -> None:
        patience = Patience(seconds)
        while not condition():
            if patience.ended():
                logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in self.workers)
                raise TimeoutError(f"{what}\n{logs}")
            await asyncio.sleep(0.02)

    async def committed(self) -> dict[int, int]:
        """Committed offset of each partition."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka)
        await admin.start()
        found = await admin.list_consumer_group_offsets(self.topic + "-g")
        await admin.close()
        return {tp.partition: meta.offset for tp, meta in found.items()}

    def position(self) -> list[int]:
        """Where the owners stand, -1 for a partition without one."""
        positions = [-1] * PARTITIONS
        for name, worker in self.workers.items():
            if worker.poll() is None:
                for partition, at in self.status(name).next.items():
                    positions[partition] = max(positions[partition], at)
        return positions

    def processed(self) -> int:
        return sum(max(at, 0) for at in self.position())

    async def until_shared(self) -> None:
        """Both a and b own half of the partitions."""
        await self.until(lambda: [len(self.status(name).next) for name in "ab"] == [2, 2], "no two owners")

    async def until_moved(self, name: str, count: int) -> None:
        """One worker has processed so many more records."""
        at = self.count("records", name)
        await self.until(lambda: self.count("records", name) > at + count, f"{name} does not read on")

    async def until_read(self) -> None:
        await self.until(lambda: self.position() == self.ends, f"not read: {self.position()} of {self.ends}")

    async def end(self, name: str = "a", seconds: float = PATIENCE_S) -> int:
        self.workers[name].terminate()
        return await self.exit_code(name, seconds)

    async def exit_code(self, name: str = "a", seconds: float = PATIENCE_S) -> int:
        worker = self.workers[name]
        await self.until(lambda: worker.poll() is not None, f"{name} does not end", seconds)
        return worker.wait()

    def assert_exact(self) -> None:
        """The last snapshots are what an undisturbed reader of the whole log would have."""
        for partition, end in enumerate(self.ends):
            expected = 0
            for offset in range(end):
                expected = chain(expected, offset)
            snapshot = self.store.latest(f"{self.topic}-{partition}")
            assert snapshot is not None
            assert (snapshot.offset, snapshot.arrays["state"].tolist()) == (end, [end, expected])

    def count(self, name: str, *of: str) -> int:
        """Sum of the counters of one worker or of several, as in "ab"."""
        return sum(self.status(one).counts.get(key, 0) for one in of for key in [name])


@asynccontextmanager
async def opened(kafka: str, topic: str, folder: Path) -> AsyncIterator[Group]:
    """A group that is closed whatever happens."""
    group = Group(kafka, topic, folder)
    await group.open()
    try:
        yield group
    finally:
        await group.close()

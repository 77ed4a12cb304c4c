"""The life of shards on a real broker: nothing lost, nothing twice, whatever happens to workers and broker."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete  # type: ignore[import-untyped]  # no py.typed

from stream.snapshots import SnapshotStore
from tests.brokers import KafkaBroker
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
                cwd=Path(__file__).parents[2],
            )
        return self.workers[name]

    def log(self, name: str = "a") -> str:
        return (self.folder / f"log-{name}.txt").read_text()

    def status(self, name: str = "a") -> Status:
        with suppress(FileNotFoundError):
            return msgspec.json.decode((self.folder / f"status-{name}.json").read_bytes(), type=Status)
        return Status({}, {}, [], False, 0)

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                logs = "\n".join(f"--- {name}\n{self.log(name)[-3000:]}" for name in self.workers)
                raise TimeoutError(f"{what}\n{logs}")
            await asyncio.sleep(0.02)

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
        await self.until(lambda: [len(self.status(name).next) for name in "ab"] == [2, 2], "no two owners", 40)

    async def until_moved(self, name: str, count: int) -> None:
        """One worker has processed so many more records."""
        at = self.count("records", name)
        await self.until(lambda: self.count("records", name) > at + count, f"{name} does not read on")

    async def until_read(self, seconds: float = 20.0) -> None:
        await self.until(lambda: self.position() == self.ends, f"not read: {self.position()} of {self.ends}", seconds)

    async def end(self, name: str = "a", seconds: float = 10.0) -> int:
        self.workers[name].terminate()
        return await self.exit_code(name, seconds)

    async def exit_code(self, name: str = "a", seconds: float = 10.0) -> int:
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


@pytest.fixture
async def group(kafka: str, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Group]:
    group = Group(kafka, topic_prefix + "e", tmp_path)
    await group.open()
    yield group
    await group.close()


async def test_workers_join_and_leave_and_every_record_counts_once(group: Group) -> None:
    async with group.writing():
        group.start("a")
        await group.until_moved("a", 2000)
        group.start("b")
        await group.until_shared()
        await group.until_moved("a", 1000)
        await group.until_moved("b", 1000)
        assert await group.end("a") == 0
        await group.until(lambda: len(group.status("b").next) == 4, "b does not take over")
        await group.until_moved("b", 2000)
    await group.until_read()
    assert await group.end("b") == 0
    group.assert_exact()
    assert group.count("records", "a", "b") == sum(group.ends)
    assert group.count("dropped", "a", "b") == group.count("gaps", "a", "b") == 0


async def test_forced_rejoins_lose_nothing_and_leave_no_gaps(group: Group) -> None:
    """Also what is fetched after the seek and before flow resumes is kept."""
    async with group.writing():
        group.start(resume_s=0.1)
        for n in range(12):
            await group.until_moved("a", 500)
            (group.folder / "rejoin").touch()
            await group.until(lambda n=n: group.log().count("Successfully synced") > n + 1, "no rejoin")  # type: ignore[misc]
    await group.until_read()
    assert await group.end() == 0
    group.assert_exact()
    assert group.log().count("Successfully synced") > 12
    assert group.count("records", "a") == sum(group.ends)
    assert group.count("gaps", "a") == group.count("dropped", "a") == 0


async def test_slow_loads_are_overtaken_by_newer_assignments(group: Group) -> None:
    """Loading takes longer than the session and is never finished before somebody else joins."""
    await group.write(8000)
    for name in "abc":
        group.start(name, load_s=1.0, session_s=2.0)
        await group.until(lambda name=name: "(Re-)joining" in group.log(name), "no join")  # type: ignore[misc]
        await group.until(lambda name=name: "Successfully synced" in group.log(name), "no assignment")  # type: ignore[misc]
    await group.until_read(40)
    assert await group.end("b") == 0
    await group.write(4000)
    await group.until_read(40)
    assert await group.end("a") == await group.end("c") == 0
    group.assert_exact()


async def test_error_that_ends_the_heartbeats_is_followed_by_a_rejoin(group: Group) -> None:
    group.start(session_s=2.0)
    for _ in range(2):
        await group.write(2000)
        await group.until_read()
        (group.folder / "heartbeat-error").touch()
        joined = group.log().count("Successfully synced")
        await group.until(lambda joined=joined: group.log().count("Successfully synced") > joined, "it stays out")  # type: ignore[misc]
    await group.write(2000)
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_group_offsets_are_those_of_the_snapshots(group: Group) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    admin = AIOKafkaAdminClient(bootstrap_servers=group.kafka)
    await admin.start()
    committed = await admin.list_consumer_group_offsets(group.topic + "-g")
    await admin.close()
    assert {tp.partition: meta.offset for tp, meta in committed.items()} == dict(enumerate(group.ends))


async def test_slow_stage_bounds_what_waits_in_memory(group: Group) -> None:
    await group.write(40_000)
    group.start(delay_s=0.03, fetch_records=50)
    most = 0

    def far_enough() -> bool:
        nonlocal most
        most = max(most, group.status().buffered)
        return group.processed() > 3_000

    await group.until(far_enough, "it does not get on")
    assert group.processed() < 20_000
    assert 100 < most <= (8 + 3 * PARTITIONS) * 50


async def test_stage_that_is_not_ready_gets_nothing_and_then_everything(group: Group) -> None:
    await group.write(2000)
    group.start(gated=True)
    await group.until(lambda: group.status().buffered > 0, "nothing waits at the gate")
    await asyncio.sleep(0.3)
    assert group.processed() <= 0
    (group.folder / "gate").touch()
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_killed_worker_goes_on_from_its_snapshot(group: Group) -> None:
    async with group.writing():
        worker = group.start(session_s=2.0)
        for _ in range(3):
            await group.until_moved("a", 1000)
            worker.kill()
            worker.wait()
            worker = group.start(session_s=2.0)
    await group.until_read(30)
    await group.end()
    group.assert_exact()


async def test_frozen_worker_comes_back_and_spoils_nothing(group: Group) -> None:
    async with group.writing():
        frozen = group.start("a", session_s=2.0)
        group.start("b", session_s=2.0)
        await group.until_shared()
        await group.until_moved("a", 500)
        frozen.send_signal(signal.SIGSTOP)
        await group.until(lambda: len(group.status("b").next) == 4, "b does not take over")
        await group.until_moved("b", 2000)
        frozen.send_signal(signal.SIGCONT)
        await group.until_shared()
    await group.until_read()
    await group.end("a")
    await group.end("b")
    group.assert_exact()


async def test_bug_in_a_stage_stops_the_worker_and_loses_nothing(group: Group) -> None:
    await group.write(4000)
    group.start(fail="crash", fail_at=600)
    assert await group.exit_code() != 0
    assert "a bug" in group.log()
    group.start()
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_server_without_answer_is_waited_for(group: Group) -> None:
    await group.write(4000)
    (group.folder / "down").touch()
    group.start(fail="down", fail_at=650)
    await group.until(lambda: group.count("reloads", "a") > 3, "it does not try again")
    (group.folder / "down").unlink()
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_store_of_snapshots_without_answer_is_waited_for(group: Group) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    (group.folder / "no-disk").touch()
    group.start()
    await group.write(400)
    await group.until(lambda: group.log().count("snapshots_unreadable") > 1, "it does not try again")
    assert group.processed() <= 0
    (group.folder / "no-disk").unlink()
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_store_whose_snapshots_are_all_damaged_stops_the_worker(group: Group) -> None:
    """To start without what was learned would lose it."""
    await group.write(400)
    group.start()
    await group.until_read()
    await group.end()
    for found in group.store.generations(f"{group.topic}-1"):
        (group.folder / "snapshots" / found.name).write_bytes(b"nothing")
    group.start()
    assert await group.exit_code(seconds=20) != 0
    assert f"snapshots of {group.topic}-1 can be read" in group.log()


async def test_hung_stage_delays_neither_the_group_nor_the_shutdown(group: Group) -> None:
    await group.write(4000)
    group.start("a", fail="hang", fail_at=600, release_s=1.0, exit_s=1.0)
    await group.until(lambda: (group.folder / "failed-hang").exists(), "it does not hang")
    started = time.monotonic()
    group.start("b")
    await group.until(lambda: len(group.status("b").next) == 2, "b waits for the hung stage")
    assert time.monotonic() - started < 15, "two heartbeats and a's release; the group itself would wait 20 s"
    started = time.monotonic()
    await group.end("a")
    assert time.monotonic() - started < 6
    await group.until_read()
    await group.end("b")
    group.assert_exact()


async def test_deleted_records_are_counted_as_lost(group: Group) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    before = group.ends[0]
    await group.write(4000)
    admin = AIOKafkaAdminClient(bootstrap_servers=group.kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(group.topic, 0): RecordsToDelete(before_offset=before + 300)})
    await admin.close()
    group.start()
    await group.until_read()
    assert [(loss.first, loss.end, loss.proven) for loss in group.status().losses] == [(before, before + 300, True)]
    assert group.count("lost", "a") == 300


async def test_new_group_starts_at_the_first_record_that_is_left(group: Group) -> None:
    await group.write(4000)
    admin = AIOKafkaAdminClient(bootstrap_servers=group.kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(group.topic, 0): RecordsToDelete(before_offset=300)})
    await admin.close()
    group.start()
    await group.until_read()
    assert group.count("lost", "a") == group.count("gaps", "a") == 0
    assert group.count("records", "a") == 3700


async def _write_with_markers(group: Group) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=group.kafka, transactional_id=group.topic)
    await producer.start()
    for _ in range(2):  # each commit leaves a marker, which takes an offset and is never delivered
        async with producer.transaction():
            for _ in range(10):
                await producer.send_and_wait(group.topic, b"x", partition=0)
    await producer.stop()


async def test_hole_that_the_broker_does_not_explain_stops_the_worker(group: Group) -> None:
    await _write_with_markers(group)
    group.start()
    assert await group.exit_code() != 0
    assert f"1 records of {group.topic}-0 are missing: offsets 10 to 10" in group.log()


async def test_hole_that_the_broker_does_not_explain_can_be_accepted(group: Group) -> None:
    await _write_with_markers(group)
    group.start(on_gap="accept")
    await group.until(lambda: group.position()[0] == 21, "it stays before the hole")
    assert [(loss.first, loss.end, loss.proven) for loss in group.status().losses] == [(10, 11, False)]


async def test_snapshot_beyond_the_log_stops_the_worker(group: Group) -> None:
    await group.write(400)
    group.store.write(f"{group.topic}-1", 5000, {"state": np.array([5000, 1], np.int64)})
    group.start()
    assert await group.exit_code() != 0
    assert "the topic was made anew or the broker lost records" in group.log()


async def test_broker_frozen_during_a_rebalance(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    group = Group(kafka_broker.bootstrap, "e", tmp_path)
    await group.open()
    try:
        await group.write(4000)
        group.start("a", session_s=3.0)
        await group.until_read()
        assert group.status("a").may_write
        group.start("b", session_s=3.0)
        await group.until(lambda: "(Re-)joining" in group.log("b"), "b does not join")
        kafka_broker.pause()
        await group.until(lambda: not group.status("a").may_write, "a is not fenced off")
        await asyncio.sleep(3)
        kafka_broker.resume()
        await group.until_shared()
        await group.write(4000)
        await group.until_read(30)
        await group.end("a")
        await group.end("b")
        group.assert_exact()
    finally:
        await group.close()


async def test_broker_killed_and_started_again(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    group = Group(kafka_broker.bootstrap, "e", tmp_path)
    await group.open()
    try:
        await group.write(4000)
        group.start(session_s=3.0)
        await group.until(lambda: group.processed() > 100, "it does not read")
        kafka_broker.kill()
        await group.until(lambda: not group.status().may_write, "it is not fenced off")
        kafka_broker.start()
        await group.write(4000)
        await group.until_read(40)
        await group.end()
        group.assert_exact()
    finally:
        await group.close()


async def test_terminated_while_the_broker_is_frozen(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    group = Group(kafka_broker.bootstrap, "e", tmp_path)
    await group.open()
    try:
        await group.write(4000)
        group.start(snapshot_every_s=60)
        await group.until_read()
        kafka_broker.pause()
        assert await group.end(seconds=10) == 0
        group.assert_exact()
    finally:
        kafka_broker.resume()
        await group.close()

"""The batch transport by itself: what an agent gets, and what never raises."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import faust
import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # no py.typed
from aiokafka.consumer.fetcher import FetchResult  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import CorruptRecordException  # type: ignore[import-untyped]  # no py.typed

from stream.consumer_thread import FULL_WAIT_MS, PARTIAL_WAIT_MS
from stream.transport import TP, BatchConsumer, BatchTransport, Fetch, batch_topic, faust_settings
from tests.patience import PATIENCE_S


class Reader:
    """An app that keeps every fetch it gets; reads from ``positions``."""

    def __init__(self, kafka: str, topic: str, folder: Path) -> None:
        self.kafka, self.topic = kafka, topic
        self.fetches: list[Fetch] = []
        self.positions = {TP(topic, 0): (0, 7), TP(topic, 1): (0, 8)}
        self.app = faust.App(
            topic,
            broker=f"kafka://{kafka}",
            datadir=str(folder),
            web_enabled=False,
            **faust_settings(fetch_records=100),
        )
        self.app.transport = BatchTransport(self.app, lambda: self.positions)

        @self.app.agent(batch_topic(self.app, topic), name="read")
        async def read(stream: faust.StreamT[Fetch]) -> None:
            async for fetch in stream.noack():  # type: ignore[attr-defined]  # the abstract twin lacks it
                self.fetches.append(fetch)

    @property
    def consumer(self) -> BatchConsumer:
        consumer = self.app.consumer
        assert isinstance(consumer, BatchConsumer)
        return consumer

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while sum(len(fetch.records) for fetch in self.fetches) < count:  # noqa: ASYNC110  # an agent appends
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.app.finalize()
        await self.app.start()
        try:
            yield
        finally:
            await self.app.stop()


@pytest.fixture
async def reader(kafka: str, topic_prefix: str, tmp_path: Path) -> Reader:
    """1000 records in each of two partitions wait for it."""
    topic = topic_prefix + "t"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True) as producer:
        for offset in range(1000):
            for partition in (0, 1):
                await producer.send(topic, b"%d" % offset, partition=partition)
    return Reader(kafka, topic, tmp_path)


async def test_fetches_are_bounded_ordered_numbered_and_of_the_right_epoch(reader: Reader) -> None:
    async with reader.running():
        await reader.until(2000)
    for partition, epoch in ((0, 7), (1, 8)):
        mine = [fetch for fetch in reader.fetches if fetch.tp.partition == partition]
        assert [record.offset for fetch in mine for record in fetch.records] == list(range(1000))
        assert [(fetch.epoch, fetch.number) for fetch in mine] == [(epoch, number) for number in range(len(mine))]
        assert {fetch.highwater for fetch in mine} == {1000}
    assert max(len(fetch.records) for fetch in reader.fetches) <= 100


async def test_seek_starts_a_new_epoch(reader: Reader) -> None:
    async with reader.running():
        await reader.until(2000)
        await reader.consumer.seek_shards({TP(reader.topic, 0): (900, 9), TP("not ours", 0): (1, 10)})
        await reader.until(2100)
    again = [fetch for fetch in reader.fetches if fetch.epoch == 9]
    assert [record.offset for fetch in again for record in fetch.records] == list(range(900, 1000))
    assert again[0].number == 0


async def test_commits_say_whether_they_were_possible(reader: Reader) -> None:
    async with reader.running():
        await reader.until(1)
        assert reader.consumer.generation > 0
        assert reader.consumer.contact_age() < PATIENCE_S
        assert await reader.consumer.commit_exactly({TP(reader.topic, 0): 500, TP("not ours", 3): 1}, PATIENCE_S)
        assert not await reader.consumer.commit_exactly({TP("not ours", 3): 1}, 5)
        assert not await reader.consumer.commit_exactly({}, 5)
        assert not await reader.consumer.commit()
        reader.consumer._thread._ensure_consumer()._coordinator.generation = -1
        assert not await reader.consumer.commit_exactly({TP(reader.topic, 0): 600}, 5)
    assert not await reader.consumer.commit_exactly({TP(reader.topic, 0): 600}, 0.1)


async def test_log_start_is_told(reader: Reader) -> None:
    async with reader.running():
        await reader.until(1)
        assert await reader.consumer.log_start(TP(reader.topic, 1), PATIENCE_S) == 0


async def test_a_damaged_record_stops_the_app(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """In aiokafka's own task it would end the fetching, and nobody would hear of it."""

    def damaged(*_: Any) -> None:
        raise CorruptRecordException("Invalid CRC")

    async with reader.running():
        await reader.until(2000)
        monkeypatch.setattr(FetchResult, "getall", damaged)
        async with AIOKafkaProducer(bootstrap_servers=reader.kafka) as producer:
            await producer.send_and_wait(reader.topic, b"more", partition=0)
        async with asyncio.timeout(PATIENCE_S):
            while not reader.app.crashed:  # noqa: ASYNC110  # Faust sets it
                await asyncio.sleep(0.01)
    assert isinstance(reader.app.crash_reason, CorruptRecordException)


async def test_only_a_fetch_that_leaves_no_partition_out_may_wait_long(reader: Reader) -> None:
    """There is one fetch at a time: what is left out of it, as there is no room for more, waits for its end."""
    sent: list[tuple[int, set[int]]] = []
    both = {TP(reader.topic, 0), TP(reader.topic, 1)}

    async def until(wait_ms: int, partitions: set[int]) -> None:
        sent.clear()
        async with asyncio.timeout(PATIENCE_S):
            while not any(asked == partitions and ms == wait_ms for ms, asked in sent):  # noqa: ASYNC110  # a thread appends
                await asyncio.sleep(0.01)

    async with reader.running():
        await reader.until(2000)
        fetcher = reader.consumer._thread._ensure_consumer()._fetcher
        fetch = fetcher._proc_fetch_request

        async def fetch_and_note(assignment: Any, node: int, request: Any) -> Any:
            sent.append((fetcher._fetch_max_wait_ms, {entry[0] for _, entries in request.topics for entry in entries}))
            return await fetch(assignment, node, request)

        fetcher._proc_fetch_request = fetch_and_note
        await until(FULL_WAIT_MS, {0, 1})
        reader.consumer.pause_partitions({TP(reader.topic, 1)})  # as Faust does while an agent's queue is full
        async with AIOKafkaProducer(bootstrap_servers=reader.kafka) as producer:
            await producer.send_and_wait(reader.topic, b"more", partition=1)
            await until(FULL_WAIT_MS, {0, 1})
            assert all(asked == {0, 1} for _, asked in sent), "what waits for the agent leaves nothing out"
            for answer in [await producer.send(reader.topic, b"more", partition=1) for _ in range(250)]:
                await answer
            await until(PARTIAL_WAIT_MS, {0})
            await producer.send_and_wait(reader.topic, b"more", partition=0)
            await reader.until(2001)
        reader.consumer.resume_partitions(both)
        await reader.until(2252)
        await until(FULL_WAIT_MS, {0, 1})
        assert not any(len(asked) < 2 and ms > PARTIAL_WAIT_MS for ms, asked in sent)
    assert [r.offset for fetch in reader.fetches if fetch.tp.partition == 1 for r in fetch.records] == list(range(1251))


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (faust.SSLCredentials(ssl.create_default_context()), {"_security_protocol": "SSL"}),
        (
            faust.SASLCredentials(username="u", password="p", mechanism="PLAIN"),
            {"_security_protocol": "SASL_PLAINTEXT", "_sasl_plain_username": "u", "_sasl_plain_password": "p"},
        ),
    ],
)
async def test_credentials_reach_the_client(tmp_path: Path, credentials: Any, expected: dict[str, str]) -> None:
    app = faust.App("x", broker_credentials=credentials, datadir=str(tmp_path), **faust_settings())
    app.transport = BatchTransport(app, dict)
    app.finalize()
    thread = app.consumer._thread  # type: ignore[attr-defined]  # not connected: it would need a server with TLS
    client = thread._create_worker_consumer(app.transport)
    try:
        assert {name: getattr(client._client, name) for name in expected} == expected
    finally:
        await client.stop()
        thread.thread_loop.close()

"""One contract of the producer, for the demo's embedded broker and a real Kafka."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import NamedTuple

import pytest
from aiokafka import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed
from aiokafka.partitioner import murmur2  # type: ignore[import-untyped]  # no py.typed

from stream.demo.embedded import EmbeddedKafka
from stream.errors import BadInputError
from stream.producer import EventProducer
from stream.topics import create, layout
from tests.records import read_events

NOW_MS = 1_700_000_000_123
VIEW = {"event_name": "view_item", "user_id": "u1", "item_id": "i1"}


class Log(NamedTuple):
    """A topic of a broker."""

    bootstrap: str
    topic: str

    async def records(self) -> list[ConsumerRecord]:
        """What it holds; those of a partition in order."""
        return await read_events(self.bootstrap, self.topic)

    async def numbers(self) -> list[int]:
        """The numbers of its events, which are all in one partition."""
        return [json.loads(record.value)["event_params"]["i"] for record in await self.records()]


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def log(request: pytest.FixtureRequest, topic_prefix: str) -> AsyncIterator[Log]:
    (events, *_) = layout(prefix=topic_prefix)
    if request.param == "embedded":
        with EmbeddedKafka({events.name: events.partitions}) as embedded:
            yield Log(embedded.bootstrap, events.name)
    else:
        # as the embedded one, it keeps the times that it is given; that ours do not has a test of its own
        times = {"message.timestamp.type": "CreateTime"}
        bootstrap = request.getfixturevalue("kafka")
        await create(bootstrap, [replace(events, config={**events.config, **times})])
        yield Log(bootstrap, events.name)


async def test_records_stand_where_every_kafka_client_would_put_them(log: Log) -> None:
    users = [f"user-{i}" for i in range(50)] + ["ünïcode", "x"]
    async with EventProducer(*log) as producer:
        receipts = {user: await producer.send({**VIEW, "user_id": user}, timestamp_ms=NOW_MS) for user in users}
    for user, receipt in receipts.items():
        assert receipt.partition == (murmur2(user.encode()) & 0x7FFFFFFF) % 4
    records = await log.records()
    assert {(r.partition, r.offset): r.key.decode() for r in records} == {tuple(r): u for u, r in receipts.items()}
    assert {r.timestamp for r in records} == {NOW_MS}


async def test_send_soon_keeps_each_users_order_with_few_in_flight(log: Log) -> None:
    async with EventProducer(*log, max_in_flight=10) as producer:
        for i in range(400):
            await producer.send_soon({**VIEW, "user_id": f"u{i % 3}", "event_params": {"i": i}})
            assert len(producer._pending) <= 10
    seen: dict[bytes, list[int]] = {}
    for record in await log.records():
        seen.setdefault(record.key, []).append(json.loads(record.value)["event_params"]["i"])
    assert seen == {f"u{u}".encode(): list(range(u, 400, 3)) for u in range(3)}


async def test_every_event_arrives_once_and_in_order(log: Log) -> None:
    async with EventProducer(*log) as producer:
        for i in range(3_000):
            await producer.send_soon({**VIEW, "event_params": {"i": i}})
    assert await log.numbers() == list(range(3_000))


async def test_an_event_of_a_megabyte_arrives(log: Log) -> None:
    async with EventProducer(*log) as producer:
        await producer.send({**VIEW, "event_params": {"i": 0, "text": "x" * 1_048_000}})
    assert await log.numbers() == [0]


async def test_a_bad_event_does_not_disturb_the_others(log: Log) -> None:
    async with EventProducer(*log) as producer:
        await producer.send_soon(VIEW)
        with pytest.raises(BadInputError):
            await producer.send_soon({"event_name": "view_item"})
        await producer.send_soon(VIEW)
    assert len(await log.records()) == 2

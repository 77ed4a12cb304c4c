"""What only a real Apache Kafka can show of the producer: acknowledged means kept, whatever the broker goes through."""

import asyncio
import json

import pytest
from aiokafka import AIOKafkaConsumer  # type: ignore[import-untyped]  # no py.typed

from stream.errors import UnavailableError
from stream.producer import EventProducer
from stream.topics import create, layout
from tests.brokers import KafkaBroker
from tests.patience import PATIENCE_S
from tests.records import read_events

VIEW = {"event_name": "view_item", "user_id": "u1", "item_id": "i1"}


async def _numbers(bootstrap: str, topic: str) -> list[int]:
    """The events' numbers; all are in one partition."""
    return [json.loads(record.value)["event_params"]["i"] for record in await read_events(bootstrap, topic)]


async def test_the_broker_stamps_records_so_that_retention_counts_from_arrival(kafka: str, topic_prefix: str) -> None:
    (events, *_) = layout(prefix=topic_prefix)
    await create(kafka, [events])
    async with EventProducer(kafka, events.name) as producer:
        await producer.send({**VIEW, "event_params": {"i": 0}, "event_timestamp": 10**15}, timestamp_ms=10**12)
    async with AIOKafkaConsumer(events.name, bootstrap_servers=kafka, auto_offset_reset="earliest") as consumer:
        record = await asyncio.wait_for(consumer.getone(), PATIENCE_S)
    assert record.timestamp_type == 1
    assert record.timestamp > 1.7e12


async def test_nothing_is_lost_or_doubled_while_the_broker_freezes_and_dies(
    kafka_broker: KafkaBroker, topic_prefix: str
) -> None:
    (events, *_) = layout(prefix=topic_prefix)
    await create(kafka_broker.bootstrap, [events])
    async with EventProducer(kafka_broker.bootstrap, events.name, max_in_flight=200) as producer:

        async def publish(numbers: range) -> None:
            for i in numbers:
                await producer.send_soon({**VIEW, "event_params": {"i": i}})

        await publish(range(1_100))
        kafka_broker.pause()  # with some in flight, and nothing else runs meanwhile
        frozen = asyncio.create_task(publish(range(1_100, 2_000)))
        done, _ = await asyncio.wait([frozen], timeout=0.5)
        assert not done, "with 200 in flight it must wait for the frozen broker"
        await asyncio.to_thread(kafka_broker.resume)
        await frozen
        await producer.flush()
        dead = asyncio.create_task(publish(range(2_000, 3_000)))
        await asyncio.to_thread(kafka_broker.kill)
        await asyncio.to_thread(kafka_broker.start)
        await dead
    assert await _numbers(kafka_broker.bootstrap, events.name) == list(range(3_000))


async def test_a_broker_that_stays_away_is_an_error_in_time(kafka_broker: KafkaBroker, topic_prefix: str) -> None:
    (events, *_) = layout(prefix=topic_prefix)
    await create(kafka_broker.bootstrap, [events])
    producer = EventProducer(kafka_broker.bootstrap, events.name, timeout_s=1)
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(UnavailableError, match="acknowledged nothing for 1 s"):
            await _publish_to_the_dead(producer, kafka_broker)


async def _publish_to_the_dead(producer: EventProducer, broker: KafkaBroker) -> None:
    async with producer:
        await asyncio.to_thread(broker.kill)
        with pytest.raises(UnavailableError, match="acknowledged nothing for 1 s"):
            await producer.send(VIEW)
        await producer.send_soon(VIEW)

"""Topic ``items`` for commands: put items, withdraw them, read what stands there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.catalogue import CatalogueItem, decode_record
from stream.errors import UnavailableError
from stream.kafka import careful_producer, groupless_consumer
from stream.settings import Settings

AT_ONCE: Final = 1_000  # records on their way
READ_S: Final = 30.0  # without a record that is there: the broker is away


async def write_items(
    settings: Settings,
    items: Iterable[CatalogueItem],
    withdrawn: Iterable[str] = (),
    done: Callable[[int], None] = lambda _: None,
) -> int:
    """Write items, and records without value for withdrawn ones; returns how many, once all are acknowledged.

    Raises
    ------
    UnavailableError
        If the broker does not take one.
    """
    topic = settings.topic("items")
    records = ((item.item_id, msgspec.json.encode(item)) for item in items)
    gone = ((name, None) for name in withdrawn)
    written = 0
    try:
        async with careful_producer(settings, "items") as producer:
            waiting = []
            for each in (records, gone):
                for name, value in each:
                    waiting.append(await producer.send(topic, value, key=name.encode()))
                    if len(waiting) == AT_ONCE:
                        await asyncio.gather(*waiting)
                        written += len(waiting)
                        waiting = []
                        done(written)
            await asyncio.gather(*waiting)
            written += len(waiting)
            done(written)
    except (KafkaError, OSError) as error:
        raise UnavailableError(f"Kafka at {settings.kafka} did not take the items: {error!r}") from error
    return written


async def read_items(settings: Settings, done: Callable[[int], None] = lambda _: None) -> dict[str, CatalogueItem]:
    """Everything the topic says now, by id; records that are not valid are left out, as workers leave them out.

    Tells now and then how many items there are so far.

    Raises
    ------
    UnavailableError
        If the broker does not answer.
    """
    found: dict[str, CatalogueItem] = {}
    try:
        consumer = await groupless_consumer(settings, [settings.topic("items")])
        try:
            ends = await consumer.end_offsets(consumer.assignment())
            waiting = {partition for partition, end in ends.items() if end > 0}
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(READ_S) as patience:
                while waiting := {each for each in waiting if await consumer.position(each) < ends[each]}:
                    for records in (await consumer.getmany(*waiting, timeout_ms=200)).values():
                        patience.reschedule(loop.time() + READ_S)
                        for record in records:
                            _take(found, record.key, record.value)
                        done(len(found))
        finally:
            await consumer.stop()
    except (KafkaError, OSError) as error:  # a timeout is an OSError
        raise UnavailableError(f"Kafka at {settings.kafka} does not answer: {error!r}") from error
    return found


def _take(found: dict[str, CatalogueItem], key: bytes | None, value: bytes | None) -> None:
    try:
        name, item = decode_record(key, value)
    except ValueError:
        return
    if item is None:
        found.pop(name, None)
    else:
        found[name] = item

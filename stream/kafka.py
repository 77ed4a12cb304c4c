"""How every part of Rivulet connects to Kafka: one place for addresses, TLS and SASL."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final

from aiokafka import (  # type: ignore[import-untyped]  # no py.typed
    AIOKafkaConsumer,
    AIOKafkaProducer,
    TopicPartition,
)

from stream.errors import ConfigurationError
from stream.settings import Settings

FETCH_MAX_WAIT_MS: Final = 250  # what the broker has is answered at once; requests beside the fetch wait for it


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS context where the protocol asks for one."""
    if not settings.kafka_security.endswith("SSL"):
        return None
    try:
        return ssl.create_default_context(cafile=settings.kafka_ca)
    except OSError as error:
        raise ConfigurationError(f"RIVULET_KAFKA_CA={settings.kafka_ca}: {error}") from error


def client_options(settings: Settings) -> dict[str, Any]:
    """Security options as aiokafka's clients take them."""
    options: dict[str, Any] = {"security_protocol": settings.kafka_security}
    context = ssl_context(settings)
    if context is not None:
        options["ssl_context"] = context
    if settings.kafka_security.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_username
        options["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return options


@asynccontextmanager
async def careful_producer(settings: Settings) -> AsyncIterator[Any]:
    """An idempotent producer that waits for all replicas, for the few records of a command."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka, acks="all", enable_idempotence=True, **client_options(settings)
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def groupless_consumer(settings: Settings, topics: Iterable[str]) -> Any:
    """A started consumer without a group that has every partition of some topics and stands at their beginning."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        **client_options(settings),
    )
    try:
        await consumer.start()
        partitions = [
            TopicPartition(topic, partition)
            for topic in topics
            for partition in sorted(consumer.partitions_for_topic(topic) or await _known(consumer, topic))
        ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
    except BaseException:
        await consumer.stop()
        raise
    return consumer


async def _known(consumer: Any, topic: str) -> set[int]:
    await consumer._client.add_topic(topic)
    await consumer._client.force_metadata_update()
    return set(consumer.partitions_for_topic(topic) or ())

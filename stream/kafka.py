"""How every part of Rivulet connects to Kafka: one place for addresses, TLS and SASL."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aiokafka import (  # type: ignore[import-untyped]  # no py.typed
    AIOKafkaConsumer,
    AIOKafkaProducer,
    TopicPartition,
)
from aiokafka.abc import AbstractTokenProvider  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    ClusterAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from stream.contact import missing, why_not
from stream.errors import ConfigurationError, UnavailableError
from stream.settings import Settings

_NOT_ALLOWED: Final = (TopicAuthorizationFailedError, ClusterAuthorizationFailedError)
FETCH_MAX_WAIT_MS: Final = 250  # what the broker has is answered at once; requests beside the fetch wait for it


def ssl_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS context where the protocol asks for one."""
    if not settings.kafka_security.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca)
    except OSError as error:
        raise ConfigurationError(f"RIVULET_KAFKA_CA={settings.kafka_ca}: {_reason(error)}") from error
    context.check_hostname = settings.kafka_check_hostname
    if settings.kafka_certificate is not None:
        password = settings.kafka_key_password.get_secret_value()
        try:
            # with an empty password OpenSSL refuses a locked key; with none it would ask for one on the terminal
            context.load_cert_chain(settings.kafka_certificate, settings.kafka_key, password)
        except OSError as error:
            raise ConfigurationError(
                f"RIVULET_KAFKA_CERTIFICATE={settings.kafka_certificate}, RIVULET_KAFKA_KEY={settings.kafka_key or ''}:"
                f" {_reason(error)}; a locked key needs RIVULET_KAFKA_KEY_PASSWORD"
            ) from error
    return context


def client_options(settings: Settings) -> dict[str, Any]:
    """Security options as aiokafka's clients take them."""
    options: dict[str, Any] = {"security_protocol": settings.kafka_security}
    context = ssl_context(settings)
    if context is not None:
        options["ssl_context"] = context
    if settings.kafka_security.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        if settings.kafka_sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = token_source(settings)
        else:
            options["sasl_plain_username"] = settings.kafka_username
            options["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return options


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # no py.typed
    """A token from a file that something else keeps fresh: a projected token of Kubernetes, a sidecar, a cron job."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """Read the token as it is now: a worker logs in again whenever a connection is lost."""
        return self._path.read_text(encoding="ascii").strip()


def token_source(settings: Settings) -> TokenFile:
    """Where tokens for OAUTHBEARER come from.

    Raises
    ------
    ConfigurationError
        If no file is set, or it cannot be read.
    """
    path = settings.kafka_token_file
    if path is None:
        raise ConfigurationError("SASL mechanism OAUTHBEARER needs RIVULET_KAFKA_TOKEN_FILE, a file with the token")
    try:
        path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"RIVULET_KAFKA_TOKEN_FILE={path}: {error}") from error
    return TokenFile(path)


@asynccontextmanager
async def careful_producer(settings: Settings, *roles: str) -> AsyncIterator[Any]:
    """An idempotent producer that waits for all replicas, for the few records of a command to some topics.

    Raises
    ------
    ConfigurationError
        If a topic is missing, the login or a record refused; also what comes of sending within the block.
    UnavailableError
        If Kafka does not answer.
    """
    options = client_options(settings)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka, acks="all", enable_idempotence=True, **options)
    try:
        try:
            await producer.start()
        except (KafkaError, OSError) as error:
            raise await why_not(settings.kafka, **options) from error
        there = (await producer.client.fetch_all_metadata()).topics() if roles else ()
        for role in roles:  # sending would wait for it for long
            if settings.topic(role) not in there:
                raise missing(settings.topic(role))
        yield producer
    except _NOT_ALLOWED as error:
        raise ConfigurationError(
            f"Kafka at {settings.kafka} does not allow this ({error!r}): `rivulet doctor` tells what is missing"
        ) from error
    except KafkaError as error:
        raise UnavailableError(f"Kafka at {settings.kafka} did not take it: {error!r}") from error
    finally:
        await producer.stop()


def _reason(error: OSError) -> str:
    return error.strerror or getattr(error, "reason", "") or str(error)


async def groupless_consumer(settings: Settings, topics: Iterable[str]) -> Any:
    """A started consumer without a group that has every partition of some topics and stands at their beginning.

    Raises
    ------
    ConfigurationError
        If the login is refused, or a topic missing.
    UnavailableError
        If Kafka does not answer.
    """
    options = client_options(settings)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
        **options,
    )
    try:
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            raise await why_not(settings.kafka, **options) from error
        partitions = []
        for topic in topics:
            found = consumer.partitions_for_topic(topic) or await _known(consumer, topic)
            if not found:
                raise missing(topic)
            partitions += [TopicPartition(topic, partition) for partition in sorted(found)]
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

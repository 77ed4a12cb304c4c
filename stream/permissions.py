"""What this login may do on Kafka: asked of the broker itself, without reading or writing anything.

Since Kafka 2.3 a broker tells, with the metadata of a topic, which operations the asking login is allowed. aiokafka
does not know this version of the request, so it is described here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.client import AIOKafkaClient, CoordinationType  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.api import Request, RequestStruct, Response  # type: ignore[import-untyped]  # no py.typed
from aiokafka.protocol.group import HeartbeatRequest  # type: ignore[import-untyped]  # no py.typed
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String  # type: ignore[import-untyped]  # no py.typed

from stream.contact import PATIENCE_MS, dial, missing, why_not
from stream.errors import ConfigurationError
from stream.kafka import client_options
from stream.settings import Settings

READ: Final = "Read"
WRITE: Final = "Write"
# by role of the topic; each of them implies Describe
WORKER: Final[Mapping[str, tuple[str, ...]]] = {
    "events": (READ, WRITE),
    "items": (READ,),
    "offers": (READ,),
    "models": (READ, WRITE),
    "covisits": (READ, WRITE),
    "global": (READ, WRITE),
    "served": (WRITE,),
    "messages": (WRITE,),
    "privacy": (READ,),
    "dlq": (WRITE,),
}
SHOP: Final[Mapping[str, tuple[str, ...]]] = {"events": (WRITE,), "items": (WRITE,), "offers": (WRITE,)}
_BITS: Final = {READ: 3, WRITE: 4}  # org.apache.kafka.common.acl.AclOperation
_UNKNOWN: Final = -(2**31)
_HIDDEN_TOPIC: Final = TopicAuthorizationFailedError.errno


class _MetadataResponse(Response):  # type: ignore[misc]  # no py.typed
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String()), ("port", Int32), ("rack", String()))),
        ("cluster_id", String()),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String()),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("operations", Int32),
    )


class _MetadataQuestion(RequestStruct):  # type: ignore[misc]  # no py.typed
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", Array(String())),
        ("allow_auto_topic_creation", Boolean),
        ("cluster_operations", Boolean),
        ("topic_operations", Boolean),
    )


class _DescribeTopics(Request[_MetadataQuestion]):  # type: ignore[misc]  # no py.typed
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, kind: type[_MetadataQuestion]) -> _MetadataQuestion:
        return kind(self._topics, False, False, True)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as this login sees it.

    Attributes
    ----------
    found
        Whether it exists and may be seen.
    hidden
        Whether the login may not even see it; then nobody knows whether it exists.
    operations
        Those of `READ` and `WRITE` that are allowed; None if the broker does not tell.
    replicas
        By partition: brokers that should have a copy, and those whose copy is up to date.
    """

    found: bool
    hidden: bool
    operations: frozenset[str] | None
    replicas: Mapping[int, tuple[int, int]]


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Any]:
    """An aiokafka client that has met its brokers; one line says why if it has not (errors as `contact.dial`)."""
    options = client_options(settings)
    (await dial(settings.kafka, **options)).close()
    client = AIOKafkaClient(bootstrap_servers=settings.kafka, request_timeout_ms=PATIENCE_MS, **options)
    try:
        await client.bootstrap()
        yield client
    except (KafkaError, OSError, TimeoutError) as error:
        raise await why_not(settings.kafka, **options) from error
    finally:
        await client.close()


async def describe_topics(client: Any, names: Iterable[str]) -> dict[str, TopicFacts] | None:
    """Facts about topics by name, existing or not; creates none. None if the broker is too old for the question."""
    try:
        answer = await client.send(client.get_random_node(), _DescribeTopics(list(names)))
    except (NotImplementedError, IncompatibleBrokerVersion):
        return None
    return {
        row["topic"]: TopicFacts(
            found=row["error_code"] == 0,
            hidden=row["error_code"] == _HIDDEN_TOPIC,
            operations=_allowed(row["operations"]),
            replicas={p["partition"]: (len(p["replicas"]), len(p["isr"])) for p in row["partitions"]},
        )
        for row in answer.to_object()["topics"]
    }


async def may_join(client: Any, group: str) -> bool:
    """Whether this login may be a member of a consumer group: shown by a heartbeat of a member that does not exist."""
    try:
        coordinator = await _coordinator(client, group)
    except GroupAuthorizationFailedError:
        return False
    answer = await client.send(coordinator, HeartbeatRequest(group, -1, "nobody"))
    return bool(answer.error_code != GroupAuthorizationFailedError.errno)


async def _coordinator(client: Any, group: str) -> int:
    """Broker that leads a group; waits for a broker that has never had a group and prepares for its first one."""
    async with asyncio.timeout(PATIENCE_MS / 1000):
        while True:
            try:
                node: int = await client.coordinator_lookup(CoordinationType.GROUP, group)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(0.1)
            else:
                return node


async def require(settings: Settings, needs: Mapping[str, tuple[str, ...]], *, member: bool = False) -> None:
    """Make sure that this login may do something, as far as the broker tells.

    Parameters
    ----------
    settings
        Address, security and names.
    needs
        Operations by role of the topic: `WORKER`, `SHOP`.
    member
        Whether it must be allowed to join the consumer group.

    Raises
    ------
    ConfigurationError
        If something is not allowed, or a topic does not exist; says what to do.
    UnavailableError
        If no broker answers.
    """
    async with connected(settings) as client:
        facts = await describe_topics(client, [settings.topic(role) for role in needs])
        if facts is None:
            return
        # a topic that may not be seen looks like one that does not exist: what is not allowed is told first
        joins = await may_join(client, settings.group) if member else True
    found = complaints(settings, facts, needs, member=joins)
    found += [str(missing(name)) for name in map(settings.topic, needs) if not facts[name].found]
    if found:
        raise ConfigurationError(found[0])


def complaints(
    settings: Settings, facts: Mapping[str, TopicFacts], needs: Mapping[str, tuple[str, ...]], *, member: bool
) -> list[str]:
    """What is needed and not allowed, each with what to do; missing topics are another's complaint."""
    found = [
        _complaint(settings, operation, "topic", settings.topic(role))
        for role, needed in needs.items()
        for operation in needed
        if _denied(facts[settings.topic(role)], operation)
    ]
    if not member:
        found.append(_complaint(settings, READ, "group", settings.group))
    return found


def _denied(topic: TopicFacts, operation: str) -> bool:
    return topic.hidden or (topic.found and topic.operations is not None and operation not in topic.operations)


def _complaint(settings: Settings, operation: str, kind: str, name: str) -> str:
    user = settings.kafka_username or "NAME"
    return (
        f"Kafka does not allow {operation} on {kind} {name}: kafka-acls.sh --bootstrap-server {settings.kafka} --add"
        f" --allow-principal User:{user} --operation {operation} --{kind} {name}"
    )


def _allowed(bits: int) -> frozenset[str] | None:
    return None if bits == _UNKNOWN else frozenset(name for name, bit in _BITS.items() if bits >> bit & 1)

"""The topics: what each is for, how it is laid out, and their creation and check on a broker.

Partition counts are part of the data's meaning (a user's partition is a hash modulo the count), so they are created
explicitly and never changed by Rivulet: a differing count is an error, not something to repair.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin.config_resource import (  # type: ignore[import-untyped]  # no py.typed
    ConfigResource,
    ConfigResourceType,
)
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    KafkaError,
    TopicAlreadyExistsError,
    for_code,
)

from stream.contact import dial, missing, why_not
from stream.errors import ConfigurationError

DAY_MS: Final = 86_400_000
MB: Final = 1_048_576
VISIBLE_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic's layout.

    Attributes
    ----------
    name
        Its name on the broker.
    partitions
        Partition count, at least 1.
    purpose
        One line for people.
    config
        Topic configuration that differs from the broker's defaults.
    """

    name: str
    partitions: int
    purpose: str
    config: Mapping[str, str] = field(default_factory=dict)


def _log(days: float, max_mb: int = 1) -> dict[str, str]:
    """Configuration of a topic whose records are deleted by age.

    The broker's clock stamps the records: retention counts from arrival even while an old recording is replayed (by
    event time its segments would be deleted at once), and a shop's wrong clock cannot move a watermark.
    """
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(int(days * DAY_MS)),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(max_mb * MB + 65_536),
    }


def _table(max_mb: int = 1) -> dict[str, str]:
    """Configuration of a topic that keeps the last record of each key, read from the beginning at every start."""
    return {
        "cleanup.policy": "compact",
        # Small segments and an eager cleaner: what is read at a start stays close to one record per key.
        "segment.bytes": str(16 * MB),
        "min.cleanable.dirty.ratio": "0.1",
        "max.message.bytes": str(max_mb * MB + 65_536),
    }


def layout(events_partitions: int = 4, covisits_partitions: int = 4, prefix: str = "") -> tuple[Topic, ...]:
    """All topics of one installation.

    Parameters
    ----------
    events_partitions
        P: partitions of ``events``, ``served`` and ``messages``; the most workers that can share the users.
    covisits_partitions
        Q: partitions of ``covisits``; the most workers that can share the items.
    prefix
        Put in front of every name.

    Returns
    -------
    tuple of Topic
        In the order of the way of an event.

    Examples
    --------
    >>> [topic.name for topic in layout(prefix="shop.")][:2]
    ['shop.events', 'shop.items']
    """
    p, q = events_partitions, covisits_partitions
    # An event may be 1 MB, a bigger one must still arrive to become a dead letter, which carries it whole.
    topics = (
        Topic("events", p, "what visitors do, by user", _log(7, 2)),
        Topic("items", 4, "catalogue: one record per item", _table()),
        Topic("offers", 1, "offers and campaigns", _table()),
        Topic("models", 1, "broadcast of the global stage (internal)", _table(8)),
        Topic("covisits", q, "item pair deltas (internal)", _log(7, 8)),
        Topic("global", 1, "samples and candidates (internal)", _log(7, 8)),
        Topic("served", p, "what was pushed", _log(7, 8)),
        Topic("messages", p, "outbound triggers", _log(7)),
        Topic("privacy", 1, "door for privacy requests", _log(7)),
        Topic("events.dlq", 1, "dead letters", _log(14, 4)),
    )
    return tuple(replace(topic, name=prefix + topic.name) for topic in topics)


def misfits(topics: Iterable[Topic], found: Mapping[str, int]) -> list[str]:
    """Complaints about topics whose partition count on the broker differs from the layout; missing ones are fine."""
    return [
        f"topic {topic.name} has {found[topic.name]} partitions, expected {topic.partitions}: "
        "set the partition count to what the topic has, or use another topic name (a count cannot be changed later)"
        for topic in topics
        if found.get(topic.name, topic.partitions) != topic.partitions
    ]


def faults(topics: Iterable[Topic], found: Mapping[str, int]) -> list[str]:
    """Complaints about topics that differ from the layout or are missing."""
    topics = list(topics)
    return misfits(topics, found) + [str(missing(topic.name)) for topic in topics if topic.name not in found]


async def check(bootstrap: str, topics: Sequence[Topic], **security: Any) -> None:
    """Make sure that all topics exist with their partition counts.

    Parameters
    ----------
    bootstrap
        Broker address, ``host:port``.
    topics
        What must be there.
    security
        ``security_protocol``, ``ssl_context``, ``sasl_*`` as aiokafka names them.

    Raises
    ------
    ConfigurationError
        If a topic is missing, its count differs, or access is denied; names the topic and what to do.
    UnavailableError
        If no broker answers.
    """
    async with _admin(bootstrap, security) as admin:
        found = await _partitions(admin)
    if complaints := faults(topics, found):
        raise ConfigurationError(complaints[0])


async def create(bootstrap: str, topics: Sequence[Topic], replication: int | None = None, **security: Any) -> list[str]:
    """Create the topics that do not exist.

    Parameters
    ----------
    bootstrap
        Broker address, ``host:port``.
    topics
        What is to be there. Existing ones are checked, not changed.
    replication
        Copies of each partition; by default 3, or as many as there are brokers.
    security
        ``security_protocol``, ``ssl_context``, ``sasl_*`` as aiokafka names them.

    Returns
    -------
    list of str
        Names of the topics created now, in the given order.

    Raises
    ------
    ConfigurationError
        If an existing topic has another partition count (nothing is created then), or the broker refuses one.
    UnavailableError
        If no broker answers.
    """
    async with _admin(bootstrap, security) as admin:
        found = await _partitions(admin)
        if complaints := misfits(topics, found):
            raise ConfigurationError(complaints[0])
        absent = [topic for topic in topics if topic.name not in found]
        if not absent:
            return []
        cluster = await admin.describe_cluster()
        brokers = {broker["node_id"] for broker in cluster["brokers"]}
        if cluster["controller_id"] not in brokers:
            raise ConfigurationError(f"topic {absent[0].name} does not exist and this broker cannot create topics")
        copies = replication or min(3, len(brokers))
        new = [NewTopic(t.name, t.partitions, copies, topic_configs=dict(t.config)) for t in absent]
        for name, code, reason in (row[:3] for row in (await admin.create_topics(new)).topic_errors):
            if code and for_code(code) is not TopicAlreadyExistsError:  # another worker may have been faster
                raise ConfigurationError(f"topic {name} was not created: {reason or for_code(code).__name__}")
        if complaints := misfits(topics, await _visible(admin, topics)):
            raise ConfigurationError(complaints[0])
    return [topic.name for topic in absent]


async def configurations(bootstrap: str, topics: Sequence[Topic], **security: Any) -> dict[str, dict[str, str]]:
    """Configuration of each topic by name, as the broker tells it; those that may not be seen are missing."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
    async with _admin(bootstrap, security) as admin:
        answers = await admin.describe_configs(resources)
    return {
        row[3]: {entry[0]: entry[1] for entry in row[4]} for answer in answers for row in answer.resources if not row[0]
    }


async def _visible(admin: AIOKafkaAdminClient, topics: Sequence[Topic]) -> dict[str, int]:
    """Partition counts once all topics are known: a broker answers for a moment as if a new topic did not exist."""
    async with asyncio.timeout(VISIBLE_S):
        while True:
            found = await _partitions(admin)
            if all(topic.name in found for topic in topics):
                return found
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _admin(bootstrap: str, security: Mapping[str, Any]) -> AsyncIterator[AIOKafkaAdminClient]:
    (await dial(bootstrap, **security)).close()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=20_000, **security)
    try:
        await admin.start()
        yield admin
    except (TimeoutError, KafkaError, OSError) as error:
        raise await why_not(bootstrap, **security) from error
    finally:
        await admin.close()


async def _partitions(admin: AIOKafkaAdminClient) -> dict[str, int]:
    """Partition counts of all existing topics; asking for names could create them on a lenient broker."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}

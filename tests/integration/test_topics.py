"""The layout of the topics, and creating and checking them on a real broker."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin.config_resource import (  # type: ignore[import-untyped]  # no py.typed
    ConfigResource,
    ConfigResourceType,
)

from stream.errors import ConfigurationError, UnavailableError
from stream.topics import Topic, check, create, layout, misfits
from tests.brokers import free_ports


def _named(prefix: str, events_partitions: int = 4) -> tuple[Topic, ...]:
    return layout(events_partitions, prefix=prefix)


def test_partitions_follow_the_settings() -> None:
    partitions = {topic.name: topic.partitions for topic in layout(events_partitions=7, covisits_partitions=5)}
    assert partitions == {
        "events": 7,
        "items": 4,
        "offers": 1,
        "models": 1,
        "covisits": 5,
        "global": 1,
        "served": 7,
        "messages": 7,
        "privacy": 1,
        "events.dlq": 1,
    }


def test_tables_are_compacted_and_logs_are_not() -> None:
    policies = {topic.name: topic.config["cleanup.policy"] for topic in layout()}
    assert {name for name, policy in policies.items() if policy == "compact"} == {"items", "offers", "models"}
    assert set(policies.values()) == {"compact", "delete"}


def test_a_misfit_names_topic_found_and_expected() -> None:
    assert misfits(layout(), {"events": 4, "items": 4}) == []
    (complaint,) = misfits(layout(), {"covisits": 3})
    assert complaint.startswith("topic covisits has 3 partitions, expected 4: ")
    assert "\n" not in complaint


async def test_created_once_with_their_configuration(kafka: str, topic_prefix: str) -> None:
    topics = _named(topic_prefix)
    assert await create(kafka, topics) == [topic.name for topic in topics]
    assert await create(kafka, topics) == []
    await check(kafka, topics)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        resources = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in topics]
        (answer,) = await admin.describe_configs(resources)
    finally:
        await admin.close()
    found = {resource[3]: {entry[0]: entry[1] for entry in resource[4]} for resource in answer.resources}
    for topic in topics:
        assert {name: found[topic.name][name] for name in topic.config} == dict(topic.config)


async def test_another_partition_count_is_an_error_and_creates_nothing(kafka: str, topic_prefix: str) -> None:
    await create(kafka, _named(topic_prefix)[:1])
    with pytest.raises(ConfigurationError, match="has 4 partitions, expected 6"):
        await create(kafka, _named(topic_prefix, 6))
    with pytest.raises(ConfigurationError, match=f"topic {topic_prefix}items does not exist: run `rivulet topics`"):
        await check(kafka, _named(topic_prefix))


async def test_what_the_broker_refuses_is_named(kafka: str, topic_prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="topic no good was not created: Topic name is invalid"):
        await create(kafka, [Topic("no good", 1, "")])
    with pytest.raises(ConfigurationError, match=f"topic {topic_prefix}t was not created"):
        await create(kafka, [Topic(f"{topic_prefix}t", 1, "")], replication=5)


async def test_no_broker_is_one_clear_line() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port} does not answer"):
        await check(f"127.0.0.1:{port}", layout())

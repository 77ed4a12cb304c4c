"""Judges a topic: its partitions, its copies, and how it is configured."""

from __future__ import annotations

from collections.abc import Mapping

from stream.doctor.finding import Finding
from stream.permissions import TopicFacts
from stream.topics import Topic

VITAL = ("cleanup.policy", "message.timestamp.type")  # a wrong one loses records or moves watermarks


def judge_topic(topic: Topic, facts: TopicFacts, config: Mapping[str, str] | None) -> Finding:
    """Judge a topic by the layout.

    Parameters
    ----------
    topic
        What it should be.
    facts
        What the broker tells of it.
    config
        Its configuration; None if that may not be seen.
    """
    check = f"topic {topic.name}"
    if facts.hidden:
        return Finding("kafka", check, "unknown", "this login may not see it", "Allow Describe on it, see above.")
    if not facts.found:
        return Finding("kafka", check, "problem", "it does not exist", "Run `rivulet topics`.")
    if len(facts.replicas) != topic.partitions:
        detail = f"{len(facts.replicas)} partitions, the settings say {topic.partitions}"
        return Finding("kafka", check, "problem", detail, "Set the partition count to what the topic has.")
    lagging = {number: pair for number, pair in facts.replicas.items() if pair[1] < pair[0]}
    if lagging:
        detail = "; ".join(f"partition {number}: {isr} of {all_} copies" for number, (all_, isr) in lagging.items())
        return Finding("kafka", check, "problem", detail, "Look after the brokers whose copies are missing.")
    return _judge_config(check, topic, config)


def _judge_config(check: str, topic: Topic, config: Mapping[str, str] | None) -> Finding:
    seen = f"{topic.partitions} partition{'s' if topic.partitions > 1 else ''}"
    if config is None:
        detail = f"{seen}; its configuration may not be seen"
        return Finding("kafka", check, "unknown", detail, f"Allow DescribeConfigs on {topic.name} to have it checked.")
    wrong = {name: value for name, value in topic.config.items() if config.get(name) != value}
    if wrong:
        detail = ", ".join(f"{name} is {config.get(name)}, not {value}" for name, value in wrong.items())
        changes = ",".join(f"{name}={value}" for name, value in wrong.items())
        fix = f"Run kafka-configs.sh --alter --topic {topic.name} --add-config {changes}, unless it is on purpose."
        return Finding("kafka", check, "problem" if set(VITAL) & set(wrong) else "warning", detail, fix)
    return Finding("kafka", check, "ok", f"{seen}, {topic.config['cleanup.policy']}")


def judge_copies(facts: Mapping[str, TopicFacts], brokers: int) -> list[Finding]:
    """Judge how many copies of its records a lost disk would leave; nothing where no topic is seen."""
    seen = {name: min(all_ for all_, _ in topic.replicas.values()) for name, topic in facts.items() if topic.found}
    single = sorted(name for name, copies in seen.items() if copies == 1)
    if not seen:
        return []
    if single:
        detail = f"one copy only of {', '.join(single)} (brokers: {brokers}): a lost disk loses their records"
        fix = "On three brokers, create the topics with `rivulet topics --replication 3`; later, reassign partitions."
        return [Finding("kafka", "copies", "warning", detail, fix)]
    return [Finding("kafka", "copies", "ok", f"{min(seen.values())} of each partition, all up to date")]

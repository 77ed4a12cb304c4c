"""Checks of Kafka: reachable, what it speaks, permissions, topics and copies, clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.contact import dial
from stream.doctor.clocks import judge_clock
from stream.doctor.finding import Finding
from stream.doctor.lineage import check_lineage
from stream.doctor.topics import judge_copies, judge_topic
from stream.errors import RivuletError
from stream.kafka import client_options
from stream.permissions import WORKER, TopicFacts, complaints, connected, describe_topics, may_join
from stream.settings import Settings
from stream.topics import configurations, layout

APIS: Final = {0: "Produce", 1: "Fetch", 3: "Metadata"}
IDEMPOTENCE: Final = 22  # InitProducerId
NOW_S: Final = 10.0  # a record so young says what time it is
READ_MS: Final = 2_000


async def check_kafka(settings: Settings) -> list[Finding]:
    """All findings about Kafka; only one if nobody answers."""
    try:
        findings = [await _contact(settings)]
        async with connected(settings) as client:
            return findings + await _inside(settings, client)
    except (RivuletError, OSError) as error:
        fix = "Set RIVULET_KAFKA and the settings named here; `rivulet settings` shows what they are now."
        return [Finding("kafka", "reachable", "problem", str(error), fix)]


async def _contact(settings: Settings) -> Finding:
    connection = await dial(settings.kafka, **client_options(settings))
    versions: Mapping[int, tuple[int, int]] = connection._versions
    connection.close()
    spoken = ", ".join(f"{name} {versions[key][0]}-{versions[key][1]}" for key, name in APIS.items() if key in versions)
    how = f"{settings.kafka} by {settings.kafka_security}; API versions: {spoken}"
    if IDEMPOTENCE not in versions:
        fix = "Use Apache Kafka 2.1 or later, or a broker that takes idempotent producers."
        return Finding("kafka", "reachable", "problem", f"{how}; no idempotent producers", fix)
    return Finding("kafka", "reachable", "ok", how)


async def _inside(settings: Settings, client: Any) -> list[Finding]:
    topics = layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
    facts = await describe_topics(client, [topic.name for topic in topics])
    if facts is None:
        why = "the broker is too old to tell (Metadata below version 8)"
        return [
            Finding("kafka", name, "unknown", why, "Run `rivulet topics --check`.") for name in ("topics", "rights")
        ]
    findings = await _rights(settings, client, facts)
    try:
        configs = await configurations(settings.kafka, topics, **client_options(settings))
    except RivuletError:  # a broker without administration, such as the demo's
        configs = {}
    findings += [judge_topic(topic, facts[topic.name], configs.get(topic.name)) for topic in topics]
    findings += judge_copies(facts, len(client.cluster.brokers()))
    return [*findings, await check_lineage(settings, facts), await _clock(settings, facts)]


async def _rights(settings: Settings, client: Any, facts: Mapping[str, TopicFacts]) -> list[Finding]:
    denied = complaints(settings, facts, WORKER, member=await may_join(client, settings.group))
    if denied:
        split = [text.split(": ", 1) for text in denied]
        return [Finding("kafka", "rights", "problem", what, f"Run {how}") for what, how in split]
    untold = [name for name, topic in facts.items() if topic.found and topic.operations is None]
    if untold:
        fix = "If the broker knows ACLs, compare them with Access lists in the README."
        return [Finding("kafka", "rights", "unknown", f"the broker does not tell for {', '.join(untold)}", fix)]
    return [Finding("kafka", "rights", "ok", "a worker's, on all topics and its group")]


async def _clock(settings: Settings, facts: Mapping[str, TopicFacts]) -> Finding:
    """Kafka does not tell its time, but its stamp on a record that came just now does."""
    name = settings.topic("events")
    allowed = facts[name].operations
    if not facts[name].found or (allowed is not None and "Read" not in allowed):
        detail = f"only the records of {name} tell the time, and it cannot be read"
        fix = "Create it (`rivulet topics`), or allow this login Read on it."
        return Finding("kafka", "clock", "unknown", detail, fix)
    try:
        newest = await _newest_stamp(settings, [TopicPartition(name, number) for number in facts[name].replicas])
    except (KafkaError, TimeoutError) as error:
        fix = "Run `rivulet doctor` again, and look after the brokers that lead the topic if that stays so."
        return Finding("kafka", "clock", "unknown", f"{name} could not be read: {error!r}", fix)
    ahead = newest / 1000 - time.time()
    if newest and ahead > -NOW_S:
        return judge_clock("kafka", ahead, NOW_S if ahead < 0 else 0.0)
    why = f"the newest record of {name} came {-ahead:,.0f} s ago" if newest else f"{name} has no record"
    return Finding("kafka", "clock", "unknown", f"Kafka tells the time only by its newest record, and {why}",
                   "Send an event and run `rivulet doctor` again.")  # fmt: skip


async def _newest_stamp(settings: Settings, partitions: list[TopicPartition]) -> int:
    """Newest stamp of the broker on the last record of each partition, ms; 0 if there is none."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False, **client_options(settings))
    await consumer.start()
    try:
        async with asyncio.timeout(READ_MS / 1000):
            ends = await consumer.end_offsets(partitions)
        filled = [partition for partition in partitions if ends[partition] > 0]
        if not filled:
            return 0
        consumer.assign(filled)
        for partition in filled:
            consumer.seek(partition, ends[partition] - 1)
        newest, waiting, end = 0, set(filled), time.monotonic() + READ_MS / 1000
        while waiting and time.monotonic() < end:
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                waiting.discard(partition)
                newest = max([newest, *(record.timestamp for record in records if record.timestamp_type == 1)])
        return newest
    finally:
        with suppress(TimeoutError):  # aiokafka's fetcher may miss that it was told to end, and is waited for in vain
            async with asyncio.timeout(READ_MS / 1000):
                await consumer.stop()

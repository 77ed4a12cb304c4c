"""Snapshots that must be somewhere, as the group has committed offsets after them, and are not in this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.doctor.finding import Finding
from stream.errors import ConfigurationError
from stream.kafka import client_options
from stream.permissions import TopicFacts
from stream.settings import Settings
from stream.snapshots import SnapshotStore

ROLES: Final = ("events", "covisits", "global", "privacy")  # topics whose partitions are shards
PATIENCE_S: Final = 10.0


async def check_lineage(settings: Settings, facts: Mapping[str, TopicFacts]) -> Finding:
    """Compare what the group has committed with what is in the folder of snapshots."""
    topics = [name for name in map(settings.topic, ROLES) if facts[name].found]
    try:
        kept = await asyncio.to_thread(_kept, settings)
        missing = await _missing(settings, [TopicPartition(t, n) for t in topics for n in facts[t].replicas], kept)
    except (ConfigurationError, KafkaError, OSError) as error:  # a TimeoutError is an OSError
        detail = f"not known what group {settings.group} has done: {error!r}"
        fix = f"Make {settings.snapshot_folder} readable, and allow this login Read on the group and its topics."
        return Finding("kafka", "snapshots", "unknown", detail, fix)
    return judge_lineage(settings.snapshot_folder, missing)


def judge_lineage(folder: str, missing: Mapping[str, int]) -> Finding:
    """Judge that shards have no snapshot although the group has committed offsets after one.

    Parameters
    ----------
    folder
        Where they were looked for.
    missing
        By the shard's name, where its log begins.

    Examples
    --------
    >>> [judge_lineage("here", shards).state for shards in ({}, {"events-0": 0}, {"events-0": 7})]
    ['ok', 'warning', 'problem']
    """
    if not missing:
        return Finding("kafka", "snapshots", "ok", f"{folder} has one of every shard that the group has committed")
    detail = f"{folder} has none of {', '.join(sorted(missing))}, after which the group has committed offsets"
    fix = "Set RIVULET_SNAPSHOT_FOLDER to the one folder (an absolute path, or a URL) that all workers share."
    if not any(missing.values()):
        return Finding("kafka", "snapshots", "warning", f"{detail}; their logs will be read from the start", fix)
    fix += " If they are gone for good, make topic covisits anew and start once with RIVULET_ON_GAP=accept."
    return Finding("kafka", "snapshots", "problem", f"{detail}; the start of their logs is gone, workers stop", fix)


def _kept(settings: Settings) -> set[str]:
    return {found.shard for found in SnapshotStore.of(settings).generations()}


async def _missing(settings: Settings, shards: list[TopicPartition], kept: set[str]) -> dict[str, int]:
    """Where the logs begin of those shards that the group has committed and that have no snapshot."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, group_id=settings.group, enable_auto_commit=False, **client_options(settings)
    )
    await consumer.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            without = [tp for tp in shards if f"{tp.topic}-{tp.partition}" not in kept]
            lost = [tp for tp in without if await consumer.committed(tp) is not None]
            starts = await consumer.beginning_offsets(lost) if lost else {}
        return {f"{tp.topic}-{tp.partition}": starts[tp] for tp in lost}
    finally:
        with suppress(TimeoutError):  # see the doctor's other consumer
            async with asyncio.timeout(PATIENCE_S):
                await consumer.stop()

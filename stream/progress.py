"""How far the workers are: ends of the logs on the broker against what `rv:meta` says is included."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.contact import missing, why_not
from stream.kafka import client_options
from stream.keys import Keys
from stream.redis_address import redis_address
from stream.settings import Settings
from stream.store import RedisStore

POLL_S = 0.1
ANSWERS = 4  # an event may be sent on, link, have a history handed over: each time a record behind those waited for


class Progress:
    """Watches one installation; an async context manager.

    Parameters
    ----------
    settings
        Addresses and names.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._meta = Keys(settings.prefix).meta

    async def __aenter__(self) -> Self:
        self.store = await RedisStore.connect(redis_address(self._settings))
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka, enable_auto_commit=False, **client_options(self._settings)
        )
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            await self._consumer.stop()
            await self.store.close()
            raise await why_not(self._settings.kafka, **client_options(self._settings)) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self.store.close()

    async def ends(self, role: str) -> dict[int, int]:
        """End of each partition's log of a topic.

        Raises
        ------
        ConfigurationError
            If the topic does not exist.
        """
        topic = self._settings.topic(role)
        if topic not in await self._consumer.topics():
            raise missing(topic)
        await self._consumer._client.add_topic(topic)
        partitions = [TopicPartition(topic, p) for p in sorted(self._consumer.partitions_for_topic(topic) or ())]
        found: Mapping[Any, int] = await self._consumer.end_offsets(partitions)
        return {tp.partition: end for tp, end in found.items()}

    async def facts(self) -> dict[str, dict[str, Any]]:
        """Every field of `rv:meta` that holds facts, by name (``events-0``, ``worker-4711@host``)."""
        fields = await self.store.hgetall(self._meta)
        return {name.decode(): msgspec.json.decode(value) for name, value in fields.items() if value[:1] == b"{"}

    async def included(self, role: str) -> dict[int, int]:
        """First offset of each partition that no worker has included yet."""
        topic = self._settings.topic(role) + "-"
        return {
            int(name.removeprefix(topic)): max(facts["next"], 0)  # -1: a shard that has seen no record yet
            for name, facts in (await self.facts()).items()
            if name.startswith(topic)
        }

    async def books(self) -> Counter[str]:
        """What became of all events so far, over all their shards; one that is being taken up has no book yet."""
        topic = self._settings.topic("events") + "-"
        told = [facts.get("counts", {}) for name, facts in (await self.facts()).items() if name.startswith(topic)]
        return sum(map(Counter, told), start=Counter())

    async def owners(self) -> dict[str, str]:
        """Which worker owns each shard, and since when on its clock, by the shard's name."""
        return {name: facts["owner"] for name, facts in (await self.facts()).items() if "owner" in facts}

    async def until(self, role: str, ends: Mapping[int, int], report: Callable[[int], None] = lambda _: None) -> None:
        """Wait until the workers have included everything below these ends; reports how many records are missing."""
        while True:
            included = await self.included(role)
            missing = sum(max(end - included.get(partition, 0), 0) for partition, end in ends.items())
            report(missing)
            if missing == 0:
                return
            await asyncio.sleep(POLL_S)

    async def drained(self, report: Callable[[int], None] = lambda _: None) -> None:
        """Wait until the workers have included all events and what followed from them, then all deltas of these."""
        ends: dict[int, int] = {}
        for _ in range(ANSWERS):
            before, ends = ends, await self.ends("events")
            if ends == before:
                break
            await self.until("events", ends, report)
        for role in ("covisits", "global"):
            await self.until(role, await self.ends(role), report)

"""The whole pipeline in one process without Kafka: the same steps as the agents', wired in lock-step.

Used by ``rivulet replay --local``, by tests and by benchmarks. Everything is in memory, one batch after another, so two
runs over the same events leave byte-equal results.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from models.hashing import partition_of
from models.offers import Offer
from stream.keys import Keys
from stream.resp import WriteBatch
from stream.rules import rules_of, space_of
from stream.settings import Settings
from stream.stages.global_ import GlobalStage
from stream.stages.item import ItemStage
from stream.stages.pushing import Pushes
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from stream.store import Store
from stream.wire import FLUSH


class LocalRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as the stages read it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class LocalTopic:
    """An in-memory log: records by partition, and how far each was consumed."""

    partitions: int
    logs: list[list[LocalRecord]] = field(init=False)
    read: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.logs = [[] for _ in range(self.partitions)]
        self.read = [0] * self.partitions

    def append(self, partition: int, timestamp: int, key: bytes | None, value: bytes) -> None:
        """Add a record at the end of a partition."""
        log = self.logs[partition]
        log.append(LocalRecord(self.read[partition] + len(log), timestamp, key, value))

    def take(self, partition: int, most: int) -> list[LocalRecord]:
        """Remove and return up to `most` records from the front of a partition."""
        taken, self.logs[partition] = self.logs[partition][:most], self.logs[partition][most:]
        self.read[partition] += len(taken)
        return taken


class LocalPipeline:
    """User, item and global stage over in-memory topics.

    Parameters
    ----------
    store
        Where lists go.
    rules
        What the shop decided.
    partitions, item_partitions
        Partitions of topics ``events`` and ``covisits``.
    batch
        Most records a stage takes at once.
    items
        Most items with a row per item partition.
    offers
        Offers that may be pushed.
    segments
        How many segments of visitors are told apart.
    space
        What is known of items, with their partitions; else an empty one of `item_partitions` with the defaults.

    Attributes
    ----------
    dead
        Dead letters, in order.
    served
        Records of topic ``served``, in order.
    counts
        ``lists`` ranked, ``keys`` written.
    """

    def __init__(  # noqa: PLR0913  # what a worker's settings say, most with the same defaults
        self,
        store: Store,
        rules: UserRules | None = None,
        *,
        prefix: str = "rv",
        partitions: int = 4,
        item_partitions: int = 4,
        batch: int = 2_000,
        items: int = 500_000,
        offers: Sequence[Offer] = (),
        segments: int = 8,
        space: ItemSpace | None = None,
    ) -> None:
        keys = Keys(prefix)
        self.store = store
        self.batch = batch
        rules = rules or UserRules()
        self.space = space or ItemSpace(item_partitions)
        self.users = UserStage(self.space, keys, rules, partitions)
        self.items = ItemStage(self.space, keys, partitions, rules.k, items, rules.step_share)
        self.globe = GlobalStage(keys, segments=segments, k=rules.k)
        self.topics = {
            "events": LocalTopic(partitions),
            "covisits": LocalTopic(self.space.partitions),
            "global": LocalTopic(1),
        }
        for partition in range(partitions):
            self.users.open(partition, None)
        for partition in range(self.space.partitions):
            self.items.open(partition, None)
        self.globe.open(0, None)
        self.users.offering.replace(offers)
        self.dead: list[Send] = []
        self.served: list[Send] = []
        self.counts: Counter[str] = Counter()
        self.now_ms = 0

    @classmethod
    def of(cls, settings: Settings, store: Store) -> LocalPipeline:
        """What a worker with these settings does."""
        return cls(
            store,
            rules_of(settings),
            prefix=settings.prefix,
            partitions=settings.events_partitions,
            batch=settings.batch_records,
            items=settings.items,
            segments=settings.segments,
            space=space_of(settings),
        )

    async def feed(self, events: Iterable[tuple[bytes, int, bytes]]) -> None:
        """Publish events (key, record time in ms, value) and run until every topic is drained."""
        topic = self.topics["events"]
        waiting = 0
        for key, timestamp, value in events:
            topic.append(partition_of(key, topic.partitions), timestamp, key, value)
            self.now_ms = max(self.now_ms, timestamp)
            waiting += 1
            if waiting >= self.batch:
                await self.step()
                waiting = 0
        await self.drain()

    async def drain(self) -> None:
        """Run until nothing is left to read or to publish."""
        while any(log for topic in self.topics.values() for log in topic.logs) or self._unpublished():
            await self.step()

    async def republish(self) -> None:
        """Publish every neighbour list again, then rank every user again."""
        for partition in range(self.topics["covisits"].partitions):
            self.topics["covisits"].append(partition, self.now_ms, None, FLUSH)
        await self.drain()
        for partition in range(self.topics["events"].partitions):
            self.topics["events"].append(partition, self.now_ms, None, b'{"control":"rank_all"}')
        await self.drain()

    async def step(self) -> None:
        """One batch through every shard of every stage."""
        for partition in self.users.shards:
            await self.step_user(partition)
        for partition in self.items.shards:
            await self.step_item(partition)
        records = self.topics["global"].take(0, self.batch)
        if records:
            self.globe.learn(0, records)
            broadcast = self.globe.publish()
            await self._flush(broadcast.writes)
            self.globe.published(broadcast)
            for send in broadcast.sends:
                self.users.take_model(send.key or b"", send.value)

    async def step_user(self, partition: int) -> None:
        """One batch through one shard of the user stage."""
        records = self.topics["events"].take(partition, self.batch)
        if not records:
            return
        learned = self.users.learn(partition, records)
        for send in learned.sends:
            self._send(send)
        for answer in learned.answers:
            await self._flush(answer.writes)
        await self._push(self.users.rank(partition, learned.users, learned.ts_ms, force=learned.force))
        while len(outdated := self.users.outdated(partition, self.users.rules.users)):
            await self._push(self.users.rank(partition, outdated, self.users.last_ms(partition, outdated)))

    async def step_item(self, partition: int) -> None:
        """One batch through one shard of the item stage."""
        records = self.topics["covisits"].take(partition, self.batch)
        if records:
            self.items.learn(partition, records)
        published = self.items.publish(partition, self.now_ms)
        for send in published.sends:
            self._send(send)
        await self._flush(published.writes)

    async def _push(self, pushes: Pushes) -> None:
        self.counts["lists"] += pushes.lists
        await self._flush(pushes.writes)
        for send in pushes.sends:
            self._send(send)

    def _send(self, send: Send) -> None:
        if send.role in ("dlq", "served"):
            (self.dead if send.role == "dlq" else self.served).append(send)
            return
        topic = self.topics[send.role]
        partition = partition_of(send.key or b"", topic.partitions) if send.partition is None else send.partition
        topic.append(partition, send.timestamp_ms or self.now_ms, send.key, send.value)

    async def _flush(self, writes: WriteBatch) -> None:
        if len(writes):
            self.counts["keys"] += len(writes)
            await self.store.flush(writes)

    def _unpublished(self) -> bool:
        return bool(np.any(self.space.unpublished))

"""What the agents share: where they write, and a stage that keeps the state of their shards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from stream.copying import Copying
from stream.errors import UnavailableError
from stream.fetches import ConsumerRecord
from stream.publisher import Publisher
from stream.resp import WriteBatch
from stream.shard import Shard
from stream.stages.sends import Send
from stream.stages.stepwise import Stepwise
from stream.stats import Stats
from stream.store import Store


class Steps(Protocol):
    """The pure side of an agent: decides everything, performs nothing."""

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Start a shard: empty, or from a snapshot."""

    def copy(self, partition: int) -> Copying:
        """Begin a copy of a shard's state."""

    def close(self, partition: int) -> None:
        """Forget a shard; harmless if it is not open."""


S = TypeVar("S", bound=Steps)
T = TypeVar("T")


async def in_turns(
    shard: Shard, records: Sequence[ConsumerRecord], most_bytes: int
) -> AsyncIterator[Sequence[ConsumerRecord]]:
    """Records of so many bytes at a time, a little more or one alone; others run in between. No more if it is lost."""
    start = size = 0
    for end, record in enumerate(records, 1):
        size += len(record.value or b"")
        if size >= most_bytes or end == len(records):
            if start:
                await asyncio.sleep(0)
            if shard.lost:
                return
            yield records[start:end]
            start, size = end, 0


async def step_by_step(shard: Shard, work: Stepwise[T]) -> T | None:
    """What the work makes; others run between its steps. None if the shard is lost: then the rest is left undone."""
    try:
        while not shard.lost:
            next(work)
            await asyncio.sleep(0)
    except StopIteration as end:
        made: T = end.value
        return made
    finally:
        work.close()
    return None


@dataclass(eq=False)
class Agent(Generic[S]):
    """Carries out what a stage decides. With `process`, which each agent has of its own, a `stream.shard.Stage`.

    Parameters
    ----------
    topic
        Name of the topic it reads.
    stage
        The pure steps, which keep the state of the shards.
    publisher, store
        Where records and Redis writes go.
    stats
        Counts and times.
    """

    pace_s: ClassVar[float] = 0.0  # seconds between two fetches of a partition

    topic: str
    stage: S
    publisher: Publisher
    store: Store
    stats: Stats

    async def ready(self) -> None:
        """More is always welcome."""

    async def write(self, writes: WriteBatch) -> None:
        """Write to Redis; returns when every answer has come."""
        self.stats.keys(len(writes))
        if len(writes):
            await self.store.flush(writes)

    async def ask_owner(self, request: Send) -> None:
        """Have a partition's owner write again what late writes of ours may have just replaced by older.

        No check before a write can prevent that: a process may be frozen between the check and the write.
        """
        while True:
            try:
                return await self.publisher.send([request])
            except UnavailableError:
                continue  # nobody else knows of these writes

    async def prepare(self, arrays: Mapping[str, NDArray[Any]]) -> Any:
        """Nothing: a snapshot's arrays are taken as they are."""
        return arrays

    def open(self, partition: int, prepared: Any) -> None:
        """Take up a shard from what `prepare` gave, or empty."""
        self.stage.open(partition, prepared)

    def copy(self, partition: int) -> Copying:
        """Begin a copy of a shard's state."""
        return self.stage.copy(partition)

    def close(self, partition: int) -> None:
        """Forget a shard."""
        self.stage.close(partition)

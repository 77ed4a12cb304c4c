"""One shard, and what learns from it: the types that stages and the host of the shards share."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray

from stream.copying import Copying
from stream.errors import RivuletError
from stream.fetches import TP, ConsumerRecord, Fetch

LOG_START = -1
"""``Shard.next`` of a shard without a snapshot: it starts with the first record that the broker still has."""


class GapError(RivuletError):
    """The log does not continue where the shard stands, and the broker does not prove that it never will."""


@dataclass(slots=True, eq=False)
class Shard:
    """One partition that this worker owns, or owned (``lost``).

    ``next`` is the first offset that the state does not include. ``dirty`` means that the state is in between two
    offsets and must not be saved. ``lost`` is set when the partition was given back, taken away or has failed:
    whoever awaits something inside ``process`` checks it afterwards and stops without applying anything. ``leaving``
    asks a snapshot that takes its time to make room for the last one. ``saved`` is the offset of the newest snapshot,
    which took ``saved_bytes`` and ``saved_seconds`` and was begun, read or found to be still true at ``saved_at``
    (monotonic). ``waiting`` are fetches not yet fed; while there are any, one task is ``busy`` with them, and says when
    there is ``room`` for more. The last batch ended at ``fed_at``. ``first`` says whether this is its first owner ever;
    None = not asked yet. It was reloaded ``failures`` times, lastly for some ``trouble``, without getting beyond the
    offset ``failed_at``.
    """

    topic: str
    partition: int
    owned_since: float
    next: int = LOG_START
    saved: int = LOG_START
    saved_at: float = 0.0
    tried_at: float = 0.0
    saved_bytes: int = 0
    saved_seconds: float = 0.0
    loads: int = 0
    leaving: bool = False
    lost: bool = False
    dirty: bool = False
    epoch: int = -1
    fetches: int = 0
    suspect: int | None = None
    first: bool | None = None
    failures: int = 0
    failed_at: int = LOG_START
    trouble: str = ""
    fed_at: float = 0.0
    waiting: deque[Fetch] = field(default_factory=deque)
    busy: bool = False
    room: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    saving: asyncio.Lock = field(default_factory=asyncio.Lock)

    def lose(self) -> None:
        """It is not this worker's any more."""
        self.lost = True
        self.room.set()

    @property
    def tp(self) -> TP:
        """Topic and partition."""
        return TP(self.topic, self.partition)

    @property
    def name(self) -> str:
        """Name of its snapshots."""
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How a worker looks after its shards; times in seconds.

    Parameters
    ----------
    snapshot_every_s
        Between two snapshots of a shard: the most work a crash repeats. Lower: more disk writes.
    release_s
        Most time for the last snapshot of a shard that is taken away; the whole group waits meanwhile.
    commit_s
        Most time for a commit. One that fails costs nothing, as snapshots count.
    exit_s
        Left to Faust for its own end (a frozen broker makes that 30-45 s), after which the process exits hard, whatever
        hangs; everything worth keeping is saved by then. At most ``release_s + commit_s + exit_s`` after SIGTERM.
    session_s
        Session timeout of the group. Writes to Redis are fenced at half of it.
    on_gap
        A hole in the log that the broker's log start does not explain stops the worker ("stop") or is counted as
        lost ("accept": for brokers that delete silently, and for topics with transactional writers, whose markers
        look like holes).
    batch_records
        Most records that fetches are put together to, and that wait before no more are taken from Faust.
    """

    snapshot_every_s: float = 30.0
    release_s: float = 5.0
    commit_s: float = 2.0
    exit_s: float = 2.0
    session_s: float = 10.0
    on_gap: Literal["stop", "accept"] = "stop"
    batch_records: int = 2_000


class Stage(Protocol):
    """What learns from one topic. All calls come from the event loop."""

    @property
    def topic(self) -> str:
        """Topic it reads."""

    @property
    def pace_s(self) -> float:
        """Seconds between two fetches of a partition; 0 = as fast as they come."""

    async def prepare(self, arrays: Mapping[str, NDArray[Any]]) -> Any:
        """Make ready what `open` needs of a snapshot; whether the shard is still wanted then is not known."""

    def open(self, partition: int, prepared: Any) -> None:
        """Take up a shard from what `prepare` gave, or None: empty; replaces the shard if it is open already."""

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Learn from consecutive records and return when every ack and every answer has come.

        After its last await it checks ``shard.lost`` and applies state only if it is false.

        Raises
        ------
        UnavailableError
            A server does not answer: the shard is reloaded from its snapshot and read again.
        """

    def copy(self, partition: int) -> Copying:
        """Begin a copy of the state; batches may be processed until its rest is taken."""

    def close(self, partition: int) -> None:
        """Forget the shard; harmless if it is not open."""

    async def ready(self) -> None:
        """Wait until more may be read (another stage lags behind); nothing is locked meanwhile."""


class Loss(NamedTuple):
    """Records ``[first, end)`` of a partition that nobody can read any more."""

    tp: TP
    first: int
    end: int
    proven: bool


def runs(records: Sequence[ConsumerRecord]) -> Iterator[Sequence[ConsumerRecord]]:
    """Split where offsets are not consecutive: nowhere, except around holes in the log."""
    if records and records[-1].offset - records[0].offset + 1 == len(records):
        yield records
        return
    start = 0
    for index in range(1, len(records) + 1):
        if index == len(records) or records[index].offset != records[index - 1].offset + 1:
            yield records[start:index]
            start = index

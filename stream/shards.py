"""The life of a shard: assigned, loaded, fed in order, saved, given back; independent of what is learned.

A shard is the state of one partition of one topic, owned by the one worker that owns the partition. The snapshot is
the truth: it says which offset it includes, reading goes on exactly there, and Kafka's group offset only follows it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal, Protocol, cast

import structlog
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.errors import UnavailableError
from stream.saving import Saver
from stream.shard import LOG_START, GapError, Loss, Shard, Stage, runs
from stream.snapshots import Snapshot, SnapshotStore
from stream.transport import TP, BatchConsumer, BatchTransport, ConsumerRecord, Fetch

__all__ = ["GapError", "HostSettings", "Loss", "Shard", "ShardHost", "Stage"]

log = structlog.get_logger(__name__)

READ_AGAIN_S: Final = 1.0
MOST_DOUBLINGS: Final = 5  # of the pause before a reload: 3.2 s, as whoever takes the shard away waits for it


class App(Protocol):
    """What is used of Faust's app."""

    transport: Any
    on_partitions_revoked: Any
    on_rebalance_complete: Any
    on_before_shutdown: Any
    crash_reason: BaseException | None

    @property
    def consumer(self) -> Any: ...
    @property
    def should_stop(self) -> bool: ...
    @property
    def task(self) -> Callable[..., Any]: ...
    async def crash(self, reason: BaseException) -> None: ...


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


class ShardHost:
    """Owns the shards of this worker and feeds their stages.

    Parameters
    ----------
    stages
        One per topic.
    snapshots
        Where state is kept; the same place for all workers.
    settings
        See :class:`HostSettings`.
    clock
        Monotonic seconds.
    hard_exit
        Called with the exit code if shutdown hangs; None to never do that (apps inside another program).

    Attributes
    ----------
    counts
        records, stale (fetches of before a seek), dropped (fetches lost on the way and read again), gaps, reloads,
        snapshots, snapshot_errors, commits, commits_refused, lost (records).
    losses
        The last 1000 ranges that were counted as lost.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        snapshots: SnapshotStore,
        settings: HostSettings = HostSettings(),
        *,
        clock: Callable[[], float] = time.monotonic,
        hard_exit: Callable[[int], None] | None = os._exit,
    ) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self.losses: deque[Loss] = deque(maxlen=1000)
        self._stages = {stage.topic: stage for stage in stages}
        self._snapshots = snapshots
        self._saver = Saver(snapshots, self.counts)
        self._clock = clock
        self._hard_exit = hard_exit
        self._shards: dict[TP, Shard] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._term = 0
        self._epochs = count(1)
        self._app: App

    def attach(self, app: App) -> None:
        """Connect to the app; call it right after the app was made."""
        self._app = app
        app.transport = BatchTransport(cast(Any, app), self._positions)
        app.on_partitions_revoked.connect(self._on_revoked)
        app.on_rebalance_complete.connect(self._on_assigned)
        app.on_before_shutdown.connect(self._on_shutdown)
        app.task(self._snapshot_forever)

    @property
    def shards(self) -> Mapping[TP, Shard]:
        """The shards that this worker owns now."""
        return self._shards

    @property
    def stopping(self) -> bool:
        """Whether the worker is on its way out."""
        return bool(self._app.should_stop)

    def now(self) -> float:
        """The clock by which shards are saved."""
        return self._clock()

    def may_write(self) -> bool:
        """Whether the group heard from this worker within half a session: else another may own its shards already."""
        consumer = self.consumer
        return consumer.generation >= 0 and consumer.contact_age() < self.settings.session_s / 2

    def may_be_replaced(self) -> bool:
        """Whether the group may have given this worker's shards to others without its knowing."""
        consumer = self.consumer
        return consumer.generation < 0 or consumer.contact_age() >= self.settings.session_s

    # -- records -------------------------------------------------------------------------------------------------

    async def handle(self, fetch: Fetch) -> None:
        """Take a fetch for its stage; returns when there is room for another one of this shard.

        Partitions are fed side by side, each in order. Fetches that come while a batch is under way become one batch:
        the busier a worker is, the fewer and larger its batches, which cost less per record.
        """
        shard = self._shards.get(fetch.tp)
        if shard is None:
            self.counts["stale"] += 1
            return
        shard.waiting.append(fetch)
        if not shard.busy:
            shard.busy = True
            task = asyncio.create_task(self._work(self._stages[shard.topic], shard))
            self._tasks.add(task)  # the event loop itself holds tasks only weakly
            task.add_done_callback(self._tasks.discard)
        while sum(len(waiting.records) for waiting in shard.waiting) > self.settings.batch_records and not shard.lost:
            shard.room.clear()
            await shard.room.wait()

    async def _work(self, stage: Stage, shard: Shard) -> None:
        """Feed what waits. Never raises for what a stage does: it reloads the shard or stops the worker.

        Faust would drop a batch whose agent raised and go on behind it.
        """
        try:
            while shard.waiting:
                await stage.ready()
                await asyncio.sleep(max(0.0, shard.fed_at + stage.pace_s - self._clock()))
                async with shard.lock:
                    await self._feed(stage, shard, self._next_batch(shard))
                shard.fed_at = self._clock()
        except Exception as error:  # noqa: BLE001  # the one place where any bug must stop the worker
            await self._give_up(shard, error)
        finally:
            shard.busy = False
            shard.room.set()

    def _next_batch(self, shard: Shard) -> Fetch | None:
        """As much of what waits as belongs together; None if nothing of it counts."""
        batch: Fetch | None = None
        while shard.waiting:
            fetch = shard.waiting[0]
            if shard.lost or fetch.epoch != shard.epoch:
                self.counts["stale"] += 1
            elif batch is None:
                batch = fetch
            elif batch.followed_by(fetch) and len(batch.records) + len(fetch.records) <= self.settings.batch_records:
                batch = batch.joined(fetch)
            else:
                break
            shard.waiting.popleft()
        shard.room.set()
        return batch

    async def _feed(self, stage: Stage, shard: Shard, fetch: Fetch | None) -> None:
        if fetch is None:
            return
        try:
            if shard.dirty:
                raise UnavailableError("it was interrupted in the middle of a batch")
            await self._learn(stage, shard, fetch)
        except (UnavailableError, KafkaError) as error:
            if shard.lost or (isinstance(error, KafkaError) and not error.retriable):
                raise
            await self._retry(stage, shard, error)

    async def _learn(self, stage: Stage, shard: Shard, fetch: Fetch) -> None:
        if fetch.number != shard.fetches:
            self.counts["dropped"] += 1
            return await self._seek(shard)
        shard.fetches += fetch.fetches
        if shard.next == LOG_START:
            shard.next = fetch.records[0].offset
        for run in runs(self._unseen(shard, fetch)):
            if run[0].offset > shard.next and not await self._bridge(shard, run[0].offset):
                return None
            shard.dirty = True
            await stage.process(shard, run)
            if shard.lost:
                return None
            shard.next, shard.dirty = run[-1].offset + 1, False
            if shard.next > shard.failed_at:  # what is read again after a reload proves nothing yet
                shard.failures, shard.trouble = 0, ""
            self.counts["records"] += len(run)
        return None

    def _unseen(self, shard: Shard, fetch: Fetch) -> Sequence[ConsumerRecord]:
        """Leave out what is below ``next``; that comes only if the broker no longer had ``next`` and went back."""
        records = fetch.records
        if records[0].offset >= shard.next:
            return records
        if fetch.highwater < shard.next:
            raise GapError(
                f"{shard.name} ends at offset {fetch.highwater}, but its snapshot includes everything below "
                f"{shard.next}: the topic was made anew or the broker lost records. Delete the snapshots "
                f"{shard.name}@* to learn the topic from its start"
            )
        return [record for record in records if record.offset >= shard.next]

    async def _bridge(self, shard: Shard, first: int) -> bool:
        """Whether to go on at ``first`` although ``next`` did not come: asked again once, then judged."""
        if shard.suspect != shard.next:
            shard.suspect = shard.next
            self.counts["gaps"] += 1
            await self._seek(shard)
            return False
        try:
            start = await self.consumer.log_start(shard.tp, self.settings.release_s)
        except TimeoutError as error:
            raise UnavailableError(f"the broker does not tell the start of {shard.name}") from error
        proven = start >= first
        where = f"{first - shard.next} records of {shard.name} are missing: offsets {shard.next} to {first - 1}"
        if not proven and self.settings.on_gap == "stop":
            raise GapError(f"{where}, and the broker's log starts at {start}. Is it compacted or transactional?")
        log.error("gap", missing=where, log_start=start, counted="lost")
        self.losses.append(Loss(shard.tp, shard.next, first, proven))
        self.counts["lost"] += first - shard.next
        shard.next = first
        return True

    async def _retry(self, stage: Stage, shard: Shard, error: Exception) -> None:
        """Reload the shard and read again, as long as it takes: half a batch may be in its state.

        A restart would not bring a server back, and would make the whole group wait.
        """
        shard.failures, shard.trouble = shard.failures + 1, str(error) or repr(error)
        shard.failed_at = max(shard.failed_at, shard.next)
        self.counts["reloads"] += 1
        log.warning("shard_reloaded", shard=shard.name, times=shard.failures, reason=shard.trouble)
        await asyncio.sleep(0.1 * 2 ** min(shard.failures, MOST_DOUBLINGS))
        if await self._load(stage, shard):
            await self._seek(shard)

    async def _give_up(self, shard: Shard, error: Exception) -> None:
        if shard.lost:  # it was taken away in the middle; what its body says about that does not matter
            log.info("failed_after_revocation", shard=shard.name, reason=repr(error))
            return
        log.critical("worker_stops", shard=shard.name, offset=shard.next, reason=repr(error))
        shard.lose()
        await self._app.crash(error)

    # -- positions -----------------------------------------------------------------------------------------------

    def _positions(self) -> dict[TP, tuple[int, int]]:
        return {tp: self._new_epoch(shard) for tp, shard in self._shards.items()}

    def _new_epoch(self, shard: Shard) -> tuple[int, int]:
        shard.epoch, shard.fetches = next(self._epochs), 0
        # An offset below the log's start is answered with the start (``consumer_auto_offset_reset="earliest"``).
        return max(shard.next, 0), shard.epoch

    async def _seek(self, shard: Shard) -> None:
        await self.consumer.seek_shards({shard.tp: self._new_epoch(shard)})

    @property
    def consumer(self) -> BatchConsumer:
        """Faust's consumer."""
        consumer = self._app.consumer
        assert isinstance(consumer, BatchConsumer)
        return consumer

    # -- assignment ----------------------------------------------------------------------------------------------

    async def _on_assigned(self, *_: Any, **__: Any) -> None:
        """Load what was assigned; awaited before flow resumes. A newer assignment overtakes it at any await."""
        self._forget()
        term = self._term
        for tp in sorted(self.consumer.assignment()):
            stage = self._stages.get(tp.topic)
            if stage is None:
                continue
            shard = self._shards[tp] = Shard(tp.topic, tp.partition, self._clock())
            try:
                loaded = await self._load(stage, shard)
            except Exception as error:  # noqa: BLE001  # Faust would log it and go on with nothing loaded
                await self._give_up(shard, error)
                return
            if not loaded or term != self._term:
                return

    async def _load(self, stage: Stage, shard: Shard) -> bool:
        """Put the newest snapshot, or nothing, into the stage; False if the shard was taken away meanwhile."""
        began = self._clock()
        snapshot = await self._read(shard)
        if shard.lost:
            return False
        shard.loads += 1
        stage.open(shard.partition, None if snapshot is None else snapshot.arrays)
        shard.next = shard.saved = LOG_START if snapshot is None else snapshot.offset
        shard.saved_at = began
        shard.dirty, shard.suspect = False, None
        log.info("shard_loaded", shard=shard.name, offset=max(shard.next, 0), seconds=round(self._clock() - began, 2))
        return True

    async def _read(self, shard: Shard) -> Snapshot | None:
        """Newest snapshot; a store that does not answer is waited for, as a restart would not bring it back."""
        while True:
            try:
                return await asyncio.to_thread(self._snapshots.latest, shard.name)
            except OSError as error:
                log.warning("snapshots_unreadable", shard=shard.name, reason=str(error), then="tried again")
            await asyncio.sleep(READ_AGAIN_S)
            if shard.lost:
                return None

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        """Give everything back (rebalances are eager): the old generation still counts and may commit."""
        await self._release()

    async def _release(self) -> None:
        self._term += 1
        if not self.may_write():  # a batch that waits for leave to write would hold up the whole group in vain
            for shard in self._shards.values():
                shard.lost |= shard.dirty
        shards = [shard for shard in self._shards.values() if not shard.lost]
        saved = await asyncio.gather(*map(self._save_last, shards), return_exceptions=True)
        self._forget()
        await self._commit({shard.tp: at for shard, at in zip(shards, saved, strict=True) if isinstance(at, int)})
        for error in saved:
            if isinstance(error, BaseException):
                raise error

    async def _save_last(self, shard: Shard) -> int | None:
        """Last snapshot, within the time that the group can wait; what is not saved will be read again."""
        try:
            async with asyncio.timeout(self.settings.release_s):
                return await self._saver.save(shard, self._stages[shard.topic].copy, last=True)
        except TimeoutError:
            log.warning("given_back_without_snapshot", shard=shard.name, busy_s=self.settings.release_s)
            return None
        finally:
            shard.lose()

    def _forget(self) -> None:
        self._term += 1
        for shard in self._shards.values():
            shard.lose()
            self._stages[shard.topic].close(shard.partition)
        self._shards = {}

    # -- snapshots -----------------------------------------------------------------------------------------------

    async def _snapshot_forever(self) -> None:
        """One shard after another, each about once in the interval: never all of them at once."""
        while True:
            await asyncio.sleep(self.settings.snapshot_every_s / max(len(self._shards), 1))
            due = min(self._shards.values(), key=lambda shard: shard.tried_at, default=None)
            if due is not None:
                due.tried_at = self._clock()
                await self._save_and_commit(due)

    async def _save_and_commit(self, shard: Shard) -> None:
        offset = await self._saver.save(shard, self._stages[shard.topic].copy)
        if offset is not None:
            await self._commit({shard.tp: offset})

    async def _commit(self, offsets: Mapping[TP, int]) -> None:
        if offsets:
            done = await self.consumer.commit_exactly(offsets, self.settings.commit_s)
            self.counts["commits" if done else "commits_refused"] += 1

    # -- shutdown ------------------------------------------------------------------------------------------------

    async def _on_shutdown(self, *_: Any, **__: Any) -> None:
        self._exit_within(self.settings.release_s + self.settings.commit_s + self.settings.exit_s)
        await self._release()
        self._exit_within(self.settings.exit_s)

    def _exit_within(self, seconds: float) -> None:
        if self._hard_exit is not None:
            code = 0 if self._app.crash_reason is None else 1
            last_resort = threading.Timer(seconds, self._hard_exit, (code,))
            last_resort.daemon = True
            last_resort.start()

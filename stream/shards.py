"""The life of a shard: assigned, loaded, fed (`stream.feeding`), saved, given back; independent of what is learned.

A shard is the state of one partition of one topic, owned by the one worker that owns the partition. The snapshot is
the truth: it says which offset it includes, reading goes on exactly there, and Kafka's group offset only follows it.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from typing import Any, Final, Protocol, cast

import structlog
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.feeding import Feeder
from stream.outage import Outage
from stream.saving import Saver
from stream.shard import LOG_START, GapError, HostSettings, Loss, Shard, Stage
from stream.snapshots import Snapshot, SnapshotStore
from stream.transport import TP, BatchConsumer, BatchTransport, Fetch, Log
from stream.troubles import Troubles, for_ever

__all__ = ["GapError", "HostSettings", "Loss", "Shard", "ShardHost", "Stage"]

log = structlog.get_logger(__name__)

READ_AGAIN_S: Final = 1.0
SHARE: Final = "All workers must share one RIVULET_SNAPSHOT_FOLDER"
ENDS_S: Final = 1.0
DEFAULTS: Final = HostSettings()


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
    snapshots_away
        Whether a shard waits for the store of snapshots.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        snapshots: SnapshotStore,
        settings: HostSettings = DEFAULTS,
        *,
        clock: Callable[[], float] = time.monotonic,
        hard_exit: Callable[[int], None] | None = os._exit,
    ) -> None:
        self.settings = settings
        self.counts: Counter[str] = Counter()
        self._stages = {stage.topic: stage for stage in stages}
        self._snapshots = snapshots
        self.snapshots_away = Outage("snapshots")
        self._saver = Saver(snapshots, self.counts)
        self._clock = clock
        self._feeder = Feeder(self, self._stages, settings, self.counts, clock)
        self.losses = self._feeder.losses
        self._hard_exit = hard_exit
        self._shards: dict[TP, Shard] = {}
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
        for work in (self._snapshot, self._pass_ends):
            app.task(partial(for_ever, work, lambda: self.stopping, Troubles()))

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
        """Take a fetch for its stage; returns when there is room for another one of its shard."""
        shard = self._shards.get(fetch.tp)
        if shard is None:
            self.counts["stale"] += 1
        else:
            await self._feeder.take(shard, fetch)

    async def give_up(self, shard: Shard, error: Exception) -> None:
        """Stop the worker, unless the shard is not its own any more."""
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

    async def seek(self, shard: Shard) -> None:
        """Have its partition read from where the shard stands."""
        await self.consumer.seek_shards({shard.tp: self._new_epoch(shard)})

    async def log_start(self, tp: TP) -> int:
        """Oldest offset that the broker still has; TimeoutError if it does not tell."""
        return await self.consumer.log_start(tp, self.settings.release_s)

    async def committed(self, tp: TP) -> int | None:
        """Offset that the group has committed, None if it never has; TimeoutError if the broker does not tell."""
        return await self.consumer.committed(tp, self.settings.release_s)

    async def ask_log(self, tp: TP) -> Log | None:
        """What was read of a partition's log, all of one moment; None if it is not known."""
        return await self.consumer.ask_log(tp, self.settings.commit_s)

    async def _pass_ends(self) -> None:
        """Look for shards that wait for records which nobody can read; those that are busy need no help."""
        while True:
            await asyncio.sleep(ENDS_S)
            for shard in list(self._shards.values()):
                log = self.consumer.log_of(shard.tp)
                if log is not None and log.position >= log.end > max(shard.next, 0) and not shard.busy:
                    await self._feeder.pass_end(shard)

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
                loaded = await self.load(stage, shard)
            except Exception as error:  # noqa: BLE001  # Faust would log it and go on with nothing loaded
                await self.give_up(shard, error)
                return
            if not loaded or term != self._term:
                return

    async def load(self, stage: Stage, shard: Shard) -> bool:
        """Put the newest snapshot, or nothing, into the stage; False if the shard was taken away meanwhile."""
        began = self._clock()
        snapshot = await self._read(shard)
        if snapshot is None:
            await self._start_empty(shard)
        prepared = None if snapshot is None or shard.lost else await stage.prepare(snapshot.arrays)
        if shard.lost:
            return False
        shard.loads += 1
        stage.open(shard.partition, prepared)
        shard.next = shard.saved = LOG_START if snapshot is None else snapshot.offset
        shard.saved_at = began
        shard.dirty, shard.suspect = False, None
        log.info("shard_loaded", shard=shard.name, offset=max(shard.next, 0), seconds=round(self._clock() - began, 2))
        return True

    async def _read(self, shard: Shard) -> Snapshot | None:
        """Newest snapshot; a store that does not answer is waited for, as a restart would not bring it back."""
        with self.snapshots_away.asking() as failed:
            while not shard.lost:
                try:
                    return await asyncio.to_thread(self._snapshots.latest, shard.name)
                except OSError as error:
                    failed(str(error))
                await asyncio.sleep(READ_AGAIN_S)
        return None

    async def _start_empty(self, shard: Shard) -> None:
        """Judge that no snapshot was found: commits follow snapshots, so wherever one was made there was a snapshot.

        A log that is still whole teaches the same again; of one that is not, something that was learned is gone.
        """
        committed, start = await self._past(shard)
        if committed is None:
            return
        what = f"no snapshot of {shard.name} is found, although the group has committed offset {committed} after one"
        if start == 0:
            log.warning("snapshot_missing", what=what, then="all of its log is read again", check=SHARE)
            return
        loss = Loss(shard.tp, 0, start, proven=True)
        if self.settings.on_gap == "stop":
            raise GapError(
                f"{what}, and its log begins at {start}: what the records before that taught would be lost. {SHARE}. If"
                " the snapshots are gone for good: make topic covisits anew, and start with RIVULET_ON_GAP=accept until"
                " each shard has a snapshot"
            )
        if loss not in self.losses:  # else it was taken up before
            log.error("gap", missing=what, log_start=start, counted="lost")
            self.losses.append(loss)
            self.counts["lost"] += start

    async def _past(self, shard: Shard) -> tuple[int | None, int]:
        """Offset that the group has committed, if any, and then where the log begins; an answer is waited for."""
        said = False
        while not shard.lost:
            try:
                committed = await self.committed(shard.tp)
                return committed, 0 if committed is None else await self.log_start(shard.tp)
            except (KafkaError, TimeoutError) as error:
                if isinstance(error, KafkaError) and not error.retriable:
                    raise
                if not said:
                    log.warning("past_not_told", shard=shard.name, reason=repr(error), then="asked until it is told")
                said = True
            await asyncio.sleep(READ_AGAIN_S)
        return None, 0

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

    async def _snapshot(self) -> None:
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

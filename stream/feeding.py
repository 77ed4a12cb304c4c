"""Feeding shards: fetches in order, as batches, each record once, whatever the broker delivers twice or not at all.

Nothing that a stage raises leaves it: it reloads the shard or stops the worker. Faust would drop a batch whose agent
raised and go on behind it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import structlog
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.errors import UnavailableError
from stream.fetches import TP, ConsumerRecord, Fetch, Log
from stream.shard import LOG_START, GapError, HostSettings, Loss, Shard, Stage, runs

MOST_DOUBLINGS: Final = 5  # of the pause before a reload: 3.2 s, as whoever takes the shard away waits for it

log = structlog.get_logger(__name__)


class Home(Protocol):
    """What the owner of the shards does for those who feed them."""

    async def load(self, stage: Stage, shard: Shard) -> bool:
        """Put the newest snapshot, or nothing, into the stage; False if the shard was taken away meanwhile."""

    async def seek(self, shard: Shard) -> None:
        """Have the shard's partition read from where the shard stands."""

    async def log_start(self, tp: TP) -> int:
        """Oldest offset that the broker still has."""

    async def ask_log(self, tp: TP) -> Log | None:
        """What was read of a partition's log, all of one moment; None if it is not known."""

    async def give_up(self, shard: Shard, error: Exception) -> None:
        """Stop the worker, unless the shard is not its own any more."""


class Feeder:
    """Feeds the shards of a worker, side by side, each in order.

    Parameters
    ----------
    home
        Owner of the shards.
    stages
        What learns, by topic.
    settings
        See `HostSettings`.
    counts
        Counted here: records, stale, dropped, gaps, reloads, lost.
    clock
        Monotonic seconds.

    Attributes
    ----------
    losses
        The last 1000 ranges that were counted as lost.
    """

    def __init__(
        self,
        home: Home,
        stages: Mapping[str, Stage],
        settings: HostSettings,
        counts: Counter[str],
        clock: Callable[[], float],
    ) -> None:
        self._home, self._stages, self._settings = home, stages, settings
        self._counts, self._clock = counts, clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.losses: deque[Loss] = deque(maxlen=1000)

    async def take(self, shard: Shard, fetch: Fetch) -> None:
        """Take a fetch of a shard; returns when there is room for another one of it.

        Fetches that come while a batch is under way become one batch: the busier a worker is, the fewer and larger its
        batches, which cost less per record.
        """
        shard.waiting.append(fetch)
        if not shard.busy:
            shard.busy = True
            task = asyncio.create_task(self._work(self._stages[shard.topic], shard))
            self._tasks.add(task)  # the event loop itself holds tasks only weakly
            task.add_done_callback(self._tasks.discard)
        while sum(len(waiting.records) for waiting in shard.waiting) > self._settings.batch_records and not shard.lost:
            shard.room.clear()
            await shard.room.wait()

    async def pass_end(self, shard: Shard) -> None:
        """Go on behind what nobody can read at the end of a log: no record may ever come that shows the hole.

        A transaction's marker has an offset and is no record; and where all was deleted, the log ends where it starts.
        """
        try:
            async with shard.lock:
                log = await self._home.ask_log(shard.tp)
                if log is not None and self._stands_before_hole(shard, log):
                    await self._pass(shard, log.position)
        except (UnavailableError, KafkaError) as error:
            if isinstance(error, KafkaError) and not error.retriable:
                await self._home.give_up(shard, error)
        except Exception as error:  # noqa: BLE001  # as in `_work`
            await self._home.give_up(shard, error)

    def _stands_before_hole(self, shard: Shard, log: Log) -> bool:
        """Whether all that was handed on since the shard's last seek is in its state, and reading has come further."""
        if shard.lost or shard.dirty or not shard.loads or (log.epoch, log.fetches) != (shard.epoch, shard.fetches):
            return False
        return log.position >= log.end and log.position > max(shard.next, 0)

    async def _pass(self, shard: Shard, end: int) -> None:
        if shard.next == LOG_START:
            shard.next = end
        elif await self._bridge(shard, end):
            self._moved(shard)

    async def _work(self, stage: Stage, shard: Shard) -> None:
        """Feed what waits."""
        try:
            while shard.waiting:
                await stage.ready()
                if (early_s := shard.fed_at + stage.pace_s - self._clock()) > 0:
                    await asyncio.sleep(early_s)
                async with shard.lock:
                    await self._feed(stage, shard, self._next_batch(shard))
                shard.fed_at = self._clock()
        except Exception as error:  # noqa: BLE001  # the one place where any bug must stop the worker
            await self._home.give_up(shard, error)
        finally:
            shard.busy = False
            shard.room.set()

    def _next_batch(self, shard: Shard) -> Fetch | None:
        """As much of what waits as belongs together; None if nothing of it counts."""
        batch: Fetch | None = None
        while shard.waiting:
            fetch = shard.waiting[0]
            if shard.lost or fetch.epoch != shard.epoch:
                self._counts["stale"] += 1
            elif batch is None:
                batch = fetch
            elif batch.followed_by(fetch) and len(batch.records) + len(fetch.records) <= self._settings.batch_records:
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
            self._counts["dropped"] += 1
            return await self._home.seek(shard)
        shard.fetches += fetch.fetches
        if shard.next == LOG_START:
            shard.next = fetch.records[0].offset
        for run in runs(self._expected(shard, fetch)):
            if run[0].offset > shard.next and not await self._bridge(shard, run[0].offset):
                return None
            shard.dirty = True
            await stage.process(shard, run)
            if shard.lost:
                return None
            shard.next, shard.dirty = run[-1].offset + 1, False
            self._moved(shard)
            self._counts["records"] += len(run)
        return None

    def _moved(self, shard: Shard) -> None:
        if shard.next > shard.failed_at:  # what is read again after a reload proves nothing yet
            shard.failures, shard.trouble = 0, ""

    def _expected(self, shard: Shard, fetch: Fetch) -> Sequence[ConsumerRecord]:
        """Records of a fetch; what is below ``next`` comes only if the log ended before ``next`` when it was asked.

        It may have grown beyond that since: what is below is new nevertheless, and to leave it out would lose it.
        """
        if fetch.records[0].offset >= shard.next:
            return fetch.records
        raise GapError(
            f"{shard.name} was asked for offset {shard.next} and answers with {fetch.records[0].offset} (it ends at "
            f"{fetch.highwater} now): the topic was made anew or the broker lost records. To learn again what the "
            "logs have: stop all workers, empty the snapshot folder, make topic covisits anew"
        )

    async def _bridge(self, shard: Shard, first: int) -> bool:
        """Whether to go on at ``first`` although ``next`` did not come: asked again once, then judged.

        What stops the worker is not counted as lost: nothing was left out, and a worker that accepts it counts it.
        """
        if shard.suspect != shard.next:
            shard.suspect = shard.next
            self._counts["gaps"] += 1
            await self._home.seek(shard)
            return False
        try:
            start = await self._home.log_start(shard.tp)
        except TimeoutError as error:
            raise UnavailableError(f"the broker does not tell the start of {shard.name}") from error
        proven = start >= first
        where = f"{first - shard.next} records of {shard.name} are missing: offsets {shard.next} to {first - 1}"
        if not proven and self._settings.on_gap == "stop":
            raise GapError(f"{where}, and the broker's log starts at {start}. Is it compacted or transactional?")
        log.error("gap", missing=where, log_start=start, counted="lost")
        self.losses.append(Loss(shard.tp, shard.next, first, proven))
        self._counts["lost"] += first - shard.next
        shard.next = first
        return True

    async def _retry(self, stage: Stage, shard: Shard, error: Exception) -> None:
        """Reload the shard and read again, as long as it takes: half a batch may be in its state.

        A restart would not bring a server back, and would make the whole group wait.
        """
        shard.failures, shard.trouble = shard.failures + 1, str(error) or repr(error)
        shard.failed_at = max(shard.failed_at, shard.next)
        self._counts["reloads"] += 1
        log.warning("shard_reloaded", shard=shard.name, times=shard.failures, reason=shard.trouble)
        await asyncio.sleep(0.1 * 2 ** min(shard.failures, MOST_DOUBLINGS))
        if await self._home.load(stage, shard):
            await self._home.seek(shard)

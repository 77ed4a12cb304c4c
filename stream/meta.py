"""`rv:meta`: what each shard includes and each worker has done; and from what is missing there, that Redis lost it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from stream.fetches import TP
from stream.keys import CONTRACT_VERSION
from stream.resp import StoreError, WriteBatch
from stream.roster import BEAT_S, Roster

if TYPE_CHECKING:
    from stream.app import Worker

log = structlog.get_logger(__name__)


class _Marked(msgspec.Struct):
    marks: list[int] = []


class Meta:
    """Keeps this worker's fields of `rv:meta` true.

    Nobody takes a claim out, so one that was seen and is gone was lost by Redis: it was emptied (FLUSHALL) or came back
    without its data. (What is told is no such mark: it is written again four times a second.) In a cluster only the
    node that holds `rv:meta` is looked at this way; a restart is noticed on every node by its run id.

    Parameters
    ----------
    worker
        Whose progress is told.

    Attributes
    ----------
    roster
        The workers' own fields.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.roster = Roster(worker)
        self._told: dict[TP, tuple[int, float]] = {}
        self._all_at = 0.0  # monotonic
        self._claimed: set[str] = set()
        self._run_id = ""

    async def connect(self) -> None:
        """Remember which Redis this is."""
        self._run_id = await self._worker.store.run_id()

    async def claim(self, *shards: str) -> bool:
        """Leave word that shards have an owner; whether one of them surely had none before."""
        return await self._worker.store.mark(self._worker.keys.meta, *(f"owned-{shard}".encode() for shard in shards))

    async def marked(self, partition: int) -> int:
        """Highest offset of a partition of `events` whose deltas some item shard has said to hold; -1 for none."""
        topic, partitions = self._worker.item_agent.topic, range(self._worker.settings.covisits_partitions)
        try:
            fields = await self._worker.store.hgetall(self._worker.keys.meta)
            told = [fields.get(_field(TP(topic, item_partition)), b"{}") for item_partition in partitions]
            marks = [msgspec.json.decode(value, type=_Marked).marks for value in told]
        except (StoreError, msgspec.MsgspecError):  # somebody else's value: the next write there replaces it
            return -1
        return max((own[partition] for own in marks if partition < len(own)), default=-1)

    async def notice_loss(self) -> None:
        """Doubt all that was written if Redis is another process, or does not know a claim any more."""
        run_id = await self._worker.store.run_id()
        if run_id != self._run_id:
            log.warning("redis_restarted", was=self._run_id, now=run_id)
            self._run_id = run_id
        elif await self._remembers():
            return
        else:
            log.warning("redis_emptied", doubted="all that was written")
        self._told.clear()
        self._worker.doubt()
        if shards := self._worker.host.shards.values():
            await self.claim(*(shard.name for shard in shards))

    async def _remembers(self) -> bool:
        """Whether all claims are still there; they are looked at and renewed in one, so that no write can hide a loss.

        That of a user shard says that lists were written: it is not set before they are.
        """
        worker = self._worker
        shards = [s for s in worker.host.shards.values() if s.topic != worker.user_agent.topic or s.first is not None]
        names = {shard.name for shard in shards}
        seen, new = names & self._claimed, names - self._claimed
        self._claimed |= names
        if new:
            await self.claim(*new)
        return not (seen and await self.claim(*seen))

    async def tell(self) -> None:
        """Write what has changed, and each minute all: an owner of before may have spoilt what stands still since.

        What it had under way when Redis went away from it alone comes after what its successor wrote.
        """
        worker = self._worker
        if monotonic() >= self._all_at:
            self._told.clear()
        stands = {tp: (shard.next, shard.owned_since) for tp, shard in worker.host.shards.items()}
        moved = {tp: stand for tp, stand in stands.items() if self._told.get(tp) != stand}
        due = self.roster.due(moved=bool(moved))
        if not due or not worker.host.may_write():  # else an owner of before could spoil what its successor says
            return
        fields = {_field(tp): self._shard_facts(tp, *stand) for tp, stand in moved.items()}
        fields[self.roster.field] = msgspec.json.encode(self._worker_facts())
        fields[b"contract"] = b"%d" % CONTRACT_VERSION
        batch = WriteBatch()
        batch.hset(worker.keys.meta, fields, None)
        await worker.store.flush(batch)
        if not self._told:
            self._all_at = monotonic() + BEAT_S
        self._told.update(moved)
        self.roster.told()

    def _shard_facts(self, tp: TP, at: int, since: float) -> bytes:
        worker = self._worker
        facts: dict[str, Any] = {"next": at, "owner": f"{self.roster.name} since {since:.3f}"}
        users, items = worker.users.shards.get(tp.partition), worker.items.shards.get(tp.partition)
        if tp.topic == worker.user_agent.topic and users is not None:
            facts |= users.facts()
        elif tp.topic == worker.item_agent.topic and items is not None:
            facts |= {"marks": items.marks.tolist(), "counts": dict(items.counts)}
        elif tp.topic == worker.global_agent.topic:
            globe = worker.globe
            facts |= {"samples": globe.samples, "models": {"segments": globe.version, "blend": globe.weights.version}}
        return msgspec.json.encode(facts)

    def _worker_facts(self) -> dict[str, Any]:
        stats = self._worker.stats
        return {
            **stats.counts,
            "up_s": self.roster.up_s,
            "freshness_p50_ms": stats.freshness.quantile(0.5),
            "freshness_p99_ms": stats.freshness.quantile(0.99),
            "lost": self._worker.host.counts["lost"],
            "cache_hits": self._worker.neighbours.hits,
            "cache_misses": self._worker.neighbours.misses,
        }


def _field(tp: TP) -> bytes:
    return f"{tp.topic}-{tp.partition}".encode()

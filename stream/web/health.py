"""What is wrong with a worker, judged on progress: check name -> one sentence; empty when all is well.

`alive` is for a supervisor that restarts, `ready` for people and for those who wait: a server that is away makes a
worker unready, but restarting it would help nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from stream.app import Worker

UNSAVED: Final = 20  # intervals between snapshots


def alive(worker: Worker) -> dict[str, str]:
    """Why this process should be restarted; it ends itself when twice the time has passed."""
    standstill = worker.pulse.longest
    if standstill is None or standstill.seconds <= worker.settings.stall_s / 2:
        return {}
    return {"progress": f"{standstill.what}, for {standstill.seconds:.0f} s"}


def ready(worker: Worker) -> dict[str, str]:
    """Why what is in Redis may be older than it should be, or what was learned is not safe."""
    checks = {
        "kafka": worker.pulse.kafka.trouble,
        "redis": worker.store.outage.trouble,
        "snapshots": worker.host.snapshots_away.trouble or _unsaved(worker),
        "topics": "; ".join(worker.background.topic_faults),
        "assigned": _unassigned(worker),
        "broadcast": "" if worker.broadcast.caught_up.is_set() else "catalogue, offers and models are not read yet",
        "caught_up": _behind(worker),
    }
    return {name: trouble for name, trouble in checks.items() if trouble}


def _unassigned(worker: Worker) -> str:
    if not worker.pulse.in_group():
        return "this worker is not a member of its group"
    if not worker.host.consumer.flow_active:
        return "the group is sharing out its partitions"
    return ""


def _unsaved(worker: Worker) -> str:
    """A full disk, or a put that never returns: nothing stands still for it, but a crash would cost a lot."""
    host = worker.host
    waiting = [shard for shard in host.shards.values() if shard.next > shard.saved]
    if not waiting:
        return ""
    oldest = min(waiting, key=lambda shard: shard.saved_at)
    unsaved_s = host.now() - oldest.saved_at
    if unsaved_s <= UNSAVED * worker.settings.snapshot_every_s:
        return ""
    return f"{oldest.name} was not saved for {unsaved_s:.0f} s: a new process would learn again what came since"


def _behind(worker: Worker) -> str:
    """Empty for a worker that owns nothing: it has nothing to catch up with."""
    lags = worker.pulse.lags()
    unknown = [shard.name for tp, shard in worker.host.shards.items() if tp not in lags]
    if unknown:
        return f"the log of {unknown[0]} is not known yet"
    failing = [shard for shard in worker.host.shards.values() if shard.failures]
    if failing:
        shard = max(failing, key=lambda shard: shard.failures)
        times = f"{shard.name} was reloaded {shard.failures} times"
        return f"{times} and does not get beyond offset {max(shard.failed_at, 0)}: {shard.trouble}"
    far = {tp: lag for tp, lag in lags.items() if lag > worker.settings.ready_records}
    if not far:
        return ""
    tp = max(far, key=far.__getitem__)
    return f"{tp.topic}-{tp.partition} lags {far[tp]} records, more than {worker.settings.ready_records}"

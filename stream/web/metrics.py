"""What Prometheus sees of a worker: read from the counters that exist anyway, when it asks.

Nothing is incremented per event for its sake; a scrape costs a few milliseconds of the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from stream.stats import Histogram
from stream.web.memory import memory

if TYPE_CHECKING:
    from stream.app import Worker

Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, Any]]

OUTCOMES: Final = frozenset({"learned", "dead", "duplicates", "late", "denied", "rekeyed", "forgotten"})
MS: Final = 1_000
US: Final = 1_000_000


class Family(NamedTuple):
    """One metric: its name (counters show it with ``_total``), labels, meaning, and where its values are."""

    kind: Callable[..., Any]
    name: str
    labels: Labels
    meaning: str
    read: Callable[[Worker], Samples]
    per_unit: int = 1  # histograms count whole numbers, so many to one of the metric's unit


def _events(worker: Worker) -> Iterator[tuple[Labels, int]]:
    for partition, shard in worker.users.shards.items():
        for what, count in shard.counts.items():
            outcome, _, reason = what.partition(":")
            if outcome in OUTCOMES:
                yield (str(partition), outcome, reason), count


def _without_id(worker: Worker) -> Samples:
    return [((str(partition),), shard.counts["without_id"]) for partition, shard in worker.users.shards.items()]


def _lags(worker: Worker) -> Samples:
    return [((tp.topic, str(tp.partition)), lag) for tp, lag in worker.pulse.lags().items()]


def _snapshots(fact: str) -> Callable[[Worker], Samples]:
    def read(worker: Worker) -> Samples:
        found = ((shard, getattr(shard, fact)) for shard in worker.host.shards.values())
        return [((shard.topic, str(shard.partition)), value) for shard, value in found if value]

    return read


def _snapshot_ages(worker: Worker) -> Samples:
    now = worker.host.now()
    return [((tp.topic, str(tp.partition)), now - shard.saved_at) for tp, shard in worker.host.shards.items()]


def _cache(worker: Worker) -> Samples:
    return [(("hit",), worker.neighbours.hits), (("miss",), worker.neighbours.misses)]


def _up(worker: Worker) -> Samples:
    return [(("kafka",), not worker.pulse.kafka.trouble), (("redis",), not worker.store.outage.trouble)]


def _standstill(worker: Worker) -> Samples:
    longest = worker.pulse.longest
    return [((), 0.0 if longest is None else longest.seconds)]


def _users(worker: Worker) -> Samples:
    return [((str(partition),), len(shard.users)) for partition, shard in worker.users.shards.items()]


def _counts(counter: Callable[[Worker], dict[str, int]]) -> Callable[[Worker], Samples]:
    return lambda worker: [((what,), count) for what, count in counter(worker).items()]


def _one(value: Callable[[Worker], Any]) -> Callable[[Worker], Samples]:
    return lambda worker: [((), value(worker))]


def _count(what: str) -> Callable[[Worker], Samples]:
    return _one(lambda worker: worker.stats.counts[what])


SHARD: Final = ("topic", "partition")
COUNTER, GAUGE, HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily


def _families() -> tuple[Family, ...]:
    return (
        Family(
            COUNTER,
            "rivulet_events",
            ("partition", "outcome", "reason"),
            "Events by what became of them, as in the books; `reason` for `dead` ones only",
            _events,
        ),
        Family(
            COUNTER,
            "rivulet_events_without_id",
            ("partition",),
            "Events without `event_id`, whose repeats cannot be recognised",
            _without_id,
        ),
        Family(GAUGE, "rivulet_lag_records", SHARD, "Records that are written and not yet included", _lags),
        Family(
            GAUGE,
            "rivulet_skew_records",
            (),
            "Records of covisits sent and not yet applied here; above a setting events wait",
            _one(lambda worker: worker.gate.lag()),
        ),
        Family(
            HISTOGRAM,
            "rivulet_freshness_seconds",
            (),
            "Redis' answer minus the event's timestamp, per event",
            _one(lambda worker: worker.stats.freshness),
            MS,
        ),
        Family(
            HISTOGRAM,
            "rivulet_batch_records",
            ("stage",),
            "Records per batch",
            lambda worker: [((stage,), found) for stage, found in worker.stats.batches.items()],
        ),
        Family(
            HISTOGRAM,
            "rivulet_step_seconds",
            ("stage", "step"),
            "Duration of each step of a batch, waits included",
            lambda worker: list(worker.stats.steps.items()),
            US,
        ),
        Family(COUNTER, "rivulet_lists", (), "Lists ranked", _count("lists")),
        Family(COUNTER, "rivulet_keys", (), "Redis keys written", _count("keys")),
        Family(
            GAUGE,
            "rivulet_snapshot_age_seconds",
            SHARD,
            "Since the shard was last saved or found unchanged",
            _snapshot_ages,
        ),
        Family(GAUGE, "rivulet_snapshot_bytes", SHARD, "Size of the last snapshot", _snapshots("saved_bytes")),
        Family(GAUGE, "rivulet_snapshot_seconds", SHARD, "Time to write the last one", _snapshots("saved_seconds")),
        Family(
            COUNTER,
            "rivulet_shard_actions",
            ("action",),
            "Records, stale and dropped fetches, gaps, lost records, reloads, snapshots, commits and their failures",
            _counts(lambda worker: worker.host.counts),
        ),
        Family(GAUGE, "rivulet_up", ("server",), "1 while Kafka or Redis answers this worker", _up),
        Family(
            GAUGE,
            "rivulet_standstill_seconds",
            (),
            "How long something with work to do has not moved; the watchdog ends the process above a setting",
            _standstill,
        ),
        Family(
            COUNTER,
            "rivulet_redis_retries",
            (),
            "Rounds sent again to Redis",
            _one(lambda worker: worker.store.retries),
        ),
        Family(COUNTER, "rivulet_redis_errors", (), "Commands refused", _one(lambda worker: worker.store.refused)),
        Family(COUNTER, "rivulet_neighbour_cache", ("result",), "Rows of other workers' items looked up", _cache),
        Family(
            GAUGE,
            "rivulet_neighbour_cache_rows",
            (),
            "Such rows kept",
            _one(lambda worker: len(worker.neighbours)),
        ),
        Family(
            COUNTER,
            "rivulet_broadcast_records",
            (),
            "Records read of catalogue, offers and models",
            _one(lambda worker: worker.broadcast.read),
        ),
        Family(
            COUNTER,
            "rivulet_broadcast_refused",
            (),
            "Those of them that were not valid",
            _one(lambda worker: worker.broadcast.refused),
        ),
        Family(GAUGE, "rivulet_users", ("partition",), "Users known", _users),
        Family(GAUGE, "rivulet_items", (), "Items known", _one(lambda worker: len(worker.space.ids))),
        Family(
            GAUGE,
            "rivulet_memory_bytes",
            ("structure",),
            "Bytes of arrays; those that are reserved and untouched included",
            _counts(memory),
        ),
    )


FAMILIES: Final = _families()


class WorkerCollector(Collector):
    """Shows a worker's counters as Prometheus metrics.

    Parameters
    ----------
    worker
        Whose.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def describe(self) -> list[Metric]:
        """Nothing: names are registered without reading values."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        for family in FAMILIES:
            metric = family.kind(family.name, family.meaning, labels=family.labels)
            for labels, value in family.read(self._worker):
                if isinstance(value, Histogram):
                    metric.add_metric(labels, _buckets(value, family.per_unit), value.total / family.per_unit)
                else:
                    metric.add_metric(labels, value)
            yield metric


def _buckets(histogram: Histogram, per_unit: int) -> list[tuple[str, int]]:
    found = [(repr(edge / per_unit), count) for edge, count in histogram.cumulative()]
    return [*found[:-1], ("+Inf", found[-1][1])]

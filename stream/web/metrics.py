"""What Prometheus sees of a worker: read from the counters that exist anyway, when it asks.

Nothing is incremented per event for its sake; a scrape costs a few milliseconds of the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from models.blend_features import NAMES
from stream.stats import Histogram
from stream.web.door import Door
from stream.web.memory import memory

if TYPE_CHECKING:
    from stream.app import Worker

Seen = TypeVar("Seen")
Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, Any]]

LINKS: Final = ("joined", "returned", "not_cookies", "links_repeated")
OUTCOMES: Final = frozenset({"learned", "dead", "duplicates", "late", "denied", "rekeyed", "forgotten"})
MS: Final = 1_000
US: Final = 1_000_000


class Family(NamedTuple, Generic[Seen]):
    """One metric: its name (counters show it with ``_total``), labels, meaning, and where its values are."""

    kind: Callable[..., Any]
    name: str
    labels: Labels
    meaning: str
    read: Callable[[Seen], Samples]
    per_unit: int = 1  # histograms count whole numbers, so many to one of the metric's unit


def _events(worker: Worker) -> Iterator[tuple[Labels, int]]:
    for partition, shard in worker.users.shards.items():
        for what, count in shard.counts.items():
            outcome, _, reason = what.partition(":")
            if outcome in OUTCOMES:
                yield (str(partition), outcome, reason), count


def _links(worker: Worker) -> Iterator[tuple[Labels, int]]:
    for partition, shard in worker.users.shards.items():
        yield from (((str(partition), what), shard.counts[what]) for what in LINKS)


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


def _counts(counter: Callable[[Seen], Mapping[Any, int]]) -> Callable[[Seen], Samples]:
    return lambda seen: [((str(what),), count) for what, count in counter(seen).items()]


def _one(value: Callable[[Seen], Any]) -> Callable[[Seen], Samples]:
    return lambda seen: [((), value(seen))]


def _count(what: str) -> Callable[[Worker], Samples]:
    return _one(lambda worker: worker.stats.counts[what])


def _blend(fact: str) -> Callable[[Worker], Samples]:
    def read(worker: Worker) -> Samples:
        blends = ((str(partition), shard.blend) for partition, shard in worker.users.shards.items())
        return [((partition,), getattr(blend, fact)) for partition, blend in blends if blend.lessons]

    return read


def _each(fact: str) -> Callable[[Worker], Samples]:
    def read(worker: Worker) -> Samples:
        return [((*labels, name), value) for labels, values in _blend(fact)(worker) for name, value in values.items()]

    return read


def _weights(worker: Worker) -> Samples:
    blends = ((str(partition), shard.blend) for partition, shard in worker.users.shards.items())
    return [
        ((partition, name), weight)
        for partition, blend in blends
        if blend.lessons
        for name, weight in zip(NAMES, blend.weights.tolist(), strict=True)
    ]


SHARD: Final = ("topic", "partition")
COUNTER, GAUGE, HISTOGRAM = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily


def _families() -> tuple[Family[Worker], ...]:
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
        Family(
            COUNTER,
            "rivulet_links",
            ("partition", "what"),
            "Histories of cookies: `joined` to a customer's, taken from one as another had logged in before"
            " (`returned`), refused as the id is a customer's own (`not_cookies`), or heard of before"
            " (`links_repeated`)",
            _links,
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
            "rivulet_watched_seconds",
            (),
            "Seconds the watchdog has looked on; those while the process was stopped are not among them",
            _one(lambda worker: worker.pulse.felt_s),
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
        Family(COUNTER, "rivulet_blend_lessons", ("partition",), "Touches the blend learned from", _blend("lessons")),
        Family(
            COUNTER,
            "rivulet_blend_drifts",
            ("partition",),
            "Lasting falls of the blend's hit rate, each of which made it learn faster",
            _blend("drifts"),
        ),
        Family(
            GAUGE,
            "rivulet_blend_hit_rate",
            ("partition",),
            "Share of recent lessons whose item the blend had among its first 20",
            _blend("hit_rate"),
        ),
        Family(
            GAUGE,
            "rivulet_blend_constant",
            ("partition", "constant"),
            "Value that leads the race of one of the blend's constants",
            _each("constants"),
        ),
        Family(
            COUNTER,
            "rivulet_blend_constant_changes",
            ("partition", "constant"),
            "How often another value of it took the lead",
            _each("changes"),
        ),
        Family(GAUGE, "rivulet_blend_weight", ("partition", "feature"), "Weights of the blend", _weights),
        Family(
            GAUGE,
            "rivulet_model_version",
            ("model",),
            "Version of each broadcast model this worker has taken over",
            _counts(lambda worker: worker.users.versions),
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
DOOR_FAMILIES: Final[tuple[Family[Door], ...]] = (
    Family(
        COUNTER,
        "rivulet_door_requests",
        ("status",),
        "Requests to `/v1/events` by HTTP status",
        _counts(lambda door: door.requests),
    ),
    Family(
        COUNTER,
        "rivulet_door_events",
        ("source", "outcome", "reason"),
        "Their elements: `accepted`, `refused` with the reason, `unsent` (answered 503)",
        lambda door: list(door.events.items()),
    ),
    Family(
        COUNTER,
        "rivulet_door_mapped",
        ("shape",),
        "Accepted events of other shapes",
        _counts(lambda door: door.mapped),
    ),
    Family(
        HISTOGRAM,
        "rivulet_door_seconds",
        (),
        "Duration of accepted requests, acknowledgement included",
        _one(lambda door: door.took),
        US,
    ),
    Family(
        GAUGE,
        "rivulet_door_queue_bytes",
        (),
        "Bytes being read or waiting for Kafka; above a setting 503",
        _one(lambda door: door.inlet.room.held),
    ),
)


class SeenCollector(Collector, Generic[Seen]):
    """Shows the counters of a worker, or of a door, as Prometheus metrics.

    Parameters
    ----------
    families
        Which.
    seen
        Whose.
    """

    def __init__(self, families: Sequence[Family[Seen]], seen: Seen) -> None:
        self._families = families
        self._seen = seen

    def describe(self) -> list[Metric]:
        """Nothing: names are registered without reading values."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        for family in self._families:
            metric = family.kind(family.name, family.meaning, labels=family.labels)
            for labels, value in family.read(self._seen):
                if isinstance(value, Histogram):
                    metric.add_metric(labels, _buckets(value, family.per_unit), value.total / family.per_unit)
                else:
                    metric.add_metric(labels, value)
            yield metric


def _buckets(histogram: Histogram, per_unit: int) -> list[tuple[str, int]]:
    found = [(repr(edge / per_unit), count) for edge, count in histogram.cumulative()]
    return [*found[:-1], ("+Inf", found[-1][1])]

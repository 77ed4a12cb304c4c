"""Global stage: clustering, merged trending, broadcast. One shard: the single partition of topic ``global``."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.features import CHANNELS, Profile, Vectoriser
from models.nesting import part, prefixed
from models.segments import Segments
from models.trending import Trending
from stream.copying import Copying, Rows, Source, facts
from stream.decoding import Record
from stream.keys import TRENDING_TTL_S, Keys
from stream.resp import WriteBatch
from stream.stages.sends import Send
from stream.stages.space import MAX_CATEGORIES
from stream.stages.weights import Weights
from stream.wire import Popular, Profiled, Weighed, decode_global

DIRECT: Final = CHANNELS.index("direct")
SETTLED_SAMPLES: Final = 64  # before this many samples the categories have no columns yet
GONE: Final = 100_000
MODEL_KEY: Final = b"segments"


class SegmentModel(msgspec.Struct, frozen=True, kw_only=True):
    """What the user stages need to assign segments: value of record ``segments`` on topic ``models``."""

    version: int
    names: list[str]
    centres: list[list[float]]
    means: list[float]
    stds: list[float]
    labels: list[str]


decode_model: Final = msgspec.json.Decoder(SegmentModel).decode


@dataclass(slots=True)
class Broadcast:
    """One publication of the global stage."""

    writes: WriteBatch
    sends: list[Send]
    ended: set[tuple[str, str]]  # trending lists and segments that it takes away
    surplus: set[int]


class GlobalStage:
    """The global stage of the worker that owns the partition.

    Parameters
    ----------
    keys
        Builder of Redis keys.
    segments
        Number of segments, 1 to 63.
    k
        Length of trending lists.
    seed
        Seeds the first centres.
    """

    def __init__(self, keys: Keys, *, segments: int = 8, k: int = 20, seed: int = 1) -> None:
        self.keys = keys
        self.k = k
        self.owned = False
        self.withdrawn: set[str] = set()  # as the catalogue says, whoever owns the shard
        self.gone: dict[str, None] = {}  # those of them that the catalogue does not even have any more, oldest first
        self._fresh = (segments, seed)
        self._start()

    def _start(self) -> None:
        self.segments = Segments(k=self._fresh[0], seed=self._fresh[1])
        self.vectoriser = Vectoriser()
        self.trending = Trending()
        self.category_weight: defaultdict[str, float] = defaultdict(float)
        self.sizes: Counter[int] = Counter()
        self.marks: dict[str, int] = {}  # offset of the last sample learned, by partition of topic `events`
        self.samples = 0
        self.newest = 0
        self.version = 0
        self.weights = Weights()
        self.listed: set[tuple[str, str]] = set()  # trending lists that readers may find
        self.surplus: set[int] = set()  # segments that readers may find, though there are fewer now
        self.changed = False

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Start the shard: empty, or from a snapshot. No other partition is ever written to, should there be one."""
        if partition:
            return
        self._start()
        self.owned = True
        if arrays is None:
            return
        told = msgspec.json.decode(arrays["facts"].tobytes())
        segments = Segments.from_arrays(part(arrays, "segments"))
        self.trending = Trending.from_arrays(part(arrays, "trending"))
        self.weights = Weights.restore(part(arrays, "weights"))
        self.vectoriser = Vectoriser(told["categories"])
        self.category_weight = defaultdict(float, told["category_weight"])
        self.sizes = Counter({int(segment): n for segment, n in told["sizes"].items()})
        self.marks = told["marks"]
        self.samples, self.newest, self.version = told["samples"], told["newest"], told["version"]
        self.listed = {(kind, name) for kind, name in told["listed"]}
        known = {*range(segments.k), *told.get("surplus", ())}
        self.surplus = {segment for segment in known if segment >= self.segments.k}
        self.changed = True
        if segments.k == self.segments.k:
            self.segments = segments
        else:  # other segments are other groups of people: found anew, from as many samples as at the very first
            self.trending.segments.clear()
            self.sizes.clear()

    def close(self, partition: int) -> None:
        """Stop publishing; the state stays until the shard is opened again."""
        self.owned = self.owned and partition != 0

    def copy(self, partition: int) -> Copying:
        """Begin a copy of the state: small, so all of it at a standstill."""
        return Copying({}, self._state)

    def _state(self) -> dict[str, Source]:
        told = {
            "categories": self.vectoriser.categories,
            "category_weight": dict(self.category_weight),
            "sizes": {str(segment): n for segment, n in self.sizes.items()},
            "marks": self.marks,
            "samples": self.samples,
            "newest": self.newest,
            "version": self.version,
            "listed": sorted(self.listed),
            "surplus": sorted(self.surplus),
        }
        arrays = prefixed("segments", self.segments.to_arrays()) | prefixed("trending", self.trending.arrays())
        rows = {name: Rows(array) for name, array in arrays.items()}
        return {"facts": facts(told), **rows, **prefixed("weights", self.weights.state())}

    def learn(self, partition: int, records: Sequence[Record]) -> None:
        """Learn from one fetch of popularity, sampled profiles and weights."""
        for record in records:
            message = decode_global(record.value or b"")
            if isinstance(message, Popular):
                self.trending.replace(message.items, message.values, message.epochs, message.categories)
                self.newest = max(self.newest, message.ts)
            elif isinstance(message, Weighed):
                self.weights.learn(message)
            else:
                self._learn_samples(message)
            self.changed = True

    def _learn_samples(self, message: Profiled) -> None:
        source = str(message.source)
        mark = self.marks.get(source, -1)
        self.marks[source] = max([mark, *message.offset])
        taken = [n for n, offset in enumerate(message.offset) if offset > mark]  # a restarted source sends again
        while taken:
            run = taken[: SETTLED_SAMPLES - self.samples % SETTLED_SAMPLES]
            self._learn_run(message, run)
            taken = taken[len(run) :]

    def _learn_run(self, message: Profiled, run: Sequence[int]) -> None:
        """Learn samples up to the next look for categories that deserve a column, which the last of them sees."""
        profiles = [_profile(message, n) for n in run]
        for profile in profiles:
            self._weigh_categories(profile.categories)
        settled = (self.samples + len(run)) % SETTLED_SAMPLES == 0
        rows = [self.vectoriser.row(profile) for profile in profiles]
        chosen = self._learn_rows(rows[:-1] if settled else rows)
        if settled:
            self.vectoriser = self.vectoriser.extended(self.category_weight)
            chosen += self._learn_rows([self.vectoriser.row(profiles[-1])])
        self.samples += len(run)
        self.newest = max(self.newest, *(message.ts[n] for n in run))
        for n, segment in zip(run, chosen, strict=True):
            if segment >= 0:
                self.sizes[segment] += 1
                if message.items[n] and message.weights[n] > 0:
                    self.trending.add_to_segment(segment, message.items[n], message.weights[n], message.ts[n])

    def _learn_rows(self, rows: list[list[float]]) -> list[int]:
        self.segments.meet(self.vectoriser.names)
        return self.segments.learn_rows(np.array(rows)).tolist() if rows else []

    def _weigh_categories(self, affinities: Mapping[str, float]) -> None:
        if len(self.category_weight) > MAX_CATEGORIES:  # keep the heavier half
            heavy = sorted(self.category_weight.items(), key=lambda cell: (-cell[1], cell[0]))
            self.category_weight = defaultdict(float, heavy[: MAX_CATEGORIES // 2])
        total = sum(affinities.values())
        for category, weight in affinities.items():
            self.category_weight[category] += weight / total

    def withdraw(self, item: str, withdrawn: bool = True, *, listed: bool = True) -> None:
        """Take an item out of all trending lists from the next publication on, or let it in again.

        `listed` says whether the catalogue still has it. Of those that it has not, the last `GONE` are remembered; one
        that is visited after that is a new item.
        """
        if (item in self.withdrawn) != withdrawn:
            (self.withdrawn.add if withdrawn else self.withdrawn.discard)(item)
            self.changed = True
        self.gone.pop(item, None)
        if withdrawn and not listed:
            self.gone[item] = None
            if len(self.gone) > GONE:
                oldest = next(iter(self.gone))
                del self.gone[oldest]
                self.withdrawn.discard(oldest)

    def publish(self) -> Broadcast:
        """Write trending lists and segments, and broadcast the segment model and the blend's mean weights.

        Until `published` says that it is written, what it takes away counts as still there.
        """
        writes = WriteBatch()
        self.changed = False
        ts_ms = self.newest * 1000
        lists = self.trending.top(self.k, self.withdrawn)
        for name, (items, scores) in lists.items():
            writes.set(self._trending_key(name), _list(items, scores, ts_ms), TRENDING_TTL_S)
        ended, surplus = self.listed - lists.keys(), set(self.surplus)
        self.listed |= lists.keys()
        writes.delete(*map(self._trending_key, sorted(ended)), *map(self.keys.segment, sorted(surplus)))
        sends = self.weights.publish()
        if not self.segments.trained:
            return Broadcast(writes, sends, ended, surplus)
        self.version += 1
        labels = self.segments.labels()
        for segment, centroid in enumerate(self.segments.centroids()):
            fields = {"size": str(self.sizes[segment]), "label": labels[segment]}
            fields |= {name: f"{value:.6g}" for name, value in centroid.items()}
            hashed = {name.encode(): value.encode() for name, value in fields.items()}
            writes.hset(self.keys.segment(segment), hashed, None)
        model = self.segments.model()
        broadcast = SegmentModel(
            version=self.version,
            names=list(self.segments.names),
            centres=model["centres"].tolist(),
            means=model["means"].tolist(),
            stds=model["stds"].tolist(),
            labels=labels,
        )
        sends.append(Send("models", msgspec.json.encode(broadcast), partition=0, key=MODEL_KEY))
        return Broadcast(writes, sends, ended, surplus)

    def published(self, broadcast: Broadcast) -> None:
        """Redis has what was to be written."""
        self.listed -= broadcast.ended
        self.surplus -= broadcast.surplus

    def _trending_key(self, name: tuple[str, str]) -> bytes:
        kind, value = name
        if kind == "category":
            return self.keys.trending(category=value)
        return self.keys.trending(segment=value) if kind == "segment" else self.keys.trending()


def _profile(message: Profiled, n: int) -> Profile:
    channel = message.channel[n] - 1 if message.channel[n] > 0 else DIRECT
    recency, frequency, spend, hour_sin, hour_cos = message.numbers[n]
    return Profile(recency, frequency, spend, hour_sin, hour_cos, channel, message.affinities[n])


def _list(items: list[str], scores: list[float], ts_ms: int) -> bytes:
    rounded = [round(score, 6) for score in scores]
    return msgspec.json.encode(
        {
            "v": 1,
            "ts": ts_ms,
            "model": "trending",
            "exp": None,
            "items": items,
            "scores": rounded,
            "why": [(None, "trending")] * len(items),
        }
    )

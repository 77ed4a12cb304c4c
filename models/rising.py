"""What is rising: items whose share of the latest events exceeds their share of the longer run."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.decay import decay_add_many
from models.kernel import kernel
from models.nesting import part, prefixed
from models.toplist import ScoreRanker
from models.vocabulary import Vocabulary, grown

SHORT_S: Final = 3 * 3600.0
LONG_S: Final = 7 * 86_400.0
DOUBT: Final = 5.0
SHORT, LONG = 0, 1  # rows


class RisingArrays(NamedTuple):
    """Decayed counts by half-life (short, long) and item, as cells of `models.decay`, and those of all events."""

    value: NDArray[np.float64]
    epoch: NDArray[np.int32]
    total: NDArray[np.float64]
    total_epoch: NDArray[np.int32]


class Rising(ScoreRanker):
    """Trend of items: how much more often they are touched lately than their share of the longer run says.

    With c the decayed counts of an item and C those of all events, short and long,
    ``trend = (c_short + b) / (C_short c_long / C_long + b)``: 1 for an item that keeps its share, whether traffic as a
    whole rises or falls (nights, sales); b pulls rarely touched items towards 1. Scores are ``trend - 1`` of items
    above 1. It finds what is news, not what is liked: use it beside `Popularity`.

    Parameters
    ----------
    short_s, long_s
        Half-lives in seconds of event time, ``0 < short_s < long_s``. A shorter short one is faster and noisier.
    doubt
        b: touches, within the short half-life, that an item must have beyond its share for its trend to double; > 0.
    max_items
        Items counted, > 0. Above it the tenth with the weakest long counts is dropped.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    `learn_one` costs about 5 us, 50 ns in the kernel. Memory: 24 bytes per item plus its id's.

    Examples
    --------
    >>> model = Rising(short_s=3600, long_s=86_400, doubt=1)
    >>> for hour in range(48):
    ...     model.learn_one("ann", "tent", 1, {"ts": 3600 * hour})
    ...     if hour > 45:
    ...         model.learn_one("bob", "stove", 1, {"ts": 3600 * hour})
    >>> [item for item, _ in model.recommend(None)]
    ['stove']
    """

    def __init__(
        self,
        short_s: float = SHORT_S,
        long_s: float = LONG_S,
        doubt: float = DOUBT,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not 0 < short_s < long_s or not doubt > 0 or max_items < 1:
            raise ValueError("short_s must be > 0 and below long_s, doubt and max_items > 0")
        self.short_s = short_s
        self.long_s = long_s
        self.doubt = doubt
        self.max_items = max_items
        self.latest_s = 0
        self._ids = Vocabulary()
        self._arrays = empty()

    def __len__(self) -> int:
        """Items counted."""
        return len(self._ids)

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Count a touch of weight y (negative subtracts what was learned) at ``x["ts"]`` seconds (absent: 0)."""
        if not y:
            return
        ts = int((x or {}).get("ts", 0))
        index = self._ids.encode([str(item)])
        self._arrays = reserved(self._arrays, len(self._ids))
        count(self._arrays, int(index[0]), float(y), ts, self.short_s, self.long_s)
        self.latest_s = max(self.latest_s, ts)
        if len(self._ids) > self.max_items:
            self._drop()

    def predict_one(  # type: ignore[override]  # River says Number, which to mypy no float is
        self, user: Hashable, item: Hashable, x: dict[str, Any] | None = None
    ) -> float:
        """``trend - 1`` of a rising item, else 0; the same for every user."""
        return max(self.trend(item) - 1.0, 0.0) if self._ids.lookup([str(item)])[0] >= 0 else 0.0

    def scores(self, user: Hashable = None, x: dict[str, Any] | None = None) -> dict[str, float]:
        """``trend - 1`` of all rising items, at the newest event time."""
        trends = self._trends(np.arange(len(self._ids), dtype=np.int32)).tolist()
        return {item: t - 1 for item, t in zip(self._ids.texts(range(len(self._ids))), trends, strict=True) if t > 1}

    def trend(self, item: Hashable) -> float:
        """Trend of an item at the newest event time; 1 for one never met."""
        return float(self._trends(self._ids.lookup([str(item)]))[0])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        n = len(self._ids)
        flat = prefixed("ids", self._ids.arrays())
        flat |= {"value": self._arrays.value[:, :n].copy(), "epoch": self._arrays.epoch[:, :n].copy()}
        flat |= {"total": self._arrays.total.copy(), "total_epoch": self._arrays.total_epoch.copy()}
        return flat | {"latest": np.array([self.latest_s])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described."""
        self._ids = Vocabulary.from_arrays(part(arrays, "ids"))
        self._arrays = RisingArrays(**{name: np.array(arrays[name]) for name in RisingArrays._fields})
        self.latest_s = int(arrays["latest"][0])

    def _trends(self, items: NDArray[np.int32]) -> NDArray[np.float64]:
        out = np.ones(len(items))
        trends(self._arrays, items, self.latest_s, self.short_s, self.long_s, self.doubt, out)
        return out

    def _drop(self) -> None:
        """Drop the tenth with the weakest long counts; of equals those met last. They stay part of all events."""
        n = len(self._ids)
        strengths = np.log2(np.maximum(self._arrays.value[LONG, :n], 1e-300)) + self._arrays.epoch[LONG, :n]
        kept = np.sort(np.argsort(-strengths, kind="stable")[: max(self.max_items * 9 // 10, 1)]).astype(np.int32)
        texts = self._ids.texts(kept)
        self._ids = Vocabulary()
        self._ids.encode(texts)
        value, epoch = self._arrays.value[:, kept], self._arrays.epoch[:, kept]
        self._arrays = self._arrays._replace(value=value, epoch=epoch)


def empty() -> RisingArrays:
    """Nothing counted."""
    cells = np.zeros((2, 0)), np.zeros((2, 0), dtype=np.int32)
    return RisingArrays(*cells, np.zeros(2), np.zeros(2, dtype=np.int32))


def reserved(arrays: RisingArrays, items: int) -> RisingArrays:
    """The same with room for item indices below `items`."""
    if items <= arrays.value.shape[1]:
        return arrays
    value = np.ascontiguousarray(grown(arrays.value.T, max(items, 64)).T)
    return arrays._replace(value=value, epoch=np.ascontiguousarray(grown(arrays.epoch.T, max(items, 64)).T))


@kernel
def count(arrays: RisingArrays, item: int, weight: float, ts: int, short_s: float, long_s: float) -> None:
    """Add a touch to an item's counts and to those of all events."""
    index = np.array([item], dtype=np.int32)
    all_events = np.zeros(1, dtype=np.int32)
    amount = np.array([weight], dtype=np.float32)
    time = np.array([ts], dtype=np.uint32)
    for row in range(2):
        half_life_s = short_s if row == SHORT else long_s
        decay_add_many(arrays.value[row], arrays.epoch[row], index, amount, time, half_life_s)
        total, epoch = arrays.total[row : row + 1], arrays.total_epoch[row : row + 1]
        decay_add_many(total, epoch, all_events, amount, time, half_life_s)


@kernel
def trends(
    arrays: RisingArrays,
    items: NDArray[np.int32],
    ts: int,
    short_s: float,
    long_s: float,
    doubt: float,
    out: NDArray[np.float64],
) -> None:
    """Write the trend of each item at a time (seconds); those below 0 keep what is written."""
    short_now, long_now = ts / short_s, ts / long_s
    all_short = arrays.total[SHORT] * 2.0 ** (arrays.total_epoch[SHORT] - short_now)
    all_long = arrays.total[LONG] * 2.0 ** (arrays.total_epoch[LONG] - long_now)
    for n in range(len(items)):
        item = items[n]
        if item >= 0:
            lately = arrays.value[SHORT, item] * 2.0 ** (arrays.epoch[SHORT, item] - short_now)
            longer = arrays.value[LONG, item] * 2.0 ** (arrays.epoch[LONG, item] - long_now)
            expected = all_short * longer / all_long if all_long > 0.0 else 0.0
            out[n] = (lately + doubt) / (expected + doubt)

"""What is popular now: counts that lose half of their weight every half-life of event time.

Decay is exact and free of the order of events (see `models.decay`): a cell holds ``sum w 2^(t/H - epoch)``, so two
cells compare without a clock, by the exponent and mantissa of the value plus the epoch.

References
----------
Cormode, Shkapenyuk, Srivastava, Xu (2009), "Forward decay: a practical time decay model for streaming systems".
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.decay import decay_add_many
from models.evaluation import Stream
from models.kernel import kernel
from models.toplist import NOTHING, ScoreRanker, place, rounded
from models.vocabulary import Vocabulary, grown

HALF_LIFE_S: Final = 86_400.0
YEAR_2000_S: Final = 946_684_800  # kernels count seconds in 32 bits from here, good until 2136


class Popularity(ScoreRanker):
    """Decayed counts per item: the same list for everyone. Trending with a short half-life, evergreen with a long one.

    Right for visitors nothing is known about; wrong for all others, whom it shows what everybody sees anyway.

    Parameters
    ----------
    half_life_s
        Event time in seconds in which a count halves, > 0. Shorter follows fashion faster and is noisier.
    max_items
        Items counted, > 0. Above it the weakest tenth is dropped.
    seed
        Not used (there is no randomness); River's interface.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    Notes
    -----
    `learn_one` costs about 3 us, `top` about 0.5 us per item counted. Memory: 12 bytes per item plus its id's (about
    24 and its text).

    Examples
    --------
    >>> model = Popularity(half_life_s=3600)
    >>> for hour, item in enumerate(["tent", "tent", "mat"]):
    ...     model.learn_one("ann", item, 1, {"ts": hour * 3600})
    >>> model.top(5)
    [('mat', 1.0), ('tent', 0.75)]
    """

    def __init__(self, half_life_s: float = HALF_LIFE_S, max_items: int = 100_000, seed: int | None = None) -> None:
        super().__init__(seed)
        if not half_life_s > 0 or max_items < 1:
            raise ValueError(f"half_life_s and max_items must be > 0, not {half_life_s} and {max_items}")
        self.half_life_s = half_life_s
        self.max_items = max_items
        self.latest_s = 0
        self._items = Vocabulary()
        self._values = np.zeros(0, dtype=np.float64)
        self._epochs = np.zeros(0, dtype=np.int32)

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Count a touch.

        Parameters
        ----------
        user
            Not used.
        item
            Anything whose text identifies it.
        y
            Weight of the touch; negative subtracts what was learned, and a count never falls below 0.
        x
            Context; ``x["ts"]`` is the event time in seconds from 0 to 2**32 - 1 (absent: 0, hence no decay).
        """
        self.add(str(item), float(y), int((x or {}).get("ts", 0)))

    def add(self, item: str, weight: float, ts_s: int) -> None:
        """Count a touch of an item, of a weight, at an event time in seconds (0 to 2**32 - 1)."""
        ts = np.array([ts_s], dtype=np.uint32)
        index = self._items.encode([item])
        self._values = grown(self._values, len(self._items))
        self._epochs = grown(self._epochs, len(self._items))
        decay_add_many(self._values, self._epochs, index, np.array([weight], np.float32), ts, self.half_life_s)
        self.latest_s = max(self.latest_s, ts_s)
        if len(self._items) > self.max_items:
            self._keep(self._order()[: max(self.max_items * 9 // 10, 1)])

    def scores(self, user: Hashable = None, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Decayed count of every item, at ``x["ts"]`` or else at the newest event time; the same for every user."""
        now = float((x or {}).get("ts", self.latest_s)) / self.half_life_s
        n = len(self._items)
        values = self._values[:n] * np.exp2(self._epochs[:n] - now)
        return {item: value for item, value in zip(self._items.texts(range(n)), values.tolist(), strict=True) if value}

    def predict_one(  # type: ignore[override]  # River says Number, which to mypy no float is
        self, user: Hashable, item: Hashable, x: dict[str, Any] | None = None
    ) -> float:
        """Decayed count of an item, at ``x["ts"]`` or else at the newest event time; 0 if never counted."""
        index = int(self._items.lookup([str(item)])[0])
        now = float((x or {}).get("ts", self.latest_s)) / self.half_life_s
        return float(self._values[index] * np.exp2(self._epochs[index] - now)) if index >= 0 else 0.0

    def top(self, k: int = 20) -> list[tuple[str, float]]:
        """At most k (item, decayed count at the newest event time) pairs, best first, ties by item id."""
        return self.recommend(None, k)

    def _order(self) -> list[int]:
        n = range(len(self._items))
        texts = self._items.texts(n)
        return sorted(n, key=lambda i: (-_strength(float(self._values[i]), int(self._epochs[i])), texts[i]))

    def _keep(self, indices: list[int]) -> None:
        kept = np.array(sorted(indices), dtype=np.int32)
        texts = self._items.texts(kept)
        self._items = Vocabulary()
        self._items.encode(texts)
        self._values, self._epochs = self._values[kept], self._epochs[kept]


class GroupedPopularity:
    """One `Popularity` per group (category, segment); the group silent for longest is dropped above `max_groups`.

    Parameters
    ----------
    half_life_s, max_items
        Of each group's model.
    max_groups
        Groups kept, > 0.

    Notes
    -----
    Memory: that of `Popularity`, at most `max_groups` times.

    Examples
    --------
    >>> models = GroupedPopularity(half_life_s=3600)
    >>> models.add("camping", "tent", 1.0, 0)
    >>> models.top("camping"), models.top("books")
    ([('tent', 1.0)], [])
    """

    def __init__(self, half_life_s: float = HALF_LIFE_S, max_items: int = 10_000, max_groups: int = 1_000) -> None:
        self.half_life_s = half_life_s
        self.max_items = max_items
        self.max_groups = max_groups
        self._groups: dict[Hashable, Popularity] = {}

    def __len__(self) -> int:
        """Groups kept now."""
        return len(self._groups)

    def add(self, group: Hashable, item: str, weight: float, ts_s: int) -> None:
        """Count a touch of an item in a group."""
        model = self._groups.pop(group, None)
        if model is None:
            model = Popularity(self.half_life_s, self.max_items)
            if len(self._groups) >= self.max_groups:
                del self._groups[next(iter(self._groups))]
        model.add(item, weight, ts_s)
        self._groups[group] = model  # last in the dictionary's order = latest touched

    def top(self, group: Hashable, k: int = 20) -> list[tuple[str, float]]:
        """At most k (item, decayed count) pairs of a group, best first, ties by item id; empty for an unknown one."""
        model = self._groups.get(group)
        return model.top(k) if model else []


@kernel
def _strength(value: float, epoch: int) -> int:
    """Rounded order of decayed cells: raising the epoch moves the value's exponent by as much, and changes nothing."""
    strength = rounded(value)
    return strength + (epoch << 19) if strength != NOTHING else strength


def run(stream: Stream, k: int, half_life_s: float = HALF_LIFE_S) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's popularity contender.

    Parameters
    ----------
    stream
        The stream.
    k
        Length of the lists.
    half_life_s
        As for `Popularity`.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    ts = np.clip(stream.ts - YEAR_2000_S, 0, 2**32 - 1).astype(np.uint32)
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    _run(stream.item, ts, stream.weight, stream.previous, stream.scored, stream.rank, half_life_s, out)
    return out


@kernel
def _run(
    item: NDArray[np.int32],
    ts: NDArray[np.uint32],
    weight: NDArray[np.float32],
    previous: NDArray[np.int32],
    scored: NDArray[np.bool_],
    rank: NDArray[np.int32],
    half_life_s: float,
    out: NDArray[np.int32],
) -> None:
    """Keep the k + 1 strongest sorted: weights are positive, so an item outside can only enter when it is counted."""
    k = out.shape[1]
    values = np.zeros(len(rank), dtype=np.float64)
    epochs = np.zeros(len(rank), dtype=np.int32)
    top = np.empty(k + 1, dtype=np.int32)
    strengths = np.empty(k + 1, dtype=np.int64)
    filled = 0
    queries = 0
    for n in range(len(item)):
        if scored[n]:
            current = item[previous[n]]
            shown = 0
            for i in range(filled):
                if top[i] != current and shown < k:
                    out[queries, shown] = top[i]
                    shown += 1
            queries += 1
        decay_add_many(values, epochs, item[n : n + 1], weight[n : n + 1], ts[n : n + 1], half_life_s)
        filled = _take_out(top, strengths, filled, item[n])
        filled = place(top, strengths, filled, item[n], _strength(values[item[n]], epochs[item[n]]), rank)


@kernel
def _take_out(items: NDArray[np.int32], scores: NDArray[np.int64], filled: int, item: int) -> int:
    """Remove an item from a list, if it is there; returns how many are left."""
    left = 0
    for i in range(filled):
        if items[i] != item:
            items[left] = items[i]
            scores[left] = scores[i]
            left += 1
    return left

"""What is popular now: counts that lose half of their weight every half-life of event time.

Decay is exact and free of the order of events (see `models.decay`): a cell holds ``sum w 2^(t/H - epoch)``, so two
cells compare without a clock, by the exponent and mantissa of the value plus the epoch.

References
----------
Cormode, Shkapenyuk, Srivastava, Xu (2009), "Forward decay: a practical time decay model for streaming systems".
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.decay import YEAR_2000_S, decay_add_many
from models.evaluation import Stream
from models.kernel import kernel, lean_kernel
from models.toplist import NOTHING, ScoreRanker, place, rounded
from models.vocabulary import Vocabulary, grown, id_less

Ranked: TypeAlias = tuple[list[str], list[float]]
HALF_LIFE_S: Final = 86_400.0


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
    `learn_one` costs about 3 us. Memory: 16 bytes per item plus its id's (about 24 and its text).

    Examples
    --------
    >>> model = Popularity(half_life_s=3600)
    >>> for hour, item in enumerate(["tent", "tent", "mat"]):
    ...     model.learn_one("ann", item, 1, {"ts": hour * 3600})
    >>> model.recommend(None)
    [('mat', 1.0), ('tent', 0.75)]
    """

    def __init__(self, half_life_s: float = HALF_LIFE_S, max_items: int = 100_000, seed: int | None = None) -> None:
        super().__init__(seed)
        if not half_life_s > 0 or max_items < 1:
            raise ValueError(f"half_life_s and max_items must be > 0, not {half_life_s} and {max_items}")
        self.half_life_s = half_life_s
        self.max_items = max_items
        self.latest_s = 0
        self._ids = Vocabulary()
        self._values = np.zeros(0, dtype=np.float64)
        self._epochs = np.zeros(0, dtype=np.int32)
        self._groups = np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        """Items counted."""
        return len(self._ids)

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
        index = self._encode([item])
        ts = np.array([ts_s], dtype=np.uint32)
        decay_add_many(self._values, self._epochs, index, np.array([weight], np.float32), ts, self.half_life_s)
        self.latest_s = max(self.latest_s, ts_s)
        self._bound()

    def replace(self, items: list[str], values: list[float], epochs: list[int], groups: list[int]) -> None:
        """Take over the cells of items counted elsewhere with the same half-life; repeating it changes nothing.

        Parameters
        ----------
        items
            Ids.
        values, epochs
            Their cells, as `models.decay` keeps them.
        groups
            The group, from 0, that each item is listed in by `leaders`; -1 for none.
        """
        index = self._encode(items)
        self._values[index], self._epochs[index], self._groups[index] = values, epochs, groups
        self._bound()

    def scores(self, user: Hashable = None, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Decayed count of every item, at ``x["ts"]`` or else at the newest event time; the same for every user."""
        n = range(len(self))
        counts = self._counts(np.arange(len(self), dtype=np.int32), x)
        return {item: count for item, count in zip(self._ids.texts(n), counts.tolist(), strict=True) if count}

    def predict_one(  # type: ignore[override]  # River says Number, which to mypy no float is
        self, user: Hashable, item: Hashable, x: dict[str, Any] | None = None
    ) -> float:
        """Decayed count of an item, at ``x["ts"]`` or else at the newest event time; 0 if never counted."""
        index = self._ids.lookup([str(item)])
        return float(self._counts(index, x)[0]) if index[0] >= 0 else 0.0

    def leaders(self, k: int, groups: int | None = None, hidden: Collection[str] = ()) -> list[Ranked]:
        """The strongest items as they compare now, whatever the time.

        Parameters
        ----------
        k
            Length of the lists.
        groups
            None for one list of all items; else the number of groups, each with a list of its own.
        hidden
            Items to leave out.

        Returns
        -------
        list
            Per list at most k items, best first, ties by id, and their counts relative to the first one's.

        Notes
        -----
        One pass over the items, about 10 ns each, and 100 ns for each item or hidden one, whichever are fewer.
        """
        group = np.zeros(len(self), dtype=np.int32) if groups is None else self._groups[: len(self)].copy()
        group[self._known(hidden)] = -1
        best = np.full((groups if groups is not None else 1, k), -1, dtype=np.int32)
        strongest(self._values, self._epochs, group, self._ids.blob, self._ids.spans, best)
        return [self._relative(row[row >= 0]) for row in best]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        return {
            **self._ids.arrays(),
            "values": self._values[: len(self)].copy(),
            "epochs": self._epochs[: len(self)].copy(),
            "groups": self._groups[: len(self)].copy(),
            "latest": np.array([self.latest_s]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described."""
        self._ids = Vocabulary.from_arrays(arrays)
        self._values, self._epochs, self._groups = (np.array(arrays[name]) for name in ("values", "epochs", "groups"))
        self.latest_s = int(arrays["latest"][0])

    def _known(self, names: Collection[str]) -> NDArray[np.int32]:
        """Indices of those that were counted; many more names than that are not looked up one by one."""
        if len(names) > len(self):
            every = np.arange(len(self), dtype=np.int32)
            return every[np.array([name in names for name in self._ids.texts(every)], dtype=np.bool_)]
        found = self._ids.lookup(list(names))
        return found[found >= 0]

    def _encode(self, items: list[str]) -> NDArray[np.int32]:
        index = self._ids.encode(items)
        self._values = grown(self._values, len(self))
        self._epochs = grown(self._epochs, len(self))
        had = len(self._groups)
        self._groups = grown(self._groups, len(self))
        self._groups[had:] = -1
        return index

    def _counts(self, index: NDArray[np.int32], x: dict[str, Any] | None) -> NDArray[np.float64]:
        now = float((x or {}).get("ts", self.latest_s)) / self.half_life_s
        counts: NDArray[np.float64] = self._values[index] * np.exp2(self._epochs[index] - now)
        return counts

    def _relative(self, index: NDArray[np.int32]) -> Ranked:
        first = index[:1]
        scores = np.ldexp(self._values[index] / self._values[first], self._epochs[index] - self._epochs[first])
        return self._ids.texts(index), scores.tolist()

    def _bound(self) -> None:
        """Drop the weakest tenth once there are too many; of equals the one met last."""
        if len(self) <= self.max_items:
            return
        order = np.argsort(-_strengths(self._values[: len(self)], self._epochs), kind="stable")
        kept = np.sort(order[: max(self.max_items * 9 // 10, 1)]).astype(np.int32)
        texts = self._ids.texts(kept)
        self._ids = Vocabulary()
        self._ids.encode(texts)
        self._values, self._epochs, self._groups = self._values[kept], self._epochs[kept], self._groups[kept]


@lean_kernel
def _strength(value: float, epoch: int) -> int:
    """Rounded order of decayed cells: raising the epoch moves the value's exponent by as much, and changes nothing."""
    strength = rounded(value)
    return strength + (epoch << 19) if strength != NOTHING else strength


@kernel
def _strengths(values: NDArray[np.float64], epochs: NDArray[np.int32]) -> NDArray[np.int64]:
    out = np.empty(len(values), dtype=np.int64)
    for item in range(len(values)):
        out[item] = _strength(values[item], epochs[item])
    return out


@kernel
def strongest(
    values: NDArray[np.float64],
    epochs: NDArray[np.int32],
    group: NDArray[np.int32],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    best: NDArray[np.int32],
) -> None:
    """Write each group's strongest items into its row of `best`, ties by id; what is not above 0 is nobody's."""
    k = best.shape[1]
    strengths = np.empty(best.shape, dtype=np.int64)
    filled = np.zeros(len(best), dtype=np.int64)
    for item in range(len(group)):
        g = group[item]
        strength = _strength(values[item], epochs[item])
        if g < 0 or strength == NOTHING:
            continue
        at = filled[g]
        while at > 0 and (
            strength > strengths[g, at - 1]
            or (strength == strengths[g, at - 1] and id_less(blob, spans, item, best[g, at - 1]))
        ):
            at -= 1
            if at + 1 < k:
                best[g, at + 1] = best[g, at]
                strengths[g, at + 1] = strengths[g, at]
        if at < k:
            best[g, at] = item
            strengths[g, at] = strength
            filled[g] = min(filled[g] + 1, k)


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
    _run(stream.item, ts, stream.weight, stream.previous, stream.scored, stream.learned, stream.rank, half_life_s, out)
    return out


@kernel
def _run(
    item: NDArray[np.int32],
    ts: NDArray[np.uint32],
    weight: NDArray[np.float32],
    previous: NDArray[np.int32],
    scored: NDArray[np.bool_],
    learned: NDArray[np.bool_],
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
        if not learned[n]:
            continue
        decay_add_many(values, epochs, item[n : n + 1], weight[n : n + 1], ts[n : n + 1], half_life_s)
        filled = _take_out(top, strengths, filled, item[n])
        filled = place(top, strengths, filled, item[n], _strength(values[item[n]], epochs[item[n]]), rank)


@lean_kernel
def _take_out(items: NDArray[np.int32], scores: NDArray[np.int64], filled: int, item: int) -> int:
    """Remove an item from a list, if it is there; returns how many are left."""
    left = 0
    for i in range(filled):
        if items[i] != item:
            items[left] = items[i]
            scores[left] = scores[i]
            left += 1
    return left

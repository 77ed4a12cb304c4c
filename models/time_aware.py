"""Time-aware value of what comes next: R(t,i) = sum_j p(j|i,t) r(t,j), and lists by its terms.

``p(j|i,t)`` is the decayed co-visitation of item i with j, forward more than backward, each row divided by its sum;
``r(t,j)`` is the trend of j at time t (`models.rising`): 1 for an item that keeps its share of all events.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.covisitation import Deltas, Weighting, emit_into, weighting
from models.evaluation import Stream
from models.histories import HISTORY, Histories, HistoryArrays, Touches, append, single
from models.history_ranker import HistoryRanker
from models.kernel import kernel
from models.neighbour_rows import NO_ROW, NeighbourRows, RowArrays, apply_deltas
from models.nesting import part, prefixed
from models.ranking import Lists, Query, Scratch, add_votes, current_item, explain, find_voters, query, scratch, select
from models.rising import DOUBT, LONG_S, SHORT_S, RisingArrays, count, empty, reserved, trends
from models.vocabulary import Vocabulary

HALF_LIFE_S: Final = 30 * 86_400.0


class TimeAware(HistoryRanker):
    """Recommends what usually follows a user's latest items, and of that what is on the rise right now.

    An item scores ``sum_i g(i) p(j|h_i,t) r(t,j)`` over the user's latest items h_i. Where nothing rises or falls it is
    co-visitation; it is wrong where trends are noise, and `doubt` must be large there.

    Parameters
    ----------
    half_life_s
        Event time in seconds in which co-visitation loses half of its weight, > 0.
    short_s, long_s, doubt
        As for `Rising`.
    history
        Items remembered per user, 1 to 127.
    max_users, max_items
        Users and items known; those touched longest ago are forgotten first.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    Learn + rank of one event: about 3-8 us inside a kernel, about 60 us through these methods. Memory: as
    `ItemSimilarity`, plus 24 bytes per item.

    Examples
    --------
    >>> model = TimeAware(short_s=3600, long_s=86_400, doubt=1)
    >>> for hour in range(50):
    ...     for item in ("tent", "mat" if hour < 47 else "stove"):
    ...         model.learn_one(f"u{hour}", item, 1, {"ts": 3600 * hour})
    >>> model.learn_one("ann", "tent", 1, {"ts": 3600 * 50})
    >>> [item for item, _ in model.recommend("ann")]
    ['mat', 'stove']
    >>> round(model.value("tent"), 2)
    0.56
    """

    def __init__(
        self,
        half_life_s: float = HALF_LIFE_S,
        short_s: float = SHORT_S,
        long_s: float = LONG_S,
        doubt: float = DOUBT,
        history: int = HISTORY,
        max_users: int = 100_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(history, NeighbourRows(half_life_s=half_life_s), max_users, max_items, seed)
        self.half_life_s = half_life_s
        self.short_s = short_s
        self.long_s = long_s
        self.doubt = doubt
        self.latest_s = 0
        self._query = query()
        self._trend = empty()

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user touched an item; as `HistoryRanker.learn_one`."""
        super().learn_one(user, item, y, x)
        if y > 0:
            ts = int((x or {}).get("ts", 0))
            index = int(self._items.lookup([str(item)])[0])
            self._trend = reserved(self._trend, self._items.size)
            count(self._trend, index, 1.0, ts, self.short_s, self.long_s)
            self.latest_s = max(self.latest_s, ts)

    def forget_one(self, user: Hashable) -> None:
        """As `HistoryRanker.forget_one`; how fast items rise stays as it is, and decays: no id is with it."""
        super().forget_one(user)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `HistoryRanker.arrays`, and how fast items rise."""
        trend = {name: column.copy() for name, column in self._trend._asdict().items()}
        return super().arrays() | prefixed("trend", trend) | {"latest": np.array([self.latest_s])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """As `HistoryRanker.restore`."""
        super().restore(arrays)
        self._trend = RisingArrays(**part(arrays, "trend"))
        self.latest_s = int(arrays["latest"][0])

    def value(self, item: Hashable) -> float:
        """R(t,i) at the newest event time: the mean trend of what follows an item; 0 where nothing is known to."""
        index = int(self._items.lookup([str(item)])[0])
        row = int(self._rows.arrays.row[index]) if index >= 0 else NO_ROW
        if row == NO_ROW:
            return 0.0
        size = int(self._rows.arrays.size[row])
        p = self._rows.arrays.value[row, :size]
        return float(p @ self._trends(self._rows.arrays.item[row, :size]) / p.sum()) if p.sum() > 0 else 0.0

    def _drop_items(self, items: NDArray[np.int32]) -> None:
        super()._drop_items(items)
        self._trend.value[:, items] = self._trend.epoch[:, items] = 0  # they stay part of all events

    def _trends(self, items: NDArray[np.int32]) -> NDArray[np.float64]:
        out = np.ones(len(items))
        trends(self._trend, items, self.latest_s, self.short_s, self.long_s, self.doubt, out)
        return out

    def _fill(self, lists: Lists, user: NDArray[np.int32], hidden: NDArray[np.bool_]) -> None:
        items, rows, work = self._items, self._rows.arrays, scratch(self._items.size)
        voters = find_voters(self._histories.arrays, int(user[0]), rows, self._query, work)
        found = vote_by_share(rows, voters, work)
        touched = work.touched[:found]
        work.score[touched] *= self._trends(touched)
        current = current_item(self._histories.arrays, int(user[0]))
        select(found, current, hidden, items.blob, items.spans, work, lists.item[0], lists.micro[0])
        explain(rows, voters, work, lists.item[0], lists.why[0])


@kernel
def vote_by_share(rows: RowArrays, voters: int, work: Scratch) -> int:
    """Sum ``g(i) p(j|h_i)`` into the scratch, where p of a row sums to 1; returns how many candidates there are."""
    found = 0
    for v in range(voters):
        row = work.row[v]
        total = 0.0
        for c in range(rows.size[row]):
            total += rows.value[row, c]
        if total > 0.0:
            work.vote[v] *= rows.total[row] / total  # `find_voters` divides by visits
            found = add_votes(rows.item[row], rows.value[row], rows.size[row], work.vote[v], work, found)
    return found


def run(
    stream: Stream,
    k: int,
    half_life_s: float = HALF_LIFE_S,
    short_s: float = SHORT_S,
    long_s: float = LONG_S,
    doubt: float = DOUBT,
) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's time-aware contender.

    Parameters
    ----------
    stream
        The stream.
    k
        Length of the lists.
    half_life_s, short_s, long_s, doubt
        As for `TimeAware`.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    items, rows, histories = Vocabulary(len(stream.item_ids) + 1), NeighbourRows(half_life_s=half_life_s), Histories()
    items.encode(stream.item_ids)
    histories.reserve(int(stream.key.max(initial=0)) + 1)
    rows.reserve(len(items))
    rows.reserve_rows(len(items))
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    _run(
        stream.touches(),
        stream.scored,
        stream.learned,
        histories.arrays,
        rows.arrays,
        reserved(empty(), len(items)),
        (half_life_s, short_s, long_s, doubt),
        weighting(),
        query(),
        items.blob,
        items.spans,
        scratch(len(items)),
        Deltas.room(1, HISTORY),
        out,
    )
    return out


@kernel
def _run(
    touches: Touches,
    scored: NDArray[np.bool_],
    learned: NDArray[np.bool_],
    histories: HistoryArrays,
    rows: RowArrays,
    trend: RisingArrays,
    times: tuple[float, float, float, float],
    weights: Weighting,
    votes: Query,
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    work: Scratch,
    room: Deltas,
    out: NDArray[np.int32],
) -> None:
    half_life_s, short_s, long_s, doubt = times
    micros = np.zeros(out.shape[1], dtype=np.int64)
    partition = np.zeros(len(rows.row), dtype=np.int32)
    hidden = np.zeros(len(rows.row), dtype=np.bool_)
    worth = np.empty(len(work.touched))
    used = 0
    queries = 0
    now = 0
    for n in range(len(touches.user)):
        user = touches.user[n]
        if scored[n]:
            found = vote_by_share(rows, find_voters(histories, user, rows, votes, work), work)
            trends(trend, work.touched[:found], now, short_s, long_s, doubt, worth)
            for c in range(found):
                work.score[work.touched[c]] *= worth[c]
            select(found, current_item(histories, user), hidden, blob, spans, work, out[queries], micros)
            queries += 1
        if not learned[n]:
            append(histories, user, touches.item[n], touches.kind[n], touches.ts[n], touches.starts[n])
            continue
        if emit_into(histories, single(touches, n), weights, room):
            used = apply_deltas(rows, used, room, partition, 0, half_life_s, 1.0)
        count(trend, touches.item[n], 1.0, touches.ts[n], short_s, long_s)
        now = max(now, int(touches.ts[n]))

"""TencentRec's incremental item similarity: what the same people rated, by what they did, decayed by event time.

A user's rating of an item is ``r[u,p] = max over u's actions a on p of w(a) 2^(t(a)/H)``: the strongest thing done,
halved every H seconds. Two items agree in what both ratings have in common, ``co(u,p,q) = min(r[u,p], r[u,q])``, and
``sim(p,q) = sum_u co(u,p,q) / sqrt(sum_u r[u,p] sum_u r[u,q])`` lies within 0 and 1. Ratings only ever rise, so an
action adds the rise to its item's sum, and to each pair with an item of the user's history what the minimum gained.
In the original a window of slots stands where the decay does, and Hoeffding's bound drops pairs where rows are bounded.

`emit_ratings` makes these increments as the same `Deltas` that co-visitation makes, so that they are added up by
`models.neighbour_rows`, can cross Kafka, and are subtracted to forget a person.

References
----------
Huang, Cui, Zhang, Jiang, Xu (2015), "TencentRec: real-time stream recommendation in practice".
https://doi.org/10.1145/2723372.2742785
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, column
from models.covisitation import Deltas
from models.histories import KIND_MASK, Histories, HistoryArrays, Touches, append
from models.kernel import kernel
from models.neighbour_rows import NO_ROW, RowArrays
from models.session_votes import distinct_recent


def emit_ratings(histories: HistoryArrays, touches: Touches, kinds: NDArray[np.float32], half_life_s: float) -> Deltas:
    """Append touches to the histories and return by how much ratings, and minima of pairs, have risen.

    Parameters
    ----------
    histories
        The users' rings; changed in place. Must have room for every user index in `touches`.
    touches
        The batch, in stream order.
    kinds
        Weight of an action by kind; 0 = no rating.
    half_life_s
        Seconds in which a rating halves, > 0.

    Returns
    -------
    Deltas
        One visit per touch that raised a rating; a pair per other item whose minimum rose. No steps.

    Notes
    -----
    About 0.5 us per touch with a full ring of 20. A pure function of the histories and the batch.
    """
    n, size = len(touches.user), histories.item.shape[1]
    deltas = Deltas(
        np.empty(n, dtype=np.int32),
        np.empty(n, dtype=np.float32),
        np.empty(n, dtype=np.uint32),
        np.empty(n, dtype=np.int32),
        np.zeros(n + 1, dtype=np.int32),
        np.empty(n * size, dtype=np.int32),
        np.empty(n * size, dtype=np.float32),
        np.zeros(n * size, dtype=np.bool_),
    )
    visits = emit_ratings_into(histories, touches, kinds, half_life_s, deltas)
    pairs = int(deltas.start[visits])
    ends = (visits, visits, visits, visits, visits + 1, pairs, pairs, pairs)
    return Deltas._make(column[:end] for column, end in zip(deltas, ends, strict=True))


def retract_ratings(
    histories: Histories, users: NDArray[np.int32], kinds: NDArray[np.float32], half_life_s: float
) -> Deltas:
    """What `emit_ratings` returned for what the histories keep of some users, with the opposite sign.

    Exact for users whose history was never cut; of others, what was dropped from it stays in the sums.
    """
    alone = Histories(histories.size)
    alone.reserve(len(users))
    deltas = emit_ratings(alone.arrays, histories.recall(users), kinds, half_life_s)
    return deltas._replace(weight=-deltas.weight, pull=-deltas.pull)


@kernel
def emit_ratings_into(
    histories: HistoryArrays, touches: Touches, kinds: NDArray[np.float32], half_life_s: float, out: Deltas
) -> int:
    """Write the deltas of a batch into prepared columns, of which `step` is all False; returns the number of visits."""
    visits = 0
    pairs = 0
    for n in range(len(touches.user)):
        user, item, kind, ts = touches.user[n], touches.item[n], int(touches.kind[n]), touches.ts[n]
        if kinds[kind] <= 0 or not append(histories, user, item, kind, ts, touches.starts[n]):
            continue
        before = rating(histories, user, item, 1, ts, kinds, half_life_s)
        risen = np.float64(kinds[kind])  # at its own time an action counts in full
        if risen <= before:
            continue
        out.item[visits] = item
        out.weight[visits] = risen - before
        out.ts[visits] = ts
        out.source[visits] = n
        size = histories.item.shape[1]
        for back in range(1, np.int64(histories.count[user])):
            other = histories.item[user, (np.int64(histories.head[user]) - back) % size]
            if other == item or _met_newer(histories, user, other, back):
                continue
            theirs = rating(histories, user, other, back, ts, kinds, half_life_s)
            gained = min(risen, theirs) - min(before, theirs)
            if gained > 0.0:
                out.other[pairs] = other
                out.pull[pairs] = gained
                pairs += 1
        visits += 1
        out.start[visits] = pairs
    return visits


@kernel
def rating(
    histories: HistoryArrays, user: int, item: int, first: int, ts: int, kinds: NDArray[np.float32], half_life_s: float
) -> float:
    """A user's rating of an item as it is worth at `ts`, from the touches that are `first` or more places back."""
    size = histories.item.shape[1]
    best = 0.0
    for back in range(first, np.int64(histories.count[user])):
        slot = (np.int64(histories.head[user]) - back) % size
        if histories.item[user, slot] == item:
            age = (np.float64(ts) - np.float64(histories.ts[user, slot])) / half_life_s
            best = max(best, kinds[histories.kind[user, slot] & KIND_MASK] * 2.0**-age)
    return best


@kernel
def _met_newer(histories: HistoryArrays, user: int, item: int, back: int) -> bool:
    """Whether a ring holds an item nearer to its head than `back` places."""
    size = histories.item.shape[1]
    for nearer in range(back):  # noqa: SIM110  (Numba compiles no generator)
        if histories.item[user, (np.int64(histories.head[user]) - nearer) % size] == item:
            return True
    return False


@kernel
def vote_similar(
    histories: HistoryArrays,
    user: int,
    rows: RowArrays,
    kinds: NDArray[np.float32],
    near: NDArray[np.float32],
    half_life_s: float,
    recent: NDArray[np.int32],
    candidates: Candidates,
    feature: int,
    found: int,
) -> int:
    """Let a user's latest items, newest first into `recent`, vote for what is like them; returns the candidates now.

    A vote is ``near[i] r[u,q] sim(p,q)`` for the i-th latest item q; ratings are as they are worth at the newest touch.
    Costs about 5 ns per cell.
    """
    distinct = distinct_recent(histories, user, recent)
    ts = int(histories.ts[user, histories.head[user]]) if distinct > 0 else 0
    for i in range(min(distinct, len(near))):
        row = rows.row[recent[i]]
        if row == NO_ROW:
            continue
        vote = near[i] * rating(histories, user, recent[i], 0, ts, kinds, half_life_s)
        for c in range(rows.size[row]):
            value = vote * similarity(rows, row, c)
            if value > 0.0:
                at = column(candidates, rows.item[row, c], found)
                if at >= 0:
                    found += at == found
                    candidates.x[feature, at] += value
                    candidates.total[feature] += value
    return found


@kernel
def similarity(rows: RowArrays, row: int, cell: int) -> float:
    """Similarity of a row's item and that of one of its cells; their epochs may differ, their decay is the same."""
    other = rows.row[rows.item[row, cell]]
    total = rows.total[row] * rows.total[other]
    if total <= 0.0:
        return 0.0
    value: float = rows.value[row, cell] / math.sqrt(total) * 2.0 ** (0.5 * (rows.epoch[row] - rows.epoch[other]))
    return value

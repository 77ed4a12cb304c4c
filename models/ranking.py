"""Ranking: from a user's recent items and their neighbour rows to the best k, in one kernel.

Score of candidate j: ``sum_i g(i) w(h_i) (c(h_i, j) + [i = 0] s t(h_0, j)) / n(h_i)``, where c are co-visitation cells,
t transitions of the newest item, n the row's total; the row's own counters only, so no other shard is asked.
Scores are rounded to six decimals before comparing and equal ones rank by id as text, so that the order is the same
in every process, however sums were grouped.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.covisitation import GAP, power_law
from models.histories import KIND_MASK, MAX_HISTORY, SESSION_START, HistoryArrays, Touches
from models.kernel import kernel, lean_kernel
from models.neighbour_rows import NO_ROW, RowArrays
from models.vocabulary import id_less

MICRO = 1e6  # scores are integers of 1e-6 once rounded
HIGHEST = 2.0**62  # of a rounded score: a neighbour met ages after the row's last visit would not fit an integer
UNLISTED = 0
STEP_SHARE = 0.5  # extra vote of the newest item's transitions
EPSILON = 1e-9  # keeps float noise in sums of equal terms from crossing a rounding edge
REASONS: Final = ("covisit", "transition", "sessions", "walk", "repeat", "popular", "new", "content")
COVISIT: Final = 0


class Query(NamedTuple):
    """How recent items vote.

    `kind`: weight of a touch by event kind; `near`: g(distance), index 0 = the newest item; `gap`: extra distance per
    session boundary; `step_share`: s, weight of the newest item's transitions.
    """

    kind: NDArray[np.float32]
    near: NDArray[np.float32]
    gap: int
    step_share: float


def query(kinds: NDArray[np.float32] | None = None) -> Query:
    """The defaults by which recent items vote: steeper than they teach, half a vote more for the last transition."""
    return Query(np.ones(1, dtype=np.float32) if kinds is None else kinds, power_law(1.5), GAP, STEP_SHARE)


class Scratch(NamedTuple):
    """Working memory of one ranking thread.

    By item index: `score`, all zero between users; `touched`, the candidates; `place`, 1 + the position in the list,
    else `UNLISTED`. By `place`: `best`, the highest vote so far.
    By voter (a recent item that has a row): `row`, `seed`, `vote`, and `step`, the vote of its transitions.
    """

    score: NDArray[np.float64]
    touched: NDArray[np.int32]
    place: NDArray[np.int32]
    row: NDArray[np.int32]
    seed: NDArray[np.int32]
    vote: NDArray[np.float64]
    step: NDArray[np.float64]
    best: NDArray[np.float64]


class Lists(NamedTuple):
    """Ranked lists, one row per user: item indices (-1 = list shorter), scores in 1e-6, and the item that led there.

    `reason`: the model that led there, an index into `REASONS`.
    """

    item: NDArray[np.int32]
    micro: NDArray[np.int64]
    why: NDArray[np.int32]
    reason: NDArray[np.uint8]

    @classmethod
    def empty(cls, users: int, k: int) -> Lists:
        """Room for `users` lists of `k` items."""
        return cls(
            np.full((users, k), -1, dtype=np.int32),
            np.zeros((users, k), dtype=np.int64),
            np.full((users, k), -1, dtype=np.int32),
            np.full((users, k), COVISIT, dtype=np.uint8),
        )

    def of(self, rows: NDArray[np.integer[Any]]) -> Lists:
        """Some of the lists, as copies."""
        return Lists._make(column[rows] for column in self)

    def first(self, k: int) -> Lists:
        """The first `k` items of each list; the lists themselves where they are no longer."""
        return self if self.item.shape[1] == k else Lists._make(column[:, :k] for column in self)


def scratch(items: int) -> Scratch:
    """Working memory for item indices below `items`: 24 bytes each."""
    return Scratch(
        np.zeros(items, dtype=np.float64),
        np.zeros(items + 1, dtype=np.int32),  # one more: a candidate is written before it is known to be new
        np.full(items, UNLISTED, dtype=np.int32),
        np.zeros(MAX_HISTORY, dtype=np.int32),
        np.zeros(MAX_HISTORY, dtype=np.int32),
        np.zeros(MAX_HISTORY, dtype=np.float64),
        np.zeros(MAX_HISTORY, dtype=np.float64),
        np.zeros(items + 1, dtype=np.float64),
    )


@lean_kernel
def find_voters(histories: HistoryArrays, user: int, rows: RowArrays, query: Query, work: Scratch) -> int:
    """Write which of a user's recent items vote, newest first, and how much; returns how many."""
    size = histories.item.shape[1]
    count = np.int64(histories.count[user])
    head = np.int64(histories.head[user])
    voters = 0
    crossed = 0
    for i in range(count):
        slot = head - i if head >= i else head - i + size
        distance = i + crossed * query.gap
        if distance >= len(query.near):
            break
        seed = histories.item[user, slot]
        kind = histories.kind[user, slot]
        if kind & SESSION_START:
            crossed += 1
        row = rows.row[seed] if seed < len(rows.row) else NO_ROW
        if row == NO_ROW or rows.total[row] <= 0:
            continue
        vote = query.near[distance] * query.kind[kind & KIND_MASK] / rows.total[row]
        work.row[voters] = row
        work.seed[voters] = seed
        work.vote[voters] = vote
        work.step[voters] = vote * query.step_share if i == 0 else 0.0
        voters += 1
    return voters


@lean_kernel
def gather(rows: RowArrays, voters: int, work: Scratch) -> int:
    """Sum the voters' neighbours into the scratch; returns how many candidates there are."""
    found = 0
    for v in range(voters):
        row = work.row[v]
        found = add_votes(rows.item[row], rows.value[row], rows.size[row], work.vote[v], work, found)
        if work.step[v] > 0.0:
            found = add_votes(rows.step_item[row], rows.step_value[row], rows.steps[row], work.step[v], work, found)
    return found


@lean_kernel
def add_votes(
    items: NDArray[np.int32], values: NDArray[np.float64], size: int, vote: float, work: Scratch, found: int
) -> int:
    """Add one row's votes. No branch on whether a candidate is new: a wrong guess costs more than the write."""
    for c in range(size):
        part = values[c] * vote
        if part <= 0.0:
            continue
        item = items[c]
        score = work.score[item]
        work.touched[found] = item
        found += score == 0.0
        work.score[item] = score + part
    return found


@lean_kernel
def explain(rows: RowArrays, voters: int, work: Scratch, items: NDArray[np.int32], whys: NDArray[np.int32]) -> None:
    """Name for each listed item the voter that gave it most (ties: the newer one); only now, for k instead of all."""
    work.best[UNLISTED] = np.inf  # nothing beats it: one comparison settles both "listed?" and "more than before?"
    for i in range(len(items)):
        if items[i] >= 0:
            work.place[items[i]] = i + 1
            work.best[i + 1] = 0.0
    for v in range(voters):
        row = work.row[v]
        credit(rows.item[row], rows.value[row], rows.size[row], work.vote[v], work.seed[v], work, whys)
        if work.step[v] > 0.0:
            step = work.step[v]
            credit(rows.step_item[row], rows.step_value[row], rows.steps[row], step, work.seed[v], work, whys)
    for i in range(len(items)):
        if items[i] >= 0:
            work.place[items[i]] = UNLISTED


@lean_kernel
def credit(
    cells: NDArray[np.int32],
    values: NDArray[np.float64],
    size: int,
    vote: float,
    seed: int,
    work: Scratch,
    whys: NDArray[np.int32],
) -> None:
    """Let one row claim the listed items to which it gave more than the rows before it."""
    for c in range(size):
        place = work.place[cells[c]]
        if values[c] * vote > work.best[place]:
            work.best[place] = values[c] * vote
            whys[place - 1] = seed


@lean_kernel
def rank_rows(
    histories: HistoryArrays,
    users: NDArray[np.int32],
    rows: RowArrays,
    query: Query,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    work: Scratch,
    out: Lists,
) -> None:
    """Rank the best ``out.item.shape[1]`` items for each of some users.

    Parameters
    ----------
    histories, users
        Recent items, and whose lists to rank.
    rows, query
        Neighbour rows and how recent items vote.
    hidden
        True for each item index that must not be shown (withdrawn); the item a user is on never is.
    blob, spans
        The items' vocabulary, for ties.
    work
        Scratch with room for every item index.
    out
        Filled in place, one row per user.

    Notes
    -----
    Cost: about 1 ns per neighbour cell of the recent items plus the selection of k; 1-3 us with full rows.
    """
    for u in range(len(users)):
        voters = find_voters(histories, users[u], rows, query, work)
        found = gather(rows, voters, work)
        current = current_item(histories, users[u])
        select(found, current, hidden, blob, spans, work, out.item[u], out.micro[u])
        explain(rows, voters, work, out.item[u], out.why[u])


@lean_kernel
def current_item(histories: HistoryArrays, user: int) -> int:
    """The item a user is on, -1 for none."""
    current: int = -1
    if histories.count[user] > 0:
        current = histories.item[user, histories.head[user]]
    return current


@lean_kernel
def select(
    found: int,
    current: int,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    work: Scratch,
    items: NDArray[np.int32],
    micros: NDArray[np.int64],
) -> int:
    """Move the best candidates out of the scratch, by rounded score, then id; clears it; returns how many."""
    k = len(items)
    filled = 0
    floor = 0.0
    for c in range(found):
        item = work.touched[c]
        score = work.score[item] * MICRO
        work.score[item] = 0.0
        if score < floor:  # most candidates end here
            continue
        micro = int(np.floor(min(score, HIGHEST) + 0.5 + EPSILON))
        if micro <= 0 or item == current or hidden[item]:
            continue
        if filled == k and (
            micro < micros[k - 1] or (micro == micros[k - 1] and not id_less(blob, spans, item, items[k - 1]))
        ):
            continue
        at = filled if filled < k else k - 1
        while at > 0 and (
            micro > micros[at - 1] or (micro == micros[at - 1] and id_less(blob, spans, item, items[at - 1]))
        ):
            items[at] = items[at - 1]
            micros[at] = micros[at - 1]
            at -= 1
        items[at] = item
        micros[at] = micro
        if filled < k:
            filled += 1
        if filled == k:
            floor = micros[k - 1] - 1.0
    for i in range(filled, k):
        items[i] = -1
        micros[i] = 0
    return filled


@kernel
def score_lists(
    last: NDArray[np.int32], histories: HistoryArrays, touches: Touches, kinds: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Test before learning: how the lists that were last pushed predicted these touches.

    Returns
    -------
    NDArray[np.float64]
        Predictions, hits, and the sum of reciprocal ranks. A touch counts if its user had a list, its kind has a
        weight, and it is not the item the user was on when the batch began.
    """
    out = np.zeros(3, dtype=np.float64)
    for n in range(len(touches.user)):
        user = touches.user[n]
        item = touches.item[n]
        if last[user, 0] < 0 or kinds[touches.kind[n]] <= 0:
            continue
        if histories.count[user] > 0 and histories.item[user, histories.head[user]] == item:
            continue
        out[0] += 1.0
        for i in range(last.shape[1]):
            if last[user, i] == item:
                out[1] += 1.0
                out[2] += 1.0 / (i + 1)
                break
    return out


@lean_kernel
def rank_similar(
    seeds: NDArray[np.int32],
    rows: RowArrays,
    step_share: float,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    work: Scratch,
    out: Lists,
) -> None:
    """Rank the neighbours of single items: the list of a visitor who has seen nothing else."""
    for n in range(len(seeds)):
        seed = seeds[n]
        row = rows.row[seed]
        if row == NO_ROW or rows.total[row] <= 0:
            continue
        vote = 1.0 / rows.total[row]
        found = add_votes(rows.item[row], rows.value[row], rows.size[row], vote, work, 0)
        vote *= step_share
        found = add_votes(rows.step_item[row], rows.step_value[row], rows.steps[row], vote, work, found)
        filled = select(found, seed, hidden, blob, spans, work, out.item[n], out.micro[n])
        out.why[n, :filled] = seed


@kernel
def find_rows(seeds: NDArray[np.int32], rows: RowArrays, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of some items, each with a row, have a wanted item (by item index) among their neighbours."""
    found = np.zeros(len(seeds), dtype=np.bool_)
    for n in range(len(seeds)):
        row = rows.row[seeds[n]]
        for c in range(rows.size[row]):
            found[n] |= wanted[rows.item[row, c]]
        for c in range(rows.steps[row]):
            found[n] |= wanted[rows.step_item[row, c]]
    return found

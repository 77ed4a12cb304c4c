"""Incremental item similarity in one process: histories, co-visitation rows and ranking behind River's `Ranker`."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.covisitation import Deltas, Weighting, emit_into, power_law, weighting
from models.evaluation import Stream
from models.histories import HISTORY, Histories, HistoryArrays, Touches, append, single
from models.history_ranker import HistoryRanker
from models.kernel import kernel
from models.neighbour_rows import NeighbourRows, RowArrays, apply_deltas
from models.ranking import (
    STEP_SHARE,
    Lists,
    Query,
    Scratch,
    current_item,
    find_voters,
    gather,
    query,
    rank_rows,
    scratch,
    select,
)
from models.vocabulary import Vocabulary

HALF_LIFE_S: Final = 30 * 86_400.0


class ItemSimilarity(HistoryRanker):
    """Item-to-item recommender that learns from each event: decayed, position-weighted co-visitation.

    A visitor's recent items vote for their neighbours; the newest votes loudest and adds where visitors went next from
    it. It is wrong for visitors without history and for items nobody visited beside another (use `Popularity` there).

    Parameters
    ----------
    neighbours
        Neighbours kept per item, 1 to 255. More costs 12 bytes each and a little ranking time.
    transitions
        Next items kept per item, 1 to 255.
    half_life_s
        Event time in seconds in which what was learned loses half of its weight, > 0.
    history
        Items remembered per user, 1 to 127.
    max_users, max_items
        Users and items known; those touched longest ago are forgotten first.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    Learn + rank of one event: 2-6 us inside a kernel, about 50 us through these Python methods.
    Memory: ``9 * history + 10`` bytes per user and ``12 * (neighbours + transitions) + 54`` per item, plus the ids.

    Examples
    --------
    >>> model = ItemSimilarity()
    >>> for second, (user, item) in enumerate([("ann", "tent"), ("ann", "mat"), ("bob", "tent")]):
    ...     model.learn_one(user, item, 1, {"ts": second})
    >>> model.recommend("bob", k=5)
    [('mat', 0.75)]
    >>> model.rank("bob", {"mat", "stove"})
    ['mat', 'stove']
    >>> model.forget_one("ann")
    >>> model.predict_one("bob", "mat")
    0.0

    References
    ----------
    Linden, Smith, York (2003), "Amazon.com recommendations: item-to-item collaborative filtering".
    """

    def __init__(
        self,
        neighbours: int = 100,
        transitions: int = 20,
        half_life_s: float = HALF_LIFE_S,
        history: int = HISTORY,
        max_users: int = 100_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(history, NeighbourRows(neighbours, transitions, half_life_s), max_users, max_items, seed)
        self.neighbours = neighbours
        self.transitions = transitions
        self.half_life_s = half_life_s
        self._query = query()

    def _fill(self, lists: Lists, user: NDArray[np.int32], hidden: NDArray[np.bool_]) -> None:
        items, rows, work = self._items, self._rows.arrays, scratch(self._items.size)
        rank_rows(self._histories.arrays, user, rows, self._query, hidden, items.blob, items.spans, work, lists)


def run(
    stream: Stream,
    k: int,
    half_life_s: float = HALF_LIFE_S,
    teach_exponent: float = 1.0,
    vote_exponent: float = 1.5,
    step_share: float = STEP_SHARE,
) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's covisit contender.

    Parameters
    ----------
    stream
        Encoded events in order, with the flags of those that are scored.
    k
        Length of the lists.
    half_life_s
        As for `ItemSimilarity`.
    teach_exponent, vote_exponent
        How fast weights fall with the distance between two items when pairs are learned, and when recent items vote.
    step_share
        Extra vote of the newest item's transitions.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    items = Vocabulary(len(stream.item_ids) + 1)
    items.encode(stream.item_ids)
    histories = Histories(HISTORY)
    histories.reserve(int(stream.key.max(initial=0)) + 1)
    rows = NeighbourRows(half_life_s=half_life_s)
    rows.reserve(len(items))
    rows.reserve_rows(len(items))
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    lessons = stream.lessons
    _run(
        lessons.touches,
        lessons.marked(stream.scored),
        lessons.learned,
        histories.arrays,
        rows.arrays,
        rows.half_life_s,
        weighting(lessons.weights)._replace(near=power_law(teach_exponent)),
        query(lessons.weights)._replace(near=power_law(vote_exponent), step_share=step_share),
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
    half_life_s: float,
    weights: Weighting,
    votes: Query,
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    work: Scratch,
    room: Deltas,
    out: NDArray[np.int32],
) -> None:
    items = len(rows.row)
    micros = np.zeros(out.shape[1], dtype=np.int64)
    partition = np.zeros(items, dtype=np.int32)
    hidden = np.zeros(items, dtype=np.bool_)
    used = 0
    queries = 0
    for n in range(len(touches.user)):
        user = touches.user[n : n + 1]
        if scored[n]:
            voters = find_voters(histories, user[0], rows, votes, work)  # as `rank_rows`, without reasons
            found = gather(rows, voters, work)
            current = current_item(histories, user[0])
            select(found, current, hidden, blob, spans, work, out[queries], micros)
            queries += 1
        if not learned[n]:
            append(histories, user[0], touches.item[n], touches.kind[n], touches.ts[n], touches.starts[n])
            continue
        if emit_into(histories, single(touches, n), weights, room):
            used = apply_deltas(rows, used, room, partition, 0, half_life_s, 1.0)

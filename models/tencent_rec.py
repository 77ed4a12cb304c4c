"""TencentRec in one process: ratings by action, similarity of items, and lists behind River's `Ranker`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, clear, column
from models.covisitation import Deltas, power_law
from models.decay import YEAR_2000_S
from models.evaluation import Stream
from models.histories import HISTORY, Histories, HistoryArrays, Touches, append
from models.kernel import kernel
from models.neighbour_rows import NO_ROW, NeighbourRows, RowArrays, apply_deltas
from models.rating_similarity import emit_ratings, emit_ratings_into, rating
from models.session_votes import distinct_recent
from models.toplist import ScoreRanker, place, rounded
from models.vocabulary import Vocabulary

HALF_LIFE_S: Final = 30 * 86_400.0
FADE: Final = 1.0
ACTIONS: Final[Mapping[str, float]] = {"view_item": 1.0, "add_to_cart": 2.0, "purchase": 3.0}


@kernel
def vote_similar(
    histories: HistoryArrays,
    user: int,
    rows: RowArrays,
    kinds: NDArray[np.float32],
    near: NDArray[np.float32],
    half_life_s: float,
    normal: bool,
    recent: NDArray[np.int32],
    candidates: Candidates,
    feature: int,
    found: int,
) -> int:
    distinct = distinct_recent(histories, user, recent)
    ts = histories.ts[user, histories.head[user]] if distinct > 0 else np.uint32(0)
    for i in range(min(distinct, len(near))):
        row = rows.row[recent[i]]
        if row == NO_ROW or rows.total[row] <= 0.0:
            continue
        vote = near[i] * rating(histories, user, recent[i], 0, ts, kinds, half_life_s)
        for c in range(rows.size[row]):
            other = rows.row[rows.item[row, c]]
            if rows.value[row, c] <= 0.0 or rows.total[other] <= 0.0:
                continue
            at = column(candidates, rows.item[row, c], found)
            if at >= 0:
                found += at == found
                candidates.x[feature, at] += vote * similarity(rows, row, c)
    if normal:
        for c in range(found):
            row = rows.row[candidates.item[c]]
            total = 0.0
            for n in range(rows.size[row]):
                total += similarity(rows, row, n)
            candidates.x[feature, c] /= total + 1e-9 if normal else 1.0
    return found


@kernel
def similarity(rows: RowArrays, row: int, cell: int) -> float:
    """Similarity of a row's item and that of one of its cells; their epochs may differ, their decay is the same."""
    other = rows.row[rows.item[row, cell]]
    total = rows.total[row] * rows.total[other]
    if total <= 0.0:
        return 0.0
    return rows.value[row, cell] / math.sqrt(total) * 2.0 ** (0.5 * (rows.epoch[row] - rows.epoch[other]))


def run(
    stream: Stream, k: int, half_life_s: float = HALF_LIFE_S, fade: float = FADE, normal: bool = False
) -> NDArray[np.int32]:
    rows, histories = NeighbourRows(half_life_s=half_life_s), Histories(HISTORY)
    rows.reserve(len(stream.item_ids) + 1)
    rows.reserve_rows(len(stream.item_ids) + 1)
    histories.reserve(int(stream.key.max(initial=0)) + 1)
    weights, kind = np.unique(stream.weight, return_inverse=True)
    ts = np.clip(stream.ts - YEAR_2000_S, 0, 2**32 - 1).astype(np.uint32)
    touches = Touches(stream.key, stream.item, kind.astype(np.uint8), ts, np.zeros(len(stream), dtype=np.bool_))
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    _run(
        touches,
        stream.scored,
        stream.learned,
        stream.rank,
        histories.arrays,
        rows.arrays,
        weights,
        power_law(fade),
        half_life_s,
        normal,
        Candidates.empty(len(stream.item_ids) + 1, 1),
        out,
    )
    return out


@kernel
def _run(
    touches: Touches,
    scored: NDArray[np.bool_],
    learned: NDArray[np.bool_],
    rank: NDArray[np.int32],
    histories: HistoryArrays,
    rows: RowArrays,
    kinds: NDArray[np.float32],
    near: NDArray[np.float32],
    half_life_s: float,
    normal: bool,
    candidates: Candidates,
    out: NDArray[np.int32],
) -> None:
    size = histories.item.shape[1]
    recent = np.empty(size, dtype=np.int32)
    best = np.empty(out.shape[1], dtype=np.int64)
    partition = np.zeros(len(rows.row), dtype=np.int32)
    room = Deltas(
        np.empty(1, dtype=np.int32),
        np.empty(1, dtype=np.float32),
        np.empty(1, dtype=np.uint32),
        np.empty(1, dtype=np.int32),
        np.zeros(2, dtype=np.int32),
        np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.float32),
        np.zeros(size, dtype=np.bool_),
    )
    used = 0
    queries = 0
    for n in range(len(touches.user)):
        user = touches.user[n]
        if scored[n]:
            found = vote_similar(histories, user, rows, kinds, near, half_life_s, normal, recent, candidates, 0, 0)
            filled = 0
            for c in range(found):
                if candidates.item[c] != recent[0] and candidates.x[0, c] > 0.0:
                    filled = place(out[queries], best, filled, candidates.item[c], rounded(candidates.x[0, c]), rank)
            clear(candidates, found)
            queries += 1
        if not learned[n]:
            append(histories, user, touches.item[n], touches.kind[n], touches.ts[n], touches.starts[n])
            continue
        one = Touches(
            touches.user[n : n + 1],
            touches.item[n : n + 1],
            touches.kind[n : n + 1],
            touches.ts[n : n + 1],
            touches.starts[n : n + 1],
        )
        if emit_ratings_into(histories, one, kinds, half_life_s, room):
            used = apply_deltas(rows, used, room, partition, 0, half_life_s, 1.0)

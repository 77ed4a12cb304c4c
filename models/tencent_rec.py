"""TencentRec in one process: ratings by action, similarity of items, and lists behind River's `Ranker`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, clear
from models.covisitation import Deltas, power_law
from models.evaluation import Stream
from models.histories import HISTORY, Histories, HistoryArrays, Touches, append, single
from models.kernel import kernel
from models.named_rings import NONE, NamedRings
from models.neighbour_rows import NO_ROW, NeighbourRows, RowArrays, apply_deltas
from models.nesting import part, prefixed
from models.rating_similarity import (
    emit_ratings,
    emit_ratings_into,
    rating,
    retract_ratings,
    similarity,
    vote_similar,
)
from models.toplist import ScoreRanker, place, rounded
from models.vocabulary import Vocabulary

HALF_LIFE_S: Final = 30 * 86_400.0
FADE: Final = 1.5
NEIGHBOURS: Final = 100
MAX_KINDS: Final = 127
ACTIONS: Final[Mapping[str, float]] = {"view_item": 1.0, "add_to_cart": 2.0, "purchase": 3.0}


class TencentRec(ScoreRanker):
    """Recommends what people with the same ratings rated, where a rating is the strongest thing someone did.

    A buyer of both items makes them more alike than a visitor of both. The score of an item is the similarity of the
    user's latest items with it, times the user's ratings, summed; the newest items count most. It is wrong for visitors
    without history, for items nobody touched beside another, and where order matters. The original divides by the sum
    of similarities: a mean, equal for all items where there is one kind of action, hence no order to rank by.

    Parameters
    ----------
    actions
        Weights > 0 of actions by name, at most 127; an event names its action in ``x["action"]``.
    half_life_s
        Event time in seconds in which a rating halves, > 0.
    fade
        Exponent of 1/i, the weight of the i-th item from the newest, >= 0.
    neighbours
        Similar items kept per item, 1 to 255; a full row gives the place of the weakest.
    history
        Touches kept per user, 1 to 127; what is dropped from it counts anew when it is done again.
    max_users
        Users remembered; the one silent for longest is forgotten first.
    max_items
        Items known; later ones are not learned.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    An event costs about 0.5 us in the kernel and a list 2-10 us, growing with `neighbours` and `history`; about 50 us
    through these methods. Memory: ``12 * neighbours + 38`` bytes per item, ``9 * history + 2`` per user, plus the ids.

    Examples
    --------
    >>> model = TencentRec()
    >>> buys = [("ann", "mat"), ("bob", "tent"), ("bob", "mat")]
    >>> for user, item in [("ann", "tent"), *buys, ("cyd", "mat"), ("cyd", "axe"), ("dan", "mat")]:
    ...     model.learn_one(user, item, 1, {"action": "purchase" if (user, item) in buys else "view_item"})
    >>> [(item, round(score, 2)) for item, score in model.recommend("dan")]
    [('tent', 0.71), ('axe', 0.35)]
    >>> round(model.expected_rating("dan", "tent"), 2)  # how much dan likes what is like a tent
    1.0

    References
    ----------
    Huang, Cui, Zhang, Jiang, Xu (2015), "TencentRec: real-time stream recommendation in practice".
    https://doi.org/10.1145/2723372.2742785
    """

    def __init__(
        self,
        actions: Mapping[str, float] = ACTIONS,
        half_life_s: float = HALF_LIFE_S,
        fade: float = FADE,
        neighbours: int = NEIGHBOURS,
        history: int = HISTORY,
        max_users: int = 100_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not 1 <= len(actions) <= MAX_KINDS or min(actions.values()) <= 0:
            raise ValueError("actions must be 1 to 127, with weights > 0")
        self.actions = actions
        self.half_life_s = half_life_s
        self.fade = fade
        self.neighbours = neighbours
        self.history = history
        self.max_users = max_users
        self.max_items = max_items
        self._ids = Vocabulary()
        self._users = NamedRings(history, max_users)
        self._rows = NeighbourRows(neighbours, 1, half_life_s)
        self._kinds = np.array(list(actions.values()), dtype=np.float32)
        self._votes = power_law(fade, history)

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user did something with an item.

        Parameters
        ----------
        user, item
            Ids; anything whose text identifies it.
        y
            Feedback; an action counts if it is greater than 0.
        x
            Context; ``x["ts"]`` is the event time in seconds (absent: 0), ``x["action"]`` one of `actions` (absent: the
            first of them; others are not learned).
        """
        context = x or {}
        action = context.get("action", next(iter(self.actions)))
        index = int(self._ids.lookup([str(item)])[0])
        if not y > 0 or action not in self.actions or (index < 0 and len(self._ids) >= self.max_items):
            return
        index = int(self._ids.encode([str(item)])[0])
        self._rows.reserve(len(self._ids))
        touch = Touches(
            np.array([self._users.open(str(user))], dtype=np.int32),
            np.array([index], dtype=np.int32),
            np.array([list(self.actions).index(action)], dtype=np.uint8),
            np.array([context.get("ts", 0)], dtype=np.uint32),
            np.zeros(1, dtype=np.bool_),
        )
        self._add(emit_ratings(self._users.histories.arrays, touch, self._kinds, self.half_life_s))

    def forget_one(self, user: Hashable) -> None:
        """Subtract a user's ratings; those dropped from the history before stay as anonymous sums."""
        ring = np.array([self._users.find(str(user))], dtype=np.int32)
        if ring[0] != NONE:
            self._add(retract_ratings(self._users.histories, ring, self._kinds, self.half_life_s))
            self._users.forget(str(user))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        items = np.flatnonzero(self._rows.arrays.row != NO_ROW).astype(np.int32)
        return {
            **prefixed("ids", self._ids.arrays()),
            **prefixed("users", self._users.arrays()),
            "with_row": items,
            **prefixed("rows", self._rows.extract(items)),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described, in a model with the same parameters that has learned nothing."""
        self._ids = Vocabulary.from_arrays(part(arrays, "ids"))
        self._users.restore(part(arrays, "users"))
        self._rows.insert(arrays["with_row"], part(arrays, "rows"))

    def scores(self, user: Hashable, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Similarities with the user's latest items, weighed by ratings, without the item the user is on."""
        ring = self._users.find(str(user))
        if ring == NONE:
            return {}
        candidates, recent = Candidates.empty(len(self._ids), 1), np.empty(self.history, dtype=np.int32)
        rows, histories = self._rows.arrays, self._users.histories.arrays
        found = vote_similar(
            histories, ring, rows, self._kinds, self._votes, self.half_life_s, recent, candidates, 0, 0
        )
        items = candidates.item[:found]
        cells = zip(items.tolist(), self._ids.texts(items), candidates.x[0, :found].tolist(), strict=True)
        return {text: score for item, text, score in cells if score > 0 and item != recent[0]}

    def similarities(self, item: Hashable) -> dict[str, float]:
        """Similarity > 0 of an item's neighbours, each 0 to 1 while bounds drop nothing."""
        index = int(self._ids.lookup([str(item)])[0])
        row = int(self._rows.arrays.row[index]) if index >= 0 else NO_ROW
        if row == NO_ROW:
            return {}
        cells = range(int(self._rows.arrays.size[row]))
        found = [float(similarity(self._rows.arrays, row, cell)) for cell in cells]
        texts = self._ids.texts(self._rows.arrays.item[row, cells])
        return {text: value for text, value in zip(texts, found, strict=True) if value > 0}

    def expected_rating(self, user: Hashable, item: Hashable) -> float:
        """``r(u,i) = sum_j p(j|i) r(u,j)``: the user's ratings, at the newest touch, of what is like an item.

        ``p(j|i)`` is an item's similarity with its neighbours, divided by their sum. It tells how sure a user is to
        care for a given item. It does not order lists well, since it favours items with few neighbours: of four
        recordings three lost a sixth of their reciprocal rank against `scores`, and one won a fiftieth.
        """
        alike = self.similarities(item)
        ring = self._users.find(str(user))
        if ring == NONE or not alike:
            return 0.0
        histories = self._users.histories.arrays
        ts = int(histories.ts[ring, histories.head[ring]])
        others = self._ids.lookup(list(alike)).tolist()
        ratings = [rating(histories, ring, other, 0, ts, self._kinds, self.half_life_s) for other in others]
        return float(sum(p * r for p, r in zip(alike.values(), ratings, strict=True)) / sum(alike.values()))

    def _add(self, deltas: Deltas) -> None:
        self._rows.learn(deltas, np.zeros(max(len(self._ids), 1), dtype=np.int32))


def run(stream: Stream, k: int, half_life_s: float = HALF_LIFE_S, fade: float = FADE) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's TencentRec contender.

    Parameters
    ----------
    stream
        The stream; the weight of a touch is that of its action.
    k
        Length of the lists.
    half_life_s, fade
        As for `TencentRec`.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    rows, histories = NeighbourRows(NEIGHBOURS, 1, half_life_s), Histories(HISTORY)
    rows.reserve(len(stream.item_ids))
    rows.reserve_rows(len(stream.item_ids))
    histories.reserve(int(stream.key.max(initial=0)) + 1)
    kinds, kind = np.unique(stream.weight, return_inverse=True)
    if len(kinds) > MAX_KINDS:
        raise ValueError(f"at most {MAX_KINDS} different weights, not {len(kinds)}")
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    flags, near = (stream.scored, stream.learned, stream.rank), power_law(fade)
    candidates = Candidates.empty(len(stream.item_ids), 1)
    touches = stream.touches(kind.astype(np.uint8))
    room = Deltas.room(1, HISTORY)._replace(step=np.zeros(HISTORY, dtype=np.bool_))  # ratings know no steps
    _run(touches, *flags, histories.arrays, rows.arrays, kinds, near, half_life_s, candidates, room, out)
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
    candidates: Candidates,
    room: Deltas,
    out: NDArray[np.int32],
) -> None:
    size = histories.item.shape[1]
    recent = np.empty(size, dtype=np.int32)
    best = np.empty(out.shape[1], dtype=np.int64)
    partition = np.zeros(len(rows.row), dtype=np.int32)
    used = 0
    queries = 0
    for n in range(len(touches.user)):
        user = touches.user[n]
        if scored[n]:
            found = vote_similar(histories, user, rows, kinds, near, half_life_s, recent, candidates, 0, 0)
            filled = 0
            for c in range(found):
                if candidates.item[c] != recent[0] and candidates.x[0, c] > 0.0:
                    filled = place(out[queries], best, filled, candidates.item[c], rounded(candidates.x[0, c]), rank)
            clear(candidates, found)
            queries += 1
        if not learned[n]:
            append(histories, user, touches.item[n], touches.kind[n], touches.ts[n], touches.starts[n])
            continue
        if emit_ratings_into(histories, single(touches, n), kinds, half_life_s, room):
            used = apply_deltas(rows, used, room, partition, 0, half_life_s, 1.0)

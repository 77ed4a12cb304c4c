"""What rankers of histories and co-visitation rows share behind River's `Ranker`: ids, learning, the verbs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import reco

from models.covisitation import Deltas, emit, retract, weighting
from models.histories import Histories, Touches
from models.neighbour_rows import NO_ROW, NeighbourRows
from models.nesting import part, prefixed
from models.ranking import Lists
from models.vocabulary import Vocabulary


class HistoryRanker(reco.base.Ranker):
    """Learns histories and co-visitation per event; how a list follows from them is the subclass's.

    Parameters
    ----------
    history
        Items remembered per user, 1 to 127.
    rows
        Empty rows to learn into.
    seed
        River's interface; there is no randomness.
    """

    def __init__(self, history: int, rows: NeighbourRows, seed: int | None) -> None:
        super().__init__(seed)
        self.history = history
        self._users = Vocabulary()
        self._items = Vocabulary()
        self._histories = Histories(history)
        self._rows = rows
        self._weighting = weighting()

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user touched an item.

        Parameters
        ----------
        user, item
            Ids; anything whose text identifies it.
        y
            Feedback; a touch counts if it is greater than 0.
        x
            Context; ``x["ts"]`` is the event time in seconds (absent: 0, hence no decay).
        """
        if not y > 0:
            return
        users, items = self._users.encode([str(user)]), self._items.encode([str(item)])
        ts = np.array([(x or {}).get("ts", 0)], dtype=np.uint32)
        touch = Touches(users, items, np.zeros(1, dtype=np.uint8), ts, np.zeros(1, dtype=np.bool_))
        self._histories.reserve(len(self._users))
        self._rows.reserve(len(self._items))
        self._rows.learn(self._emit(touch), np.zeros(len(self._items), dtype=np.int32))

    def forget_one(self, user: Hashable) -> None:
        """Subtract what a user taught about pairs of items; touches that the history had dropped stay in the sums."""
        found = self._users.lookup([str(user)])
        if found[0] >= 0:
            self._leave(found)
            self._rows.learn(
                retract(self._histories, found, self._weighting), np.zeros(len(self._items), dtype=np.int32)
            )
            self._histories.clear(found)
            self._users.remove(found)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of ids, histories and rows; a subclass that keeps more adds it."""
        items = np.flatnonzero(self._rows.arrays.row != NO_ROW).astype(np.int32)
        return {
            **prefixed("users", self._users.arrays()),
            **prefixed("items", self._items.arrays()),
            **prefixed("histories", self._histories.snapshot(self._users.size)),
            "with_row": items,
            **prefixed("rows", self._rows.extract(items)),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described, in a model with the same parameters that has learned nothing."""
        self._users = Vocabulary.from_arrays(part(arrays, "users"))
        self._items = Vocabulary.from_arrays(part(arrays, "items"))
        self._histories = Histories.restore(part(arrays, "histories"))
        self._rows.reserve(self._items.size)
        self._rows.insert(arrays["with_row"], part(arrays, "rows"))

    def _leave(self, users: NDArray[np.int32]) -> None:
        """What else a subclass forgets of users whose histories are still there."""

    def predict_one(self, user: Hashable, item: Hashable, x: dict[str, Any] | None = None) -> Any:
        """Score of an item for a user, >= 0; 0 where nothing is known. Reading leaves the state equal."""
        return dict(self.recommend(user, k=max(len(self._items), 1))).get(str(item), 0.0)

    def rank(self, user: Hashable, items: set[Hashable], x: dict[str, Any] | None = None) -> list[Hashable]:
        """Items by decreasing score, equal ones by their text."""
        scores = dict(self.recommend(user, k=max(len(self._items), 1)))
        return sorted(items, key=lambda item: (-scores.get(str(item), 0.0), str(item)))

    def recommend(self, user: Hashable, k: int = 20) -> list[tuple[str, float]]:
        """At most k (item, score) pairs, best first, ties by item id; without the item the user is on."""
        lists = self._ranked(user, k)
        size = int((lists.item[0] >= 0).sum())
        return list(zip(self._items.texts(lists.item[0, :size]), (lists.micro[0, :size] / 1e6).tolist(), strict=True))

    def _ranked(self, user: Hashable, k: int) -> Lists:
        """A user's list; empty for one nobody knows."""
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        lists, found = Lists.empty(1, k), self._users.lookup([str(user)])
        if found[0] >= 0:
            self._fill(lists, found, np.zeros(len(self._items), dtype=np.bool_))
        return lists

    def _emit(self, touch: Touches) -> Deltas:
        """Append a touch to the history; what it teaches about pairs of items."""
        return emit(self._histories.arrays, touch, self._weighting)

    @abstractmethod
    def _fill(self, lists: Lists, user: NDArray[np.int32], hidden: NDArray[np.bool_]) -> None:
        """Rank one known user."""

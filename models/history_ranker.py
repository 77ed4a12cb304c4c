"""What rankers of histories and co-visitation rows share behind River's `Ranker`: ids, learning, the verbs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import reco

from models.covisitation import Deltas, emit, retract, weighting
from models.eviction import Turns
from models.histories import Histories, Touches
from models.joined_histories import rewrite
from models.neighbour_rows import NO_ROW, NeighbourRows
from models.nesting import part, prefixed
from models.ranking import Lists
from models.vocabulary import Vocabulary


class HistoryRanker(reco.base.Ranker):
    """Learns histories and co-visitation per event; how a list follows from them is the subclass's.

    At most so many users and items are known: a new one takes the place of those met longest ago, one in 64 at a time.
    What a user taught stays when he goes; of an item nothing stays.

    Parameters
    ----------
    history
        Items remembered per user, 1 to 127.
    rows
        Empty rows to learn into.
    max_users, max_items
        Users and items known, > 0.
    seed
        River's interface; there is no randomness.
    """

    def __init__(self, history: int, rows: NeighbourRows, max_users: int, max_items: int, seed: int | None) -> None:
        super().__init__(seed)
        self.history = history
        self.max_users = max_users
        self.max_items = max_items
        self._users = Vocabulary()
        self._items = Vocabulary()
        self._user_turns = Turns(max_users)
        self._item_turns = Turns(max_items)
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
        users, items = self._met_user(str(user)), self._met_item(str(item))
        ts = np.array([(x or {}).get("ts", 0)], dtype=np.uint32)
        touch = Touches(users, items, np.zeros(1, dtype=np.uint8), ts, np.zeros(1, dtype=np.bool_))
        self._learn_rows(self._emit(touch))

    def forget_one(self, user: Hashable) -> None:
        """Subtract what a user taught about pairs of items; touches that the history had dropped stay in the sums."""
        found = self._users.lookup([str(user)])
        if found[0] >= 0:
            self._leave(found)
            self._learn_rows(retract(self._histories, found, self._weighting))
            self._drop_users(found)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of ids, their order, histories and rows; a subclass that keeps more adds it."""
        items = np.flatnonzero(self._rows.arrays.row != NO_ROW).astype(np.int32)
        return {
            **prefixed("users", self._users.arrays()),
            **prefixed("items", self._items.arrays()),
            "users.last": self._user_turns.last[: self._users.size].copy(),
            "items.last": self._item_turns.last[: self._items.size].copy(),
            **prefixed("histories", self._histories.snapshot(self._users.size)),
            "with_row": items,
            **prefixed("rows", self._rows.extract(items)),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described, in a model with the same parameters that has learned nothing."""
        self._users = Vocabulary.from_arrays(part(arrays, "users"))
        self._items = Vocabulary.from_arrays(part(arrays, "items"))
        self._user_turns.restore(arrays["users.last"])
        self._item_turns.restore(arrays["items.last"])
        self._histories = Histories.restore(part(arrays, "histories"))
        self._rows.reserve(self._items.size)
        self._rows.insert(arrays["with_row"], part(arrays, "rows"))

    def _met_user(self, user: str) -> NDArray[np.int32]:
        """Index of a user, who is the latest now; there is room for his history."""
        gone = self._user_turns.surplus(self._users, user)
        if len(gone):
            self._drop_users(gone)
        index = self._user_turns.meet(self._users, user)
        self._histories.reserve(self._users.size)
        return index

    def _met_item(self, item: str) -> NDArray[np.int32]:
        """Index of an item, which is the latest now; there is room for it among the rows."""
        gone = self._item_turns.surplus(self._items, item)
        if len(gone):
            self._drop_items(gone)
            self._items.remove(gone)
        index = self._item_turns.meet(self._items, item)
        self._rows.reserve(self._items.size)
        return index

    def _drop_users(self, users: NDArray[np.int32]) -> None:
        self._histories.clear(users)
        self._users.remove(users)

    def _drop_items(self, items: NDArray[np.int32]) -> None:
        """Forget items wherever an index names them; a subclass that knows more of items adds it."""
        gone = np.zeros(self._items.size, dtype=np.bool_)
        gone[items] = True
        users = self._histories.holders(gone)
        touches = self._histories.recall(users)
        kept = ~gone[touches.item]
        rest = Touches._make(column[kept] for column in touches._replace(user=users[touches.user]))
        # where a touch goes, distances shrink: to be learned as such, for `forget_one` subtracts by what is left
        self._learn_rows(rewrite(self._histories, users, rest, self._weighting))
        self._rows.forget(items)

    def _learn_rows(self, deltas: Deltas) -> None:
        self._rows.learn(deltas, np.zeros(self._items.size, dtype=np.int32))

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
            self._fill(lists, found, np.zeros(self._items.size, dtype=np.bool_))
        return lists

    def _emit(self, touch: Touches) -> Deltas:
        """Append a touch to the history; what it teaches about pairs of items."""
        return emit(self._histories.arrays, touch, self._weighting)

    @abstractmethod
    def _fill(self, lists: Lists, user: NDArray[np.int32], hidden: NDArray[np.bool_]) -> None:
        """Rank one known user."""

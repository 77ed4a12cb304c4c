"""Short lists, best first, in an order that is the same in every process: rounded score, then item id as text."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import reco

from models.kernel import lean_kernel
from models.nesting import part, prefixed
from models.vocabulary import Vocabulary

NOTHING = -(2**62)


@lean_kernel
def rounded(score: float) -> int:
    """Integer that orders scores of any size, equal where they agree to about six digits.

    Scores without an upper bound (decayed counts) cannot be rounded to fixed decimals: the mantissa is rounded to 20
    bits instead, a relative step of 1e-6 to 2e-6. Scores of 0 and below are the smallest and all equal.
    """
    if score <= 0.0:
        return NOTHING
    mantissa, exponent = math.frexp(score)
    # a mantissa that rounds up to 1 becomes the smallest of the next exponent: the order has no gap and no overlap
    return (int(exponent) << 19) + int(mantissa * 1048576.0 + 0.5) - 524288


@lean_kernel
def place(
    items: NDArray[np.int32], scores: NDArray[np.int64], filled: int, item: int, score: int, rank: NDArray[np.int32]
) -> int:
    """Insert a new item into a bounded list at the place its rounded score and text rank give it.

    Parameters
    ----------
    items, scores
        The list and its rounded scores, best first; `filled` entries are used. Changed in place.
    item, score
        The candidate, not yet in the list.
    rank
        By item index, the place of its id in text order.

    Returns
    -------
    int
        Entries used afterwards. A full list drops its last.
    """
    k = len(items)
    if filled == k:
        last = k - 1
        if score < scores[last] or (score == scores[last] and rank[item] > rank[items[last]]):
            return filled
        filled = last
    at = filled
    while at > 0 and (score > scores[at - 1] or (score == scores[at - 1] and rank[item] < rank[items[at - 1]])):
        items[at] = items[at - 1]
        scores[at] = scores[at - 1]
        at -= 1
    items[at] = item
    scores[at] = score
    return filled + 1


class ScoreRanker(reco.base.Ranker):
    """River ranker of models that can list every item they have a score for; reading leaves the state equal."""

    @abstractmethod
    def scores(self, user: Hashable, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Scores > 0 of all items there is evidence for, by id as text; without the item the user is known to be on."""

    def predict_one(  # type: ignore[override]  # River says Number, which to mypy no float is
        self, user: Hashable, item: Hashable, x: dict[str, Any] | None = None
    ) -> float:
        """Score of an item for a user, >= 0; 0 where nothing is known. Costs as much as a whole list."""
        return self.scores(user, x).get(str(item), 0.0)

    def rank(self, user: Hashable, items: set[Hashable], x: dict[str, Any] | None = None) -> list[Hashable]:
        """Items by decreasing rounded score, equal ones by their text."""
        scores = self.scores(user, x)
        return sorted(items, key=lambda item: (-rounded(scores.get(str(item), 0.0)), str(item)))

    def recommend(self, user: Hashable, k: int = 20, x: dict[str, Any] | None = None) -> list[tuple[str, float]]:
        """At most k (item, score) pairs, best first, ties by item id."""
        scores = self.scores(user, x)
        ranked = sorted(scores.items(), key=lambda cell: (-rounded(cell[1]), cell[0]))
        return ranked[:k]


class RecentItems:
    """The last items of each user, newest first; the user silent for longest is forgotten first.

    Memory: about 300 bytes per user plus 8 per item remembered.
    """

    def __init__(self, users: int, length: int) -> None:
        self.users = users
        self.length = length
        self._items: dict[str, deque[int]] = {}

    def __contains__(self, user: str) -> bool:
        return user in self._items

    def of(self, user: str) -> NDArray[np.int32]:
        """Items of a user, newest first; empty for an unknown one."""
        return np.array(self._items.get(user, ()), dtype=np.int32)

    def append(self, user: str, item: int) -> None:
        """Remember that a user is on an item."""
        items = self._items.pop(user, None)
        if items is None:
            items = deque(maxlen=self.length)
            if len(self._items) >= self.users:
                del self._items[next(iter(self._items))]
        items.appendleft(item)
        self._items[user] = items  # last in the dictionary's order = latest seen

    def forget(self, user: str) -> NDArray[np.int32]:
        """Forget a user; returns the items that were remembered, newest first."""
        items = self.of(user)
        self._items.pop(user, None)
        return items

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        users, items = Vocabulary(max(len(self._items), 1)), self._items.values()
        users.encode(list(self._items))
        sizes = np.array([len(own) for own in items], dtype=np.int32)
        every = np.array([item for own in items for item in own], dtype=np.int32)
        return {**prefixed("users", users.arrays()), "sizes": sizes, "items": every}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described."""
        users = Vocabulary.from_arrays(part(arrays, "users"))
        items = np.split(arrays["items"], np.cumsum(arrays["sizes"]))  # and nothing behind the last
        named = zip(users.texts(range(users.size)), items, strict=False)
        self._items = {user: deque(own.tolist(), self.length) for user, own in named}

    def discard(self, dropped: set[int]) -> None:
        """Forget some items wherever they are remembered; costs one pass over all users."""
        for user, items in list(self._items.items()):
            if not dropped.isdisjoint(items):
                kept = deque((item for item in items if item not in dropped), self.length)
                self._items[user] = kept

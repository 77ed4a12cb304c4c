"""Last-item sequential rules: what followed this item, counted, nearer followers more."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.decay import summed
from models.evaluation import Stream
from models.kernel import kernel
from models.nesting import part, prefixed
from models.toplist import RecentItems, ScoreRanker, place, rounded
from models.vocabulary import Vocabulary, grown

STEPS: Final = 10
RULES: Final = 100


class SequentialRules(ScoreRanker):
    """Recommends what most often followed the item a user is on.

    Each touch adds 1/i to the rule from the item touched i places before, up to `steps`. A strong and cheap baseline;
    wrong where more than the last item tells what is wanted, and nothing in it decays.

    Parameters
    ----------
    steps
        Longest distance of a rule, 1 or more. More finds weaker relations.
    rules
        Rules counted per item, 1 or more; a full item gives the place of its weakest to the newcomer, so more than the
        lists are long (20 of 20 cost a real stream 3 % of its hits).
    max_users
        Users remembered; the one silent for longest is forgotten first. They may be sessions.
    max_items
        Items that have rules; later ones are not learned.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    An event costs about 0.5 us in the kernel, about 10 us through these methods. Memory: ``12 * rules + 4`` bytes per
    item plus its id's; per user about 300 bytes plus 8 per remembered item.

    Examples
    --------
    >>> model = SequentialRules()
    >>> for user, item in [("ann", "tent"), ("ann", "mat"), ("ann", "stove"), ("bob", "tent")]:
    ...     model.learn_one(user, item, 1)
    >>> model.recommend("bob")
    [('mat', 1.0), ('stove', 0.5)]
    >>> model.forget_one("ann")
    >>> model.recommend("bob")
    []

    References
    ----------
    Ludewig, Jannach (2018), "Evaluation of session-based recommendation algorithms", section 3.1.
    https://arxiv.org/abs/1803.09587
    """

    def __init__(
        self,
        steps: int = STEPS,
        rules: int = RULES,
        max_users: int = 100_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.steps = steps
        self.rules = rules
        self.max_users = max_users
        self.max_items = max_items
        self._ids = Vocabulary()
        self._recent = RecentItems(max_users, steps)
        self._items = np.zeros((0, rules), dtype=np.int32)
        self._weights = np.zeros((0, rules), dtype=np.float64)
        self._sizes = np.zeros(0, dtype=np.int32)

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user touched an item; a touch counts if y > 0 and it does not repeat the one before."""
        index = int(self._ids.lookup([str(item)])[0])
        recent = self._recent.of(str(user))
        if not y > 0 or (len(recent) and recent[0] == index) or (index < 0 and len(self._ids) >= self.max_items):
            return
        if index < 0:
            index = int(self._ids.encode([str(item)])[0])
            self._items = grown(self._items, index + 1)
            self._weights = grown(self._weights, index + 1)
            self._sizes = grown(self._sizes, index + 1)
        _learn(self._items, self._weights, self._sizes, recent, index)
        self._recent.append(str(user), index)

    def forget_one(self, user: Hashable) -> None:
        """Subtract what a user's remembered items taught; rules from and to older ones stay in the sums.

        Parameters
        ----------
        user
            The id. A user who touched no more than `steps` items leaves what there would be without him, as far as no
            row was full.
        """
        _unlearn(self._items, self._weights, self._sizes, self._recent.forget(str(user)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        n = len(self._ids)
        return {
            **prefixed("ids", self._ids.arrays()),
            **prefixed("recent", self._recent.arrays()),
            "items": self._items[:n].copy(),
            "weights": self._weights[:n].copy(),
            "sizes": self._sizes[:n].copy(),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described, in a model with the same parameters."""
        self._ids = Vocabulary.from_arrays(part(arrays, "ids"))
        self._recent.restore(part(arrays, "recent"))
        self._items, self._weights, self._sizes = (arrays[name] for name in ("items", "weights", "sizes"))

    def scores(self, user: Hashable, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Weights of the rules of the item the user is on."""
        recent = self._recent.of(str(user))
        if not len(recent):
            return {}
        size = self._sizes[recent[0]]
        texts = self._ids.texts(self._items[recent[0], :size])
        return dict(zip(texts, self._weights[recent[0], :size].tolist(), strict=True))


@kernel
def _learn(
    items: NDArray[np.int32],
    weights: NDArray[np.float64],
    sizes: NDArray[np.int32],
    recent: NDArray[np.int32],
    item: int,
) -> None:
    """Add 1/i to the rule from the i-th recent item, newest first, to the item."""
    for i in range(len(recent)):
        if recent[i] != item:
            _add(items, weights, sizes, recent[i], item, 1.0 / (i + 1))


@kernel
def _add(
    items: NDArray[np.int32],
    weights: NDArray[np.float64],
    sizes: NDArray[np.int32],
    row: int,
    item: int,
    weight: float,
) -> None:
    weakest = 0
    for c in range(sizes[row]):
        if items[row, c] == item:
            weights[row, c] += weight
            return
        if weights[row, c] < weights[row, weakest]:
            weakest = c
    cell = weakest
    if sizes[row] < items.shape[1]:
        cell = sizes[row]
        sizes[row] += 1
    items[row, cell] = item
    weights[row, cell] = weight


@kernel
def _unlearn(
    items: NDArray[np.int32], weights: NDArray[np.float64], sizes: NDArray[np.int32], recent: NDArray[np.int32]
) -> None:
    """Take back what one user's touches taught, given newest first; a rule of which nothing is left goes."""
    for i in range(len(recent)):
        for distance in range(1, len(recent) - i):
            row = recent[i + distance]
            for c in range(sizes[row]):
                if items[row, c] == recent[i]:
                    weights[row, c] = summed(weights[row, c], -1.0 / distance)
                    if weights[row, c] == 0.0:
                        sizes[row] -= 1
                        items[row, c] = items[row, sizes[row]]
                        weights[row, c] = weights[row, sizes[row]]
                    break


def run(stream: Stream, k: int, steps: int = STEPS, rules: int = RULES) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's sequential rules contender.

    Parameters
    ----------
    stream
        The stream.
    k
        Length of the lists, at most `rules`.
    steps, rules
        As for `SequentialRules`.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    _run(stream.item, stream.previous, stream.scored, stream.learned, stream.rank, steps, rules, out)
    return out


@kernel
def _run(
    item: NDArray[np.int32],
    previous: NDArray[np.int32],
    scored: NDArray[np.bool_],
    learned: NDArray[np.bool_],
    rank: NDArray[np.int32],
    steps: int,
    rules: int,
    out: NDArray[np.int32],
) -> None:
    k = out.shape[1]
    items = np.zeros((len(rank), rules), dtype=np.int32)
    weights = np.zeros((len(rank), rules), dtype=np.float64)
    sizes = np.zeros(len(rank), dtype=np.int32)
    recent = np.empty(steps, dtype=np.int32)
    best = np.empty(k, dtype=np.int64)
    queries = 0
    for n in range(len(item)):
        length = 0
        back = previous[n]
        while back >= 0 and length < steps:
            recent[length] = item[back]
            length += 1
            back = previous[back]
        if scored[n]:
            filled = 0
            for c in range(sizes[recent[0]]):
                score = rounded(weights[recent[0], c])
                filled = place(out[queries], best, filled, items[recent[0], c], score, rank)
            queries += 1
        if learned[n]:
            _learn(items, weights, sizes, recent[:length], item[n])

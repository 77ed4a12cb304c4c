"""What is dropped first when a structure is full: what was touched longest ago, users and items alike.

Both decide from learned state alone, so that a replay of the same log drops the same ones: no clock, no chance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel
from models.vocabulary import Vocabulary, grown

NEVER = np.uint32(0xFFFFFFFF)  # last touch of an index that stands for nobody: no horizon reaches it
SAMPLE = 4_096  # touches looked at to estimate which are old
OLD = 64  # one in so many counts as old


def longest_untouched(touched: NDArray[np.uint32], hand: int, most: int) -> tuple[NDArray[np.int32], int]:
    """Some of those whose last touch is among the oldest: a clock's hand takes them as it passes.

    The horizon is a quantile of a sample of the touches, so that neither a sorted list is kept nor everything scanned.
    With up to 4,096 indices it is exact; beyond, an index is taken whose touch is among the oldest 1.6 %, give or take.

    Parameters
    ----------
    touched
        Time of the last touch by index; `NEVER` where there is nobody.
    hand
        Where the last search ended.
    most
        Indices wanted, > 0.

    Returns
    -------
    tuple[NDArray[np.int32], int]
        One to `most` distinct indices, and where the hand is now; none if nobody is left.

    Notes
    -----
    About 0.5 ms for 4,096 of 10 million.

    Examples
    --------
    >>> longest_untouched(np.array([7, 3, 9], dtype=np.uint32), hand=0, most=2)
    (array([1], dtype=int32), 0)
    """
    sample = np.sort(touched[:: max(len(touched) // SAMPLE, 1)])
    horizon = sample[max(len(sample) // OLD, 1) - 1] if len(sample) else NEVER
    if horizon == NEVER:
        return np.zeros(0, dtype=np.int32), hand
    found = np.empty(most, dtype=np.int32)
    taken, hand = _sweep(touched, horizon, hand, found)
    return found[:taken], int(hand)


@lean_kernel
def _sweep(touched: NDArray[np.uint32], horizon: np.uint32, hand: int, found: NDArray[np.int32]) -> tuple[int, int]:
    taken = 0
    for _ in range(len(touched)):
        if taken == len(found):
            break
        if hand >= len(touched):
            hand = 0
        if touched[hand] <= horizon:
            found[taken] = hand
            taken += 1
        hand += 1
    return taken, hand if hand < len(touched) else 0


def oldest(
    touched: NDArray[np.uint32] | NDArray[np.int64], hashes: NDArray[np.uint64], count: int
) -> NDArray[np.int64]:
    """Positions of the lowest touches, equal ones by their hash: exact, and the same in whatever order they are given.

    Parameters
    ----------
    touched
        Times of the last touch.
    hashes
        Stable hash of what each belongs to.
    count
        How many, 1 to ``len(touched)``.

    Returns
    -------
    NDArray[np.int64]
        `count` positions.

    Notes
    -----
    About 10 ns per touch.

    Examples
    --------
    >>> oldest(np.array([9, 7, 8], dtype=np.uint32), np.zeros(3, dtype=np.uint64), 2).tolist()
    [1, 2]
    """
    limit = np.partition(touched, count - 1)[count - 1]
    below, equal = np.flatnonzero(touched < limit), np.flatnonzero(touched == limit)
    by_hash = equal[np.argsort(hashes[equal], kind="stable")]
    return np.concatenate((below, by_hash[: count - len(below)]))


class Turns:
    """In which order ids were met last: for those who keep at most so many, whatever times their events tell.

    Parameters
    ----------
    most
        Ids kept, > 0.

    Notes
    -----
    Memory: 8 bytes per id. When all places are taken, one in 64 becomes free, in about 10 ns per id that there is.

    Examples
    --------
    >>> ids, turns = Vocabulary(), Turns(most=2)
    >>> for name in ("ann", "bob", "ann", "cyd"):
    ...     ids.remove(turns.surplus(ids, name))
    ...     _ = turns.meet(ids, name)
    >>> ids.lookup(["ann", "bob", "cyd"]).tolist()
    [0, -1, 1]
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"at least one user and one item must be kept, not {most}")
        self.most = most
        self.last = np.zeros(0, dtype=np.int64)  # by index
        self._turn = 0

    def surplus(self, ids: Vocabulary, name: str) -> NDArray[np.int32]:
        """Indices to free before an id is met: none if it is known or there is room, else those met longest ago."""
        if len(ids) < self.most or ids.lookup([name])[0] >= 0:
            return np.zeros(0, dtype=np.int32)
        known = ids.indices()
        return known[oldest(self.last[known], ids.hashes[known], max(len(known) // OLD, 1))]

    def meet(self, ids: Vocabulary, name: str) -> NDArray[np.int32]:
        """Index of an id, as an array of one: added if it is new, and the latest from now on."""
        index = ids.encode([name])
        self.last = grown(self.last, ids.size)
        self._turn += 1
        self.last[index] = self._turn
        return index

    def restore(self, last: NDArray[np.int64]) -> None:
        """Take over the order, as `last` told it."""
        self.last, self._turn = last, int(last.max(initial=0))

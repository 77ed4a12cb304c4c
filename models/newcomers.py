"""Which items are new to a partition's visitors: shown or touched by them only a few times so far.

An item stops being new with its `below`-th appearance in an event, an impression or a touch alike: if nobody reacts to
it, showing it that often is enough. Appearances do not decay. Counted by item index; an item whose index went to
another is new again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.vocabulary import grown

BELOW: Final = 100  # appearances that an item is new for
POOL: Final = 500  # new items among which one list chooses


class Pool(NamedTuple):
    """New items among which lists choose, and the probability with which a new item is one of them."""

    item: NDArray[np.int32]
    share: float


class Newcomers:
    """Appearances of items.

    Parameters
    ----------
    below
        An item is new until it has appeared so often, > 0. More gives each new item a longer trial, and fewer items
        one at a time.

    Notes
    -----
    Memory: 4 bytes per item index. Learning costs some 10 ns per appearance, a pool about 1 ns per item index and
    100 ns per new one.

    Examples
    --------
    >>> newcomers = Newcomers(below=2)
    >>> newcomers.learn_many(np.array([0, 1, 1], dtype=np.int32))
    >>> known, hashes = np.array([True, True, True]), np.array([7, 8, 9], dtype=np.uint64)
    >>> pool = newcomers.pool(known, hashes, turn=0)
    >>> sorted(pool.item.tolist()), pool.share
    ([0, 2], 1.0)
    """

    def __init__(self, below: int = BELOW) -> None:
        self.below = below
        self.count = np.zeros(0, dtype=np.uint32)

    def learn_many(self, items: NDArray[np.int32]) -> None:
        """Count appearances; an item may come several times."""
        if len(items):
            self.count = grown(self.count, int(items.max()) + 1)
            np.add.at(self.count, items, np.uint32(1))

    def drop_items(self, items: NDArray[np.int32]) -> None:
        """Forget some items, whose indices go to others."""
        self.count[items[items < len(self.count)]] = 0

    def pool(self, known: NDArray[np.bool_], hashes: NDArray[np.uint64], turn: int) -> Pool:
        """At most `POOL` of the new items, in an order that their ids alone decide.

        Parameters
        ----------
        known
            By item index, whether it may be shown at all.
        hashes
            Of the items' ids.
        turn
            Another number chooses others, where there are more: each of them has its turn.
        """
        common = np.flatnonzero(self.count >= self.below)
        fresh = known.copy()
        fresh[common[common < len(known)]] = False
        new = np.flatnonzero(fresh).astype(np.int32)
        lot = (hashes[new] ^ _mixed(turn)) * np.uint64(0x9E3779B97F4A7C15)
        share = min(POOL / max(len(new), 1), 1.0)
        if share < 1.0:
            first = np.argpartition(lot, POOL)[:POOL]
            new, lot = new[first], lot[first]
        return Pool(new[np.argsort(lot, kind="stable")], share)

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """The items that have appeared, and how often, as `restore` takes them."""
        items = np.flatnonzero(self.count).astype(np.int32)
        return {"item": items, "count": self.count[items]}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], below: int = BELOW) -> Newcomers:
        """The same again; indices of items may be other ones by now."""
        newcomers = cls(below)
        known = arrays["item"] >= 0
        items = arrays["item"][known]
        newcomers.count = grown(newcomers.count, int(items.max(initial=-1)) + 1)
        newcomers.count[items] = arrays["count"][known]
        return newcomers


def _mixed(turn: int) -> np.uint64:
    """A turn's number spread over the word."""
    return np.uint64((turn + 1) * 0xBF58476D1CE4E5B9 & (2**64 - 1))

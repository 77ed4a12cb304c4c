"""Which items have a feature: bounded lists in a pool of small blocks, from which entries can be taken out again.

A list is a chain of blocks of one cache line, full but for the first. A full list gives the place that a turning hand
points to, so that newcomers are always found and what is dropped was entered about longest ago.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernel import kernel
from models.vocabulary import grown

WIDTH: Final = 16
ENTRIES: Final = WIDTH - 1  # of a block; its first number is 1 + the block behind it, 0 = none
FREE: Final = 0  # places in `pool`: 1 + the first free block, 0 = none ...
USED: Final = 1  # ... and blocks ever handed out


class InvertedIndex(NamedTuple):
    """The lists. `head`: by feature, 1 + its first block, 0 = none; `listed`: by feature, entries of its list.

    Memory: 8 bytes per feature and 64 per block; a list of n entries has ``ceil(n / 15)`` blocks.
    """

    head: NDArray[np.int32]
    listed: NDArray[np.int32]
    block: NDArray[np.int32]
    pool: NDArray[np.int64]

    @classmethod
    def empty(cls, features: int) -> InvertedIndex:
        """No lists, for features below `features`."""
        head, listed = np.zeros(features, dtype=np.int32), np.zeros(features, dtype=np.int32)
        return cls(head, listed, np.zeros((0, WIDTH), dtype=np.int32), np.zeros(2, dtype=np.int64))

    def reserved(self, entries: int) -> InvertedIndex:
        """The same with room for so many more entries, wherever they go."""
        return self._replace(block=grown(self.block, int(self.pool[USED]) + entries))


@kernel
def enter(index: InvertedIndex, feature: int, item: int, most: int, turn: int) -> None:
    """Add an item to a feature's list; a list of `most` gives the entry that the hand, at `turn`, points to."""
    listed = np.int64(index.listed[feature])
    if listed >= most:
        place = turn % listed
        block = np.int64(index.head[feature]) - 1
        for _ in range((listed - 1) // ENTRIES - place // ENTRIES):
            block = np.int64(index.block[block, 0]) - 1
        index.block[block, 1 + place % ENTRIES] = item
        return
    if listed % ENTRIES == 0:
        block = index.pool[FREE] - 1
        if block >= 0:
            index.pool[FREE] = index.block[block, 0]
        else:
            block = index.pool[USED]
            index.pool[USED] += 1
        index.block[block, 0] = index.head[feature]
        index.head[feature] = block + 1
    index.block[index.head[feature] - 1, 1 + listed % ENTRIES] = item
    index.listed[feature] = listed + 1


@kernel
def take_out(index: InvertedIndex, feature: int, item: int) -> bool:
    """Remove an item from a feature's list, whose last entry takes its place; False if it is not there."""
    listed = np.int64(index.listed[feature])
    first = np.int64(index.head[feature]) - 1
    filled = (listed - 1) % ENTRIES + 1 if listed > 0 else 0
    block = first
    while block >= 0:
        for at in range(1, 1 + (filled if block == first else ENTRIES)):
            if index.block[block, at] == item:
                index.block[block, at] = index.block[first, filled]
                index.listed[feature] = listed - 1
                if filled == 1:
                    index.head[feature] = index.block[first, 0]
                    index.block[first, 0] = index.pool[FREE]
                    index.pool[FREE] = first + 1
                return True
        block = np.int64(index.block[block, 0]) - 1
    return False

"""Who had an item lately: per item the users that touched it, newest first, in one bounded pool of small blocks.

An item's users lie in blocks of one cache line, each pointing to the block before it. All items draw their blocks from
one ring, in which the block allocated longest ago is overwritten; a link to an overwritten block is seen by its number
and ends the list. A rare item costs one block, a popular one reads 14 users per cache miss.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel
from models.vocabulary import grown

NONE: Final = -1
BACK: Final = 0  # columns of a block: how many numbers back the block before is (0 = none), ...
FILLED: Final = 1  # ... users in it, ...
FIRST: Final = 2  # ... and where they begin
WIDTH: Final = 16


class Postings(NamedTuple):
    """The pool and its entry points. A block is identified by its number since the start; its row is that modulo size.

    `block`: rows of (link, users filled, up to 14 user indices, oldest first); `newest`: by item index, the number of
    its newest block or -1; `allocated`: blocks handed out so far.

    Memory: 64 bytes per block and 8 per item.
    """

    block: NDArray[np.int32]
    newest: NDArray[np.int64]
    allocated: NDArray[np.int64]

    @classmethod
    def empty(cls, blocks: int) -> Postings:
        """A pool of so many blocks, > 0; pages never touched cost no memory."""
        return cls(np.zeros((blocks, WIDTH), dtype=np.int32), np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64))

    def reserved(self, items: int) -> Postings:
        """The same with room for item indices below `items`."""
        known = len(self.newest)
        if items <= known:
            return self
        newest = grown(self.newest, max(items, 1024))
        newest[known:] = NONE
        return self._replace(newest=newest)


@lean_kernel
def live(postings: Postings, number: int) -> bool:
    """Whether a block exists and was not yet overwritten."""
    return bool(number >= 0 and number >= postings.allocated[0] - len(postings.block))


@lean_kernel
def before(postings: Postings, number: int) -> int:
    """Number of the block before a live one; -1 where the list ends."""
    back = np.int64(postings.block[number % len(postings.block), BACK])
    earlier = int(number - back) if back > 0 else NONE
    return earlier if live(postings, earlier) else NONE


@lean_kernel
def post(postings: Postings, item: int, user: int) -> None:
    """Note that a user touched an item."""
    number = postings.newest[item]
    size = len(postings.block)
    if not live(postings, number) or postings.block[number % size, FILLED] == WIDTH - FIRST:
        fresh = postings.allocated[0]
        postings.allocated[0] = fresh + 1
        postings.block[fresh % size, BACK] = fresh - number if live(postings, number) else 0
        postings.block[fresh % size, FILLED] = 0
        postings.newest[item] = fresh
        number = fresh
    block = postings.block[number % size]
    block[FIRST + block[FILLED]] = user
    block[FILLED] += 1


@lean_kernel
def listed(postings: Postings, item: int) -> bool:
    """Whether an item has any user."""
    number = postings.newest[item]
    if not live(postings, number):
        number = NONE
    while number != NONE:
        if postings.block[number % len(postings.block), FILLED] > 0:
            return True
        number = before(postings, number)
    return False


@lean_kernel
def emptied(postings: Postings, flags: NDArray[np.bool_]) -> None:
    """Flag by index the items of whose users none is left, as far as their blocks are."""
    for item in range(len(postings.newest)):
        flags[item] = live(postings, postings.newest[item]) and not listed(postings, item)


@lean_kernel
def remove_users(postings: Postings, gone: NDArray[np.bool_]) -> None:
    """Take some users, flagged by index, out of all blocks; what stays keeps its order."""
    block = postings.block
    for row in range(min(postings.allocated[0], len(block))):
        end = FIRST + block[row, FILLED]
        kept = FIRST
        for at in range(FIRST, end):
            user = block[row, at]
            if user >= len(gone) or not gone[user]:
                block[row, kept] = user
                kept += 1
        block[row, kept:end] = 0
        block[row, FILLED] = kept - FIRST

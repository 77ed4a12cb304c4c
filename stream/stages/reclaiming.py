"""Which items nothing refers to any more: mark and sweep over a process's indices, in slices between batches.

Histories, lists and rows of every shard refer to items by index, so an index may go to another item only when none of
them holds it. Nothing learned depends on when that happens: what is freed, nobody can see.

New references come about only by `ItemSpace.encode`, which marks what it returns while a collection runs, and by
copying from a row into a pushed list; rows are therefore marked first and lists last.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from models.histories import HistoryArrays
from models.kernel import kernel

if TYPE_CHECKING:
    from stream.stages.space import ItemSpace

LEAST: Final = 16_384  # items below which nothing is collected
GROWTH: Final = 1.25  # since the last collection
ROWS: Final = 2_048  # of a slice, each about 1 ms
USERS: Final = 8_192
IDS: Final = 16_384

Marks = Callable[[], Iterator[None]]
"""Marks, in `ItemSpace.marked`, the items that a structure refers to, and yields between slices."""


class Reclaimer:
    """Frees the items of a space that neither rows nor holders refer to.

    Parameters
    ----------
    space
        The items.

    Attributes
    ----------
    holders
        What else refers to items by index: whoever keeps indices from one batch to the next adds itself here.
    forgetters
        Called with items that are freed: whoever knows something of an item without keeping it adds itself here.
    running
        Whether a collection is under way: then what is encoded counts as referred to.

    Notes
    -----
    Memory: a byte per item. Items of a process are at most `GROWTH` times those referred to, plus those met while a
    collection runs: a slice per batch of either stage, about 300 batches with a million users and items.
    """

    __slots__ = (
        "_kept",
        "_left",
        "_space",
        "_work",
        "forgetters",
        "holders",
    )  # no __dict__: who sums up memory meets no circle

    def __init__(self, space: ItemSpace) -> None:
        self._space = space
        self._work: Generator[None] | None = None
        self._left = 0
        self._kept = 0
        self.holders: list[Marks] = []
        self.forgetters: list[Callable[[NDArray[np.int32]], None]] = []

    @property
    def running(self) -> bool:
        """Whether a collection is under way."""
        return self._work is not None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While this is open no index is freed: for those who hold some across other batches, in no structure."""
        self._kept += 1
        try:
            yield
        finally:
            self._kept -= 1

    def restart(self) -> None:
        """Give up a collection: rows have moved."""
        self._work = None

    def step(self) -> None:
        """Do a slice of work, if there is any. Call it when nothing but rows and holders refers to items by index."""
        if self._kept:
            return
        if self._work is None:
            if len(self._space.ids) < max(LEAST, GROWTH * self._left):
                return
            self._work = self._collect()
        if next(self._work, self) is self:  # exhausted
            self._work = None
            self._left = len(self._space.ids)

    def _collect(self) -> Generator[None]:
        space = self._space
        space.marked[:] = False
        for end in range(space.rows.used, 0, -ROWS):  # downwards: dropped rows are filled from the end
            rows = space.rows.arrays
            start, end = max(end - ROWS, 0), min(end, space.rows.used)
            mark_cells(space.marked, rows.item, rows.size, start, end)
            mark_cells(space.marked, rows.step_item, rows.steps, start, end)
            yield
        for holder in self.holders:
            yield from holder()
        for start in range(0, space.ids.size, IDS):
            free = space.unmarked(start, start + IDS)
            for forget in self.forgetters:
                forget(free)
            space.drop(free)
            yield


@kernel
def mark_cells(
    marked: NDArray[np.bool_], items: NDArray[np.int32], sizes: NDArray[np.uint8], start: int, end: int
) -> None:
    """Mark the items in the used cells of some rows."""
    for row in range(start, end):
        for cell in range(sizes[row]):
            marked[items[row, cell]] = True


@kernel
def mark_histories(marked: NDArray[np.bool_], histories: HistoryArrays, start: int, end: int) -> None:
    """Mark the items in the rings of some users."""
    size = histories.item.shape[1]
    for user in range(start, end):
        head = np.int64(histories.head[user])
        for i in range(np.int64(histories.count[user])):
            slot = head - i if head >= i else head - i + size
            marked[histories.item[user, slot]] = True


@kernel
def items_in_rings(histories: HistoryArrays, users: NDArray[np.int32]) -> NDArray[np.int32]:
    """The items in the rings of some users, over and over if they come so."""
    size = histories.item.shape[1]
    items = np.empty(len(users) * size, dtype=np.int32)
    found = 0
    for user in users:
        head = np.int64(histories.head[user])
        for i in range(np.int64(histories.count[user])):
            items[found] = histories.item[user, head - i if head >= i else head - i + size]
            found += 1
    return items[:found]


@kernel
def mark_lists(marked: NDArray[np.bool_], lists: NDArray[np.int32], start: int, end: int) -> None:
    """Mark the items in some lists; -1 is none."""
    for user in range(start, end):
        for item in lists[user]:
            if item >= 0:
                marked[item] = True

"""What one process knows of items: ids, their fragments and partitions, neighbour rows, popularity, availability.

All shards of a process share it, because an item belongs to exactly one `covisits` partition: its row is learned here
if that partition is owned here, else it is a cached copy of what the owner published.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.covisitation import NeighbourRows
from models.ranking import Scratch, scratch
from models.vocabulary import Vocabulary, grown
from stream.rendering import Fragments

NO_CATEGORY: Final = -1
MAX_CATEGORIES: Final = 10_000  # further names count as no category


def printable(texts: list[str]) -> list[str]:
    """Free texts without NUL, which separates ids in a joined buffer; the same list where there is none."""
    return [text.replace("\0", " ") for text in texts] if any("\0" in text for text in texts) else texts


class ItemSpace:
    """Items of a process by dense index.

    Parameters
    ----------
    partitions
        Number of partitions of topic ``covisits``; an item belongs to murmur2(id) modulo this.
    neighbours, transitions, half_life_s
        See `NeighbourRows`.

    Attributes
    ----------
    owned
        The `covisits` partitions this process owns.

    Notes
    -----
    Memory per item: twice its id + 75 bytes, and 1.46 kB if it has a row.
    """

    def __init__(
        self,
        partitions: int,
        *,
        neighbours: int = 100,
        transitions: int = 20,
        half_life_s: float = 30 * 86_400.0,
    ) -> None:
        self.partitions = partitions
        self.ids = Vocabulary()
        self.categories = Vocabulary()
        self.fragments = Fragments()
        self.rows = NeighbourRows(neighbours, transitions, half_life_s)
        self.partition = np.zeros(0, dtype=np.int32)
        self.category = np.zeros(0, dtype=np.int32)
        self.hidden = np.zeros(0, dtype=np.bool_)
        self.trend = np.zeros(0, dtype=np.float64)
        self.trend_epoch = np.zeros(0, dtype=np.int32)
        self.unpublished = np.zeros(0, dtype=np.bool_)  # neighbour lists that changed since they were published
        self.untold = np.zeros(0, dtype=np.bool_)  # popularity that changed since the global stage heard of it
        self.owned: set[int] = set()
        self.scratch: Scratch = scratch(0)

    def encode(self, ids: list[str]) -> NDArray[np.int32]:
        """Indices of items; unseen ones are added with their partition and fragment."""
        known = len(self.ids)
        indices = self.ids.encode(ids)
        if len(self.ids) > known:
            self._extend(known)
        return indices

    def encode_categories(self, names: list[str]) -> NDArray[np.int32]:
        """Indices of categories; `NO_CATEGORY` for the empty name."""
        find = self.categories.lookup if len(self.categories) >= MAX_CATEGORIES else self.categories.encode
        try:
            codes = find(names)
        except ValueError:  # rare enough to look for only then: a NUL inside
            codes = find(printable(names))
        empty = self.categories.lookup([""])[0]
        return np.where(codes == empty, NO_CATEGORY, codes).astype(np.int32)

    def file(self, items: NDArray[np.int32], categories: NDArray[np.int32]) -> None:
        """Remember items' categories, as events or the catalogue tell them."""
        told = categories != NO_CATEGORY
        self.category[items[told]] = categories[told]

    def _extend(self, known: int) -> None:
        size = len(self.ids)
        new = np.arange(known, size, dtype=np.int32)
        self.partition = grown(self.partition, size)
        self.partition[known:size] = self.ids.partitions(new, self.partitions)
        self.partition[size:] = -1
        had = len(self.category)
        self.category = grown(self.category, size)
        self.category[had:] = NO_CATEGORY
        for name in ("hidden", "trend", "trend_epoch", "unpublished", "untold"):
            setattr(self, name, grown(getattr(self, name), size))
        self.fragments.extend(self.ids.texts(new))
        self.rows.reserve(size)
        if len(self.scratch.score) < size:
            self.scratch = scratch(len(self.partition))

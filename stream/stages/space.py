"""What one process knows of items: ids, their fragments and partitions, neighbour rows, popularity, availability.

All shards of a process share it, because an item belongs to exactly one `covisits` partition: its row is learned here
if that partition is owned here, else it is a cached copy of what the owner published.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.blend_content import Contents
from models.neighbour_rows import NO_ROW, NeighbourRows
from models.ranking import Scratch, scratch
from models.vocabulary import Vocabulary, grown
from stream.rendering import Fragments
from stream.stages.reclaiming import Reclaimer

NO_CATEGORY: Final = -1
MAX_CATEGORIES: Final = 10_000  # further names count as no category
MAX_CATEGORY: Final = 256  # characters; longer names count as no category, too


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
    contents
        What the catalogue says of items. Those that have a record there are `listed`: their indices go to no other.
    owned
        The `covisits` partitions this process owns.
    listed
        Whether each item is in the catalogue now: those are kept, whether anything else refers to them or not.
    reclaimer
        Frees the indices of items that nothing refers to.
    dropped
        Items freed so far.

    Notes
    -----
    Memory per item: twice its id + 90 bytes, and 1.46 kB if it has a row.
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
        self._uncategorised = int(self.categories.encode([""])[0])
        self.fragments = Fragments()
        self.rows = NeighbourRows(neighbours, transitions, half_life_s)
        self.partition = np.zeros(0, dtype=np.int32)
        self.category = np.zeros(0, dtype=np.int32)
        self.hidden = np.zeros(0, dtype=np.bool_)
        self.trend = np.zeros(0, dtype=np.float64)
        self.trend_epoch = np.zeros(0, dtype=np.int32)
        self.visited = np.zeros(0, dtype=np.uint32)  # second of the last visit: rows of the oldest are dropped first
        self.unpublished = np.zeros(0, dtype=np.bool_)  # neighbour lists that changed since they were published
        self.untold = np.zeros(0, dtype=np.uint8)  # popularity that changed since the global stage heard of it: how
        self.listed = np.zeros(0, dtype=np.bool_)
        self.marked = np.zeros(0, dtype=np.bool_)  # found to be referred to by the collection that runs
        self.contents = Contents()
        self.owned: set[int] = set()
        self.scratch: Scratch = scratch(0)
        self.reclaimer = Reclaimer(self)
        self.dropped = 0

    def encode(self, ids: list[str]) -> NDArray[np.int32]:
        """Indices of items; unseen ones are added with their partition and fragment."""
        return self._met(len(self.ids), self.ids.encode(ids))

    def encode_joined(self, data: NDArray[np.uint8], count: int) -> NDArray[np.int32]:
        """The same for `count` > 0 ids that are separated by NULs in a buffer."""
        return self._met(len(self.ids), self.ids.encode_joined(data, count))

    def _met(self, known: int, indices: NDArray[np.int32]) -> NDArray[np.int32]:
        """Take in ids that were just encoded, so many of which were known before."""
        if len(self.ids) > known:
            self._extend(indices)
        if self.reclaimer.running:
            self.marked[indices] = True
        return indices

    def encode_categories(self, names: list[str]) -> NDArray[np.int32]:
        """Indices of categories; `NO_CATEGORY` for the empty name."""
        if max(map(len, names), default=0) > MAX_CATEGORY:
            names = ["" if len(name) > MAX_CATEGORY else name for name in names]
        find = self.categories.lookup if len(self.categories) >= MAX_CATEGORIES else self.categories.encode
        try:
            codes = find(names)
        except ValueError:  # rare enough to look for only then: a NUL inside
            codes = find(printable(names))
        codes[codes == self._uncategorised] = NO_CATEGORY
        return codes

    def file(self, items: NDArray[np.int32], categories: NDArray[np.int32]) -> None:
        """Remember items' categories, as events or the catalogue tell them."""
        told = categories != NO_CATEGORY
        self.category[items[told]] = categories[told]

    def category_names(self, items: NDArray[np.int32]) -> list[str]:
        """Names of items' categories, empty where none is known."""
        category = self.category[items]
        return self.categories.texts(np.where(category == NO_CATEGORY, self._uncategorised, category))

    def unmarked(self, start: int, end: int) -> NDArray[np.int32]:
        """Items between two indices that neither the collection nor a row or the catalogue knows of."""
        end = min(end, self.ids.size)
        known = self.marked[start:end] | self.listed[start:end] | (self.rows.arrays.row[start:end] != NO_ROW)
        return (start + np.flatnonzero(~known & (self.partition[start:end] >= 0))).astype(np.int32)

    def drop(self, items: NDArray[np.int32]) -> None:
        """Forget items that nothing refers to; their indices go to later ones."""
        self.ids.remove(items)
        self.fragments.remove(items)
        self.partition[items] = -1
        self.category[items] = NO_CATEGORY
        self.hidden[items] = False
        self.unlearn(items)
        self.dropped += len(items)

    def unlearn(self, items: NDArray[np.int32] | NDArray[np.bool_]) -> None:
        """Forget popularity and last visit of items, and what is to be told of them."""
        for column in (self.trend, self.trend_epoch, self.visited, self.unpublished, self.untold):
            column[items] = 0

    def _extend(self, indices: NDArray[np.int32]) -> None:
        """Room for new items among those just encoded, their partitions and fragments."""
        size, had = self.ids.size, len(self.partition)
        if size > had:
            self.partition = grown(self.partition, size)
            self.category = grown(self.category, len(self.partition))
            self.partition[had:] = -1
            self.category[had:] = NO_CATEGORY
            for name in ("hidden", "trend", "trend_epoch", "visited", "unpublished", "untold", "listed", "marked"):
                setattr(self, name, grown(getattr(self, name), len(self.partition)))
            self.scratch = scratch(len(self.partition))
        self.rows.reserve(size)
        new = np.unique(indices[self.partition[indices] < 0])
        self.partition[new] = self.ids.partitions(new, self.partitions)
        self.fragments.put(new, self.ids.texts(new))

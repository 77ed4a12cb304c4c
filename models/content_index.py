"""Items in content space: what shops say of them as vectors, and a search for what is alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates
from models.content_search import SEARCHED, Workspace, vote_content, workspace
from models.content_vectors import DESCRIBED, LANE, ContentArrays, describe
from models.inverted_index import InvertedIndex
from models.nesting import part, prefixed
from models.text_features import DIMENSIONS, Facts, Features, features
from models.vocabulary import grown

SIZE: Final = 32  # features of an item
POSTINGS: Final = 256  # items of a feature's list


class ContentIndex:
    """Vectors of items by dense index, as their catalogue records come, change and go.

    Parameters
    ----------
    size
        Features kept per item, > 0.
    postings
        Items listed per feature, > 0. More finds more of what shares only frequent features, and is slower.
    dimensions
        Places features are hashed to, a power of two.

    Notes
    -----
    `describe` costs about 50 us, most of it splitting the text. A search compares at most a set number of items: 20 us
    with 1,000 items, and 0.1 ms with 100,000, where each one compared is a cache miss. Recomputing idf (once per eighth
    of the catalogue) takes 10 ms with 100,000 items. Memory: 12 bytes and 8 per feature per item, its features rounded
    up to a multiple of 16, 20 per feature place, 64 per block of postings (at most one per feature of an item; see
    `InvertedIndex`).

    Examples
    --------
    >>> index = ContentIndex()
    >>> for item, title in enumerate(["red tent", "blue tent", "garden chair"]):
    ...     index.describe(item, Facts(title))
    >>> items, cosines = index.similar(np.array([0], dtype=np.int32))
    >>> items.tolist(), cosines.round(2).tolist()
    ([0, 1], [1.0, 0.3])
    """

    def __init__(self, size: int = SIZE, postings: int = POSTINGS, dimensions: int = DIMENSIONS) -> None:
        if size < 1 or postings < 1 or dimensions < 1 or dimensions & (dimensions - 1):
            raise ValueError("size and postings must be > 0 and dimensions a power of two")
        self.size = size
        self.postings = postings
        self.dimensions = dimensions
        room = -(-size // LANE) * LANE
        self.arrays = ContentArrays(
            np.zeros((0, room), dtype=np.int32),
            np.zeros((0, room), dtype=np.float32),
            np.zeros(0, dtype=np.int32),
            np.zeros(0),
            np.zeros(dimensions, dtype=np.int32),
            np.zeros(dimensions),
            InvertedIndex.empty(dimensions),
            np.zeros(2, dtype=np.int64),
        )

    def __len__(self) -> int:
        """Items with a vector."""
        return int(self.arrays.counts[DESCRIBED])

    def reserve(self, items: int) -> None:
        """Make room for item indices below `items`."""
        a = self.arrays
        if items > len(a.filled):
            place, tf, filled, length = (
                grown(column_, max(items, 64)) for column_ in (a.place, a.tf, a.filled, a.length)
            )
            self.arrays = a._replace(place=place, tf=tf, filled=filled, length=length)

    def describe(self, item: int, facts: Facts) -> None:
        """Take an item's record; it replaces what was known of the item. Empty facts withdraw it."""
        self.put(item, features(facts, self.size, self.dimensions))

    def put(self, item: int, vector: Features) -> None:
        """As `describe`, from features that were made elsewhere; none withdraw the item."""
        self.reserve(item + 1)
        self.arrays = self.arrays._replace(lists=self.arrays.lists.reserved(len(vector.place)))
        describe(self.arrays, item, vector.place, vector.weight, self.postings)

    def workspace(self, items: int) -> Workspace:
        """Room for queries made of at most so many items."""
        return workspace(items * self.size, self.dimensions)

    def similar(
        self, items: NDArray[np.int32], weights: NDArray[np.float64] | None = None, searched: int = SEARCHED
    ) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        """Items near the weighted mean of some items' vectors, those items among them.

        Parameters
        ----------
        items
            Indices, within what was reserved.
        weights
            > 0, one per item; None = all equal.
        searched
            Most items compared, up to 4,096.

        Returns
        -------
        tuple[NDArray[np.int32], NDArray[np.float64]]
            Items and cosines, decreasing; equal ones in order of their index.
        """
        chosen = np.ones(len(items)) if weights is None else weights
        candidates, work = Candidates.empty(len(self.arrays.filled), 1), self.workspace(len(items))
        found = vote_content(self.arrays, items, chosen, searched, work, candidates, 0, 0)
        cosines = candidates.x[0, :found].astype(np.float64)
        order = np.lexsort((candidates.item[:found], -cosines))
        return candidates.item[:found][order], cosines[order]

    def copied(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        flat = {name: getattr(self.arrays, name).copy() for name in ContentArrays._fields if name != "lists"}
        lists = {name: getattr(self.arrays.lists, name).copy() for name in InvertedIndex._fields}
        return flat | prefixed("lists", lists) | {"bounds": np.array([self.size, self.postings])}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> ContentIndex:
        """The state that `copied` described."""
        size, postings = arrays["bounds"].tolist()
        index = cls(size, postings, len(arrays["having"]))
        lists = part(arrays, "lists")
        known = {name: np.array(arrays[name]) for name in ContentArrays._fields if name != "lists"}
        index.arrays = ContentArrays(**known, lists=InvertedIndex(**{name: np.array(lists[name]) for name in lists}))
        return index

"""Items in content space: sparse tf-idf vectors by item, their cosines, and a search that is fast in any catalogue.

The number of items with a feature is counted exactly, per record. The weights derived from it, idf and the vectors'
lengths, are recomputed whenever an eighth of the catalogue has changed since: until then they are at most that stale,
and always consistent with each other, so that an item's cosine with itself is 1.

References
----------
Salton, Buckley (1988), "Term-weighting approaches in automatic text retrieval".

Weinberger, Dasgupta, Langford, Smola, Attenberg (2009), "Feature hashing for large scale multitask learning".
https://arxiv.org/abs/0902.2206
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, column
from models.inverted_index import ENTRIES, InvertedIndex, enter, take_out
from models.kernel import kernel
from models.nesting import part, prefixed
from models.text_features import DIMENSIONS, Facts, Features, features
from models.vocabulary import grown

SIZE: Final = 32  # features of an item
POSTINGS: Final = 256  # items of a feature's list
PROBES: Final = 24  # features of a query that are looked up
SEARCHED: Final = 1_024  # items whose cosine with a query is computed
STALE: Final = 8  # one in so many items may have changed since idf was computed
DESCRIBED: Final = 0  # places in `counts`: items with a vector, ...
CHANGED: Final = 1  # ... and records taken since idf was computed


class ContentArrays(NamedTuple):
    """What kernels read and write.

    By item: `place`, `tf` (`filled` of them) and `length` of its vector; by feature: `having` (items with it), `idf`,
    and the lists; `counts`: two numbers, see above.
    """

    place: NDArray[np.int32]
    tf: NDArray[np.float32]
    filled: NDArray[np.int32]
    length: NDArray[np.float64]
    having: NDArray[np.int32]
    idf: NDArray[np.float64]
    lists: InvertedIndex
    counts: NDArray[np.int64]


class Workspace(NamedTuple):
    """Room for one query, all zero between queries. `weight`: by feature; `place`, `strength`: its features."""

    weight: NDArray[np.float64]
    place: NDArray[np.int32]
    strength: NDArray[np.float64]


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
    `describe` costs about 20 us, most of it splitting the text; a search up to 40 us whatever the number of items, and
    recomputing idf (once per eighth of the catalogue) 10 ms with 100,000 items. Memory: ``8 * size + 12`` bytes per
    item, 20 per feature place, 64 per block of postings (at most one per feature of an item; see `InvertedIndex`).

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
        self.arrays = ContentArrays(
            np.zeros((0, size), dtype=np.int32),
            np.zeros((0, size), dtype=np.float32),
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
        room = max(items * self.size, 1)
        return Workspace(np.zeros(self.dimensions), np.zeros(room, dtype=np.int32), np.zeros(room))

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
        return flat | prefixed("lists", lists) | {"postings": np.array([self.postings])}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> ContentIndex:
        """The state that `copied` described."""
        index = cls(arrays["place"].shape[1], int(arrays["postings"][0]), len(arrays["having"]))
        lists = part(arrays, "lists")
        known = {name: np.array(arrays[name]) for name in ContentArrays._fields if name != "lists"}
        index.arrays = ContentArrays(**known, lists=InvertedIndex(**{name: np.array(lists[name]) for name in lists}))
        return index


@kernel
def describe(
    index: ContentArrays, item: int, place: NDArray[np.int32], weight: NDArray[np.float32], postings: int
) -> None:
    """Replace an item's vector; only features that it gains or loses touch the lists."""
    before = index.filled[item]
    for f in range(before):
        if not _contains(place, len(place), index.place[item, f]):
            index.having[index.place[item, f]] -= 1
            take_out(index.lists, index.place[item, f], item)
    for f in range(len(place)):
        if not _contains(index.place[item], before, place[f]):
            enter(index.lists, place[f], item, postings, index.having[place[f]])
            index.having[place[f]] += 1
    index.place[item, : len(place)] = place
    index.tf[item, : len(place)] = weight
    index.filled[item] = len(place)
    index.counts[DESCRIBED] += int(len(place) > 0) - int(before > 0)
    index.counts[CHANGED] += 1
    if index.counts[CHANGED] * STALE >= index.counts[DESCRIBED]:
        _weigh_again(index)
    else:
        index.length[item] = _length(index, item)


@kernel
def _contains(places: NDArray[np.int32], filled: int, place: int) -> bool:
    for n in range(filled):  # noqa: SIM110  (Numba compiles no generator)
        if places[n] == place:
            return True
    return False


@kernel
def _length(index: ContentArrays, item: int) -> float:
    total = 0.0
    for f in range(index.filled[item]):
        total += (index.tf[item, f] * index.idf[index.place[item, f]]) ** 2
    return math.sqrt(total)


@kernel
def _weigh_again(index: ContentArrays) -> None:
    items = float(index.counts[DESCRIBED])
    rarest = math.log(1.0 + items)
    for place in range(len(index.idf)):
        having = index.having[place]
        index.idf[place] = math.log(1.0 + items / having) if having > 1 else rarest
    for item in range(len(index.filled)):
        index.length[item] = _length(index, item)
    index.counts[CHANGED] = 0


@kernel
def cosine(index: ContentArrays, item: int, work: Workspace, size: float) -> float:
    """Cosine of an item's vector with the query in the workspace, whose length is `size`."""
    total = 0.0
    for f in range(index.filled[item]):
        place = index.place[item, f]
        total += work.weight[place] * index.tf[item, f] * index.idf[place]
    return total / (index.length[item] * size) if index.length[item] > 0.0 and size > 0.0 else 0.0


@kernel
def vote_content(
    index: ContentArrays,
    recent: NDArray[np.int32],
    near: NDArray[np.float64],
    searched: int,
    work: Workspace,
    candidates: Candidates,
    feature: int,
    found: int,
) -> int:
    """Say how near each candidate is to the weighted mean of some items, and list more candidates that are near.

    Parameters
    ----------
    index
        The vectors.
    recent, near
        Items of the query and their weights; items without a vector say nothing.
    searched
        Candidates up to which more are listed: from the query's strongest features on, newest entries first.
    work
        Room, as `ContentIndex.workspace` gives it.
    candidates, feature
        Where cosines are written; also for the `found` candidates that others have listed.
    found
        Candidates so far.

    Returns
    -------
    int
        Candidates now.
    """
    features_, size = _set_query(index, recent, near, work)
    for _ in range(min(features_, PROBES)):
        strongest = 0
        for f in range(1, features_):
            if work.strength[f] > work.strength[strongest]:
                strongest = f
        work.strength[strongest] = 0.0
        found = _list_having(index.lists, work.place[strongest], searched, candidates, found)
    for c in range(found):
        value = cosine(index, candidates.item[c], work, size)
        candidates.x[feature, c] = value
        candidates.total[feature] += value
    for f in range(features_):
        work.weight[work.place[f]] = 0.0
        work.strength[f] = 0.0
    return found


@kernel
def _set_query(
    index: ContentArrays, recent: NDArray[np.int32], near: NDArray[np.float64], work: Workspace
) -> tuple[int, float]:
    """Sum the items' vectors, each of length 1, into the workspace; returns its number of features and its length."""
    known = 0
    for r in range(len(recent)):
        item = recent[r]
        if index.length[item] <= 0.0 or near[r] <= 0.0:
            continue
        share = near[r] / index.length[item]
        for f in range(index.filled[item]):
            place = index.place[item, f]
            if work.weight[place] == 0.0:
                work.place[known] = place
                known += 1
            work.weight[place] += share * index.tf[item, f] * index.idf[place]
    total = 0.0
    for f in range(known):
        weight = work.weight[work.place[f]]
        work.strength[f] = weight
        total += weight * weight
    return known, math.sqrt(total)


@kernel
def _list_having(lists: InvertedIndex, place: int, most: int, candidates: Candidates, found: int) -> int:
    """List the items with a feature, newest first, until there are `most` candidates."""
    listed = np.int64(lists.listed[place])
    block = np.int64(lists.head[place]) - 1
    filled = (listed - 1) % ENTRIES + 1 if listed > 0 else 0
    while block >= 0 and found < most:
        for at in range(filled, 0, -1):
            if found < most:
                found += column(candidates, lists.block[block, at], found) == found
        block = np.int64(lists.block[block, 0]) - 1
        filled = ENTRIES
    return found

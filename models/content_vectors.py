"""Sparse tf-idf vectors of items, kept as their catalogue records come, change and go.

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
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.inverted_index import InvertedIndex, enter, take_out
from models.kernel import kernel

STALE: Final = 8  # one in so many items may have changed since idf was computed
DESCRIBED: Final = 0  # places in `counts`: items with a vector, ...
CHANGED: Final = 1  # ... and records taken since idf was computed
LANE: Final = 16  # features of an item are stored and read so many at a time, whether there are as many or not


class ContentArrays(NamedTuple):
    """What kernels read and write.

    By item: `place`, `tf` (`filled` of them, then zeros) and `length` of its vector; by feature: `having` (items with
    it), `idf`, and the lists; `counts`: two numbers, see above.
    """

    place: NDArray[np.int32]
    tf: NDArray[np.float32]
    filled: NDArray[np.int32]
    length: NDArray[np.float64]
    having: NDArray[np.int32]
    idf: NDArray[np.float64]
    lists: InvertedIndex
    counts: NDArray[np.int64]


@kernel
def describe(
    index: ContentArrays, item: int, place: NDArray[np.int32], weight: NDArray[np.float32], postings: int
) -> None:
    """Replace an item's vector; only features that it gains or loses touch the lists.

    The same vector again changes nothing: catalogues repeat whole records for every change of a stock.
    """
    before = index.filled[item]
    same = before == len(place)
    for f in range(min(before, len(place))):
        same &= index.place[item, f] == place[f] and index.tf[item, f] == weight[f]
    if same:
        return
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
    index.tf[item, len(place) :] = 0.0
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

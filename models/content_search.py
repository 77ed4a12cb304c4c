"""Search in content space: the cosine of items with the mean of a few, and which items are worth comparing at all.

The strongest features of the query are looked up in bounded lists, from which candidates come; these are compared in
full. The cost has a bound that does not depend on the number of items.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, column
from models.content_vectors import LANE, ContentArrays
from models.inverted_index import ENTRIES, InvertedIndex
from models.kernel import lean_kernel

PROBES: Final = 24  # features of a query that are looked up
SEARCHED: Final = 512  # items whose cosine is computed; 1,024 found no more on three recordings


class Workspace(NamedTuple):
    """Room for one query, all zero between queries. `weight`: by feature; `place`, `strength`: its features."""

    weight: NDArray[np.float64]
    place: NDArray[np.int32]
    strength: NDArray[np.float64]


def workspace(features: int, dimensions: int) -> Workspace:
    """Room for queries that have at most so many features in all, hashed to so many places."""
    room = max(features, 1)
    return Workspace(np.zeros(dimensions), np.zeros(room, dtype=np.int32), np.zeros(room))


@lean_kernel
def cosine(index: ContentArrays, item: int, work: Workspace, size: float) -> float:
    """Cosine of an item's vector with the query in the workspace, whose length is `size`. 8 ns."""
    total = 0.0
    for lane in range(0, index.filled[item], LANE):
        for f in range(lane, lane + LANE):  # a loop of a known length, with no end to be guessed
            place = np.uint32(index.place[item, f])
            total += work.weight[place] * index.tf[item, f]
    return total / (index.length[item] * size) if index.length[item] > 0.0 and size > 0.0 else 0.0


@lean_kernel
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
    known, size = set_query(index, recent, near, work)
    found = list_near(index, known, PROBES, searched, work, candidates, found)
    for c in range(found):
        value = cosine(index, candidates.item[c], work, size)
        candidates.x[feature, c] = value
        candidates.total[feature] += value
    clear_query(known, work)
    return found


@lean_kernel
def list_near(
    index: ContentArrays, known: int, probes: int, most: int, work: Workspace, candidates: Candidates, found: int
) -> int:
    """List items that have one of the query's strongest features, newest entries first, up to `most` candidates.

    `known` is the number of the query's features, `probes` how many of them are looked up.
    """
    for _ in range(min(known, probes)):
        strongest = 0
        for f in range(1, known):
            if work.strength[f] > work.strength[strongest]:
                strongest = f
        work.strength[strongest] = 0.0
        found = _list_having(index.lists, work.place[strongest], most, candidates, found)
    return found


@lean_kernel
def clear_query(known: int, work: Workspace) -> None:
    """Leave the workspace as it was before a query of so many features."""
    for f in range(known):
        work.weight[work.place[f]] = 0.0
        work.strength[f] = 0.0


@lean_kernel
def set_query(
    index: ContentArrays, recent: NDArray[np.int32], near: NDArray[np.float64], work: Workspace
) -> tuple[int, float]:
    """Sum the items' vectors, each of length 1, into the workspace; returns its number of features and its length.

    What stands in `Workspace.weight` is multiplied by idf once more, as candidates' weights are kept without.
    """
    known = 0
    for r in range(len(recent)):
        item = recent[r]
        if item >= len(index.length) or index.length[item] <= 0.0 or near[r] <= 0.0:
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
        work.weight[work.place[f]] = weight * index.idf[work.place[f]]  # once, instead of at every candidate
        total += weight * weight
    return known, math.sqrt(total)


@lean_kernel
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

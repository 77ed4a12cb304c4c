"""From what a visitor would like best to a good list: exclusions, categories, diversity, new items with propensity.

Diversity is maximal marginal relevance: each place goes to the item with the highest
``(1 - d) score / best score - d max similarity to the items above it``. A share of the places goes to new items, drawn
evenly; which, and where, follows from a hash of visitor and event, so that a replay shows the same. Each item's
propensity, the probability with which it is in a list made from the same scores, is told for later evaluation.

References
----------
Carbonell, Goldstein (1998), "The use of MMR, diversity-based reranking for reordering documents and producing
summaries". https://doi.org/10.1145/290941.291025
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.hashing import mix64
from models.kernel import kernel, lean_kernel
from models.placement import Placement

NO_CATEGORY = -1
UNIT = 2.0**-53


class Arranged(NamedTuple):
    """A list: item indices, best first, and for each the probability that it is shown, 0 to 1."""

    item: NDArray[np.int32]
    propensity: NDArray[np.float64]


def same_category(category: NDArray[np.int32]) -> NDArray[np.float32]:
    """Similarity of items by their category alone: 1 if it is the same, 0 if not or where there is none.

    Examples
    --------
    >>> same_category(np.array([3, 3, -1], dtype=np.int32)).tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    known = category != NO_CATEGORY
    same: NDArray[np.float32] = ((category[:, None] == category) & known[:, None]).astype(np.float32)
    return same


def exclusions(
    placement: Placement, items: NDArray[np.int32], seen: NDArray[np.int32], bought: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """Which candidates a placement does not show again to a visitor who has seen and bought some items.

    Examples
    --------
    >>> items, seen, bought = (np.array(i, dtype=np.int32) for i in ([1, 2, 3], [1, 2], [2]))
    >>> exclusions(Placement("cart", exclude="seen"), items, seen, bought).tolist()
    [True, True, False]
    """
    gone = {"nothing": [], "bought": [bought], "seen": [seen, bought]}[placement.exclude]
    return np.isin(items, np.concatenate(gone)) if gone else np.zeros(len(items), dtype=np.bool_)


def arrange(
    placement: Placement,
    items: NDArray[np.int32],
    scores: NDArray[np.float64],
    category: NDArray[np.int32],
    similarity: NDArray[np.float32],
    excluded: NDArray[np.bool_],
    fresh: NDArray[np.int32],
    chance: int,
    drawn: float = 1.0,
) -> Arranged:
    """A placement's list from candidates in order of their scores.

    Parameters
    ----------
    placement
        The rules.
    items, scores
        Candidates, best first, more than the list is long; scores > 0.
    category
        Category of each candidate, `NO_CATEGORY` for none.
    similarity
        Of each candidate with each other, 0 to 1: cosines of contents; with no rows `same_category` without making it.
    excluded
        True for candidates that must not be shown: seen, bought, out of stock, hidden, asked not to be.
    fresh
        New items that may be shown for trial, without excluded ones; they do not count for ``per_category``.
    chance
        A hash of visitor and event, 64 bits.
    drawn
        Probability with which a new item is in `fresh`, where those are drawn from more (`Newcomers.pool`).

    Returns
    -------
    Arranged
        At most ``placement.k`` items. New ones stand anywhere but in the first place.

    Notes
    -----
    About ``k (n + k)`` ns for n candidates: 3 us for 20 of 60.

    Examples
    --------
    >>> candidates, scores = np.arange(4, dtype=np.int32), np.array([1.0, 0.9, 0.8, 0.1])
    >>> category = np.array([0, 0, 1, 1], dtype=np.int32)
    >>> plain = (candidates, scores, category, same_category(category), np.zeros(4, dtype=np.bool_))
    >>> fresh = np.array([8, 9], dtype=np.int32)
    >>> arrange(Placement("home", k=3, diversity=0.5), *plain, fresh, 1).item.tolist()
    [0, 2, 1]
    >>> item, propensity = arrange(Placement("home", k=3, exploration=1 / 3), *plain, fresh, 1)
    >>> item.tolist(), propensity.tolist()
    ([0, 1, 9], [1.0, 1.0, 0.5])
    """
    room = np.empty(placement.k, dtype=np.int32)
    most = placement.per_category or len(items)
    filled = select_diverse(scores, category, similarity, excluded, placement.diversity, most, room)
    ranked = items[room[:filled]]
    pool = fresh[~np.isin(fresh, ranked)]
    out = Arranged(np.empty(placement.k, dtype=np.int32), np.empty(placement.k))
    draw = np.uint64(chance & (2**64 - 1))
    length = explore(ranked, pool, drawn, placement.exploration, draw, out.item, out.propensity)
    return Arranged(out.item[:length], out.propensity[:length])


@kernel
def select_diverse(
    scores: NDArray[np.float64],
    category: NDArray[np.int32],
    similarity: NDArray[np.float32],
    excluded: NDArray[np.bool_],
    diversity: float,
    per_category: int,
    out: NDArray[np.int32],
) -> int:
    """Write positions of candidates, place by place, the better marginal relevance first; returns how many.

    Of equal ones the one that stands first among the candidates, which are in order of their scores; none beyond
    `per_category` of one category. A `similarity` without rows stands for `same_category`.
    """
    n = len(scores)
    best = 0.0
    for c in range(n):
        if not excluded[c]:
            best = max(best, scores[c])
    alike = np.zeros(n)
    taken = excluded.copy()
    filled = 0
    while filled < len(out):
        chosen = -1
        highest = -np.inf
        for c in range(n):
            if taken[c]:
                continue
            value = (1.0 - diversity) * scores[c] / best - diversity * alike[c]
            if value > highest:
                chosen = c
                highest = value
                if diversity == 0.0:
                    break
        if chosen < 0:
            break
        taken[chosen] = True
        out[filled] = chosen
        filled += 1
        if diversity > 0.0:
            _compare(category, similarity, chosen, alike)
        _close_full(category, out[:filled], per_category, taken)
    return filled


@lean_kernel
def _compare(
    category: NDArray[np.int32], similarity: NDArray[np.float32], chosen: int, alike: NDArray[np.float64]
) -> None:
    """Raise each candidate's likeness to those above it to that with the last chosen one."""
    if len(similarity) > 0:
        for c in range(len(alike)):
            alike[c] = max(alike[c], similarity[chosen, c])
    elif category[chosen] != NO_CATEGORY:
        for c in range(len(alike)):
            if category[c] == category[chosen]:
                alike[c] = 1.0


@kernel
def _close_full(
    category: NDArray[np.int32], chosen: NDArray[np.int32], per_category: int, taken: NDArray[np.bool_]
) -> None:
    """Take all candidates of the last chosen one's category away, if so many are chosen of it."""
    last = category[chosen[-1]]
    same = 0
    for c in chosen:
        same += category[c] == last
    if last != NO_CATEGORY and same >= per_category:
        for c in range(len(category)):
            taken[c] |= category[c] == last


@kernel
def explore(
    ranked: NDArray[np.int32],
    pool: NDArray[np.int32],
    drawn_before: float,
    share: float,
    chance: np.uint64,
    out: NDArray[np.int32],
    propensity: NDArray[np.float64],
) -> int:
    """Write a list in which new items have a share of the places, and each item's propensity; returns its length.

    With k places, ``share * k`` of them on average are given away: its whole part always, one more with the probability
    of the rest. The last of the ranked items make room; new ones are drawn evenly from the pool, without repeats, and
    stand in places drawn evenly from all but the first. A list short of ranked items is not filled up with new ones,
    and one without any stays empty. `drawn_before` is the probability with which a new item came into the pool.
    """
    k = len(out)
    if len(ranked) == 0:
        return 0
    wanted = share * k
    least = math.floor(wanted + 1e-9)
    more = max(wanted - least, 0.0)
    state = mix64(chance ^ np.uint64(0x9E3779B97F4A7C15))
    given = min(least + int(np.float64(state >> np.uint64(11)) * UNIT < more), len(pool), k - 1)
    always = min(least, len(pool), k - 1)
    perhaps = min(least + 1, len(pool), k - 1) - always  # 1 where the rest can give one place more
    shown = min(len(ranked), k - given)
    length = shown + given
    new = np.zeros(length, dtype=np.bool_)
    drawn = pool.copy()
    for g in range(given):
        state = mix64(state + np.uint64(g + 1))
        at = g + np.int64(state % np.uint64(len(drawn) - g))
        drawn[g], drawn[at] = drawn[at], drawn[g]
        state = mix64(state + np.uint64(g + 1))
        spot = 1 + np.int64(state % np.uint64(length - 1)) if length > 1 else 0
        while new[spot]:
            spot = spot + 1 if spot + 1 < length else min(1, length - 1)
        new[spot] = True
    r = 0
    g = 0
    for place in range(length):
        if new[place]:
            out[place] = drawn[g]
            propensity[place] = drawn_before * (always + more * perhaps) / len(pool)
            g += 1
        else:
            out[place] = ranked[r]
            propensity[place] = 1.0 if r < k - always - perhaps else 1.0 - more
            r += 1
    return length

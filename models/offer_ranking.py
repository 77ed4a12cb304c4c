"""Offers for a user, chosen in the same pass as the list: D(t, i) = sum_j p(j | i, t) d(t, j), as a kernel.

`models.offers.score_offers` says the same slowly and in words; a property test holds the two equal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.histories import HistoryArrays
from models.kernel import kernel
from models.neighbour_rows import RowArrays
from models.offer_table import OfferTable
from models.profiles import CATEGORIES, ProfileArrays
from models.ranking import Lists, Query, Scratch, current_item, explain, find_voters, gather, select
from models.vocabulary import id_less

MAX_PICKED = 3
NOBODY_SEGMENT = np.uint64(63)  # bit of users without a segment


class OfferColumns(NamedTuple):
    """`OfferTable` without its ids: what a kernel can take."""

    value: NDArray[np.float64]
    from_s: NDArray[np.int64]
    until_s: NDArray[np.int64]
    segments: NDArray[np.uint64]
    min_cart: NDArray[np.float64]
    max_cart: NDArray[np.float64]
    affinity_start: NDArray[np.int32]
    affinity_category: NDArray[np.int32]
    affinity_share: NDArray[np.float64]
    item_start: NDArray[np.int32]
    item_offers: NDArray[np.int32]
    category_start: NDArray[np.int32]
    category_offers: NDArray[np.int32]

    @classmethod
    def of(cls, table: OfferTable) -> OfferColumns:
        """The columns of a table."""
        return cls(*table[1:])


class Shoppers(NamedTuple):
    """What eligibility looks at, by user index, and the event time of each ranked user in seconds since 1970."""

    profiles: ProfileArrays
    segment: NDArray[np.int16]
    now_s: NDArray[np.int64]


class Picked(NamedTuple):
    """Offers per ranked user, best first: row of the table (-1 = fewer), score, and the item that earned most of it."""

    offer: NDArray[np.int32]
    score: NDArray[np.float64]
    why: NDArray[np.int32]

    @classmethod
    def empty(cls, users: int, top: int = MAX_PICKED) -> Picked:
        """Room for `users` rows of `top` offers."""
        return cls(
            np.full((users, top), -1, dtype=np.int32),
            np.zeros((users, top), dtype=np.float64),
            np.full((users, top), -1, dtype=np.int32),
        )


class ItemFacts(NamedTuple):
    """What ranking reads about items by index: not to be shown, category (-1 = unknown), and the ids for ties."""

    hidden: NDArray[np.bool_]
    category: NDArray[np.int32]
    blob: NDArray[np.uint8]
    spans: NDArray[np.int64]


@kernel
def rank_users(
    histories: HistoryArrays,
    users: NDArray[np.int32],
    rows: RowArrays,
    query: Query,
    items: ItemFacts,
    offers: OfferColumns,
    shoppers: Shoppers,
    work: Scratch,
    lists: Lists,
    picked: Picked,
) -> None:
    """Rank lists and pick offers for some users; `lists` and `picked` are filled in place, one row per user."""
    count = len(offers.value)
    score = np.zeros(count, dtype=np.float64)
    best = np.zeros(count, dtype=np.float64)
    why = np.full(count, -1, dtype=np.int32)
    for u in range(len(users)):
        user = users[u]
        voters = find_voters(histories, user, rows, query, work)
        found = gather(rows, voters, work)
        if count > 0 and found > 0:
            score_offers(found, offers, items, work, score, best, why)
            pick(user, shoppers.now_s[u], offers, shoppers, score, picked.offer[u], picked.score[u])
            for i in range(picked.offer.shape[1]):
                if picked.offer[u, i] >= 0:
                    picked.why[u, i] = why[picked.offer[u, i]]
        current = current_item(histories, user)
        select(found, current, items.hidden, items.blob, items.spans, work, lists.item[u], lists.micro[u])
        explain(rows, voters, work, lists.item[u], lists.why[u])


@kernel
def score_offers(
    found: int,
    offers: OfferColumns,
    items: ItemFacts,
    work: Scratch,
    score: NDArray[np.float64],
    best: NDArray[np.float64],
    why: NDArray[np.int32],
) -> None:
    """Score every offer from the candidates in the scratch that may be shown; rows of p sum to 1."""
    score[:] = 0.0
    best[:] = 0.0
    total = shown_score(found, items.hidden, work)
    for c in range(found):
        item = work.touched[c]
        if items.hidden[item]:
            continue
        p = work.score[item] / total
        start, named = 0, 0
        if item + 1 < len(offers.item_start):
            start = offers.item_start[item]
            named = offers.item_start[item + 1] - start
        first, more = 0, 0
        category = items.category[item]
        if category >= 0 and category + 1 < len(offers.category_start):
            first = offers.category_start[category]
            more = offers.category_start[category + 1] - first
        for o in range(named + more):
            if o < named:
                offer = offers.item_offers[start + o]
            else:
                offer = offers.category_offers[first + o - named]
                again = False  # an offer that names the item and its category counts once
                for i in range(start, start + named):
                    again |= offers.item_offers[i] == offer
                if again:
                    continue
            # In place, not in a kernel of its own: handing over this many arrays costs more than the sum.
            part = p * offers.value[offer]
            score[offer] += part
            if part > best[offer] or (
                part == best[offer] and part > 0 and id_less(items.blob, items.spans, item, why[offer])
            ):
                best[offer] = part
                why[offer] = item


@kernel
def shown_score(found: int, hidden: NDArray[np.bool_], work: Scratch) -> float:
    """Sum of the scores of the candidates that may be shown."""
    total = 0.0
    for c in range(found):
        item = work.touched[c]
        if not hidden[item]:
            total += work.score[item]
    return total


@kernel
def pick(
    user: int,
    now_s: int,
    offers: OfferColumns,
    shoppers: Shoppers,
    score: NDArray[np.float64],
    chosen: NDArray[np.int32],
    scores: NDArray[np.float64],
) -> None:
    """Write the best eligible offers of a user; table rows are sorted by id, so ties go to the lower row."""
    filled = 0
    top = len(chosen)
    for offer in range(len(score)):
        if score[offer] <= 0 or not eligible(user, now_s, offer, offers, shoppers):
            continue
        if filled == top and score[offer] <= scores[top - 1]:
            continue
        at = filled if filled < top else top - 1
        while at > 0 and score[offer] > scores[at - 1]:
            scores[at] = scores[at - 1]
            chosen[at] = chosen[at - 1]
            at -= 1
        scores[at] = score[offer]
        chosen[at] = offer
        if filled < top:
            filled += 1


@kernel
def eligible(user: int, now_s: int, offer: int, offers: OfferColumns, shoppers: Shoppers) -> bool:
    """Whether an offer is valid at an event time and meant for a user."""
    if not offers.from_s[offer] <= now_s < offers.until_s[offer]:
        return False
    segment = shoppers.segment[user]
    bit = np.uint64(segment) if segment >= 0 else NOBODY_SEGMENT
    if not (offers.segments[offer] >> bit) & np.uint64(1):
        return False
    cart = shoppers.profiles.cart[user]
    # as single precision, which the cart is: an inclusive bound of 9.99 must meet a cart of 9.99
    if not np.float32(offers.min_cart[offer]) <= cart <= np.float32(offers.max_cart[offer]):
        return False
    weights = shoppers.profiles.affinity[user]
    total = 0.0
    for c in range(CATEGORIES):
        total += weights[c]
    for a in range(offers.affinity_start[offer], offers.affinity_start[offer + 1]):
        share = 0.0
        for c in range(CATEGORIES):
            if weights[c] > 0 and shoppers.profiles.category[user, c] == offers.affinity_category[a]:
                share = weights[c] / total
        if share < offers.affinity_share[a]:
            return False
    return True

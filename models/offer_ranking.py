"""Offers for a user, chosen in the same pass as the list: D(t, i) = sum_j p(j | i, t) d(t, j), as a kernel.

`models.offers.score_offers` says the same slowly and in words; a property test holds the two equal.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.histories import HistoryArrays
from models.kernel import lean_kernel
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
    """What eligibility looks at, by user index, and the event time it is judged at in seconds since 1970."""

    profiles: ProfileArrays
    segment: NDArray[np.int16]
    now_s: int


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


class Tally(NamedTuple):
    """What one user's candidates bring to each offer: summed score, highest single score, and whose that was."""

    score: NDArray[np.float64]
    best: NDArray[np.float64]
    why: NDArray[np.int32]

    @classmethod
    def of(cls, size: int) -> Tally:
        """Nothing yet, for `size` offers or categories."""
        return cls(np.zeros(size), np.zeros(size), np.full(size, -1, dtype=np.int32))


class OfferScratch(NamedTuple):
    """Working memory of one ranking thread: sums by category, zero between users, which were met, sums by offer."""

    by_category: Tally
    met: NDArray[np.int32]
    by_offer: Tally

    @classmethod
    def of(cls, offers: OfferColumns) -> OfferScratch:
        """Working memory for these offers: 24 bytes per offer and category."""
        categories = len(offers.category_start) - 1
        # one more: a category is noted before it is known to be new
        return cls(Tally.of(categories), np.zeros(categories + 1, dtype=np.int32), Tally.of(len(offers.value)))


@lean_kernel
def rank_users(
    histories: HistoryArrays,
    users: NDArray[np.int32],
    rows: RowArrays,
    query: Query,
    items: ItemFacts,
    offers: OfferColumns,
    shoppers: Shoppers,
    work: Scratch,
    sums: OfferScratch,
    lists: Lists,
    picked: Picked,
) -> None:
    """Rank lists and pick offers for some users; `lists` and `picked` are filled in place, one row per user."""
    for u in range(len(users)):
        user = users[u]
        voters = find_voters(histories, user, rows, query, work)
        found = gather(rows, voters, work)
        if len(offers.value) > 0 and found > 0:
            pick_offers(user, u, found, offers, items, shoppers, work, sums, picked)
        current = current_item(histories, user)
        select(found, current, items.hidden, items.blob, items.spans, work, lists.item[u], lists.micro[u])
        explain(rows, voters, work, lists.item[u], lists.why[u])


@lean_kernel
def pick_offers(
    user: int,
    u: int,
    found: int,
    offers: OfferColumns,
    items: ItemFacts,
    shoppers: Shoppers,
    work: Scratch,
    sums: OfferScratch,
    picked: Picked,
) -> None:
    """Write the offers of one user into row `u`, from the candidates in the scratch, whose scores are above 0."""
    score_offers(found, offers, items, work, sums)
    pick(user, shoppers.now_s, offers, shoppers, sums.by_offer.score, picked.offer[u], picked.score[u])
    for i in range(picked.offer.shape[1]):
        if picked.offer[u, i] >= 0:
            picked.why[u, i] = sums.by_offer.why[picked.offer[u, i]]


@lean_kernel
def score_offers(found: int, offers: OfferColumns, items: ItemFacts, work: Scratch, sums: OfferScratch) -> None:
    """Score every offer from the candidates in the scratch that may be shown; rows of p sum to 1.

    Candidates are added up by category first, and only then are the categories' offers looked at: there are many more
    candidates than categories.
    """
    by_category, by_offer = sums.by_category, sums.by_offer
    total, categories = tally_categories(found, items, work, by_category, sums.met)
    by_offer.score[:] = 0.0
    by_offer.best[:] = 0.0
    if len(offers.item_offers) > 0:
        tally_named(found, offers, items, work, by_offer)
    for c in range(categories):
        category = sums.met[c]
        score, best, why = by_category.score[category], by_category.best[category], by_category.why[category]
        by_category.score[category] = 0.0
        by_category.best[category] = 0.0
        for o in range(offers.category_start[category], offers.category_start[category + 1]):
            offer = offers.category_offers[o]
            by_offer.score[offer] += score
            if best > by_offer.best[offer] or (
                best == by_offer.best[offer] and id_less(items.blob, items.spans, why, by_offer.why[offer])
            ):
                by_offer.best[offer] = best
                by_offer.why[offer] = why
    share = 1.0 / total if total > 0.0 else 0.0
    for offer in range(len(by_offer.score)):
        by_offer.score[offer] *= offers.value[offer] * share


@lean_kernel
def tally_categories(
    found: int, items: ItemFacts, work: Scratch, sums: Tally, met: NDArray[np.int32]
) -> tuple[float, int]:
    """Add the candidates up by category; returns the sum of all and how many categories were met."""
    touched, scores, hidden, of = work.touched, work.score, items.hidden, items.category
    summed, best, why, blob, spans = sums.score, sums.best, sums.why, items.blob, items.spans
    total = 0.0
    categories = 0
    for c in range(found):
        item = touched[c]
        if hidden[item]:
            continue
        score = scores[item]
        total += score
        category = of[item]
        if 0 <= category < len(summed):
            met[categories] = category
            categories += summed[category] == 0.0
            summed[category] += score
            if score > best[category] or (score == best[category] and id_less(blob, spans, item, why[category])):
                best[category] = score
                why[category] = item
    return total, categories


@lean_kernel
def tally_named(found: int, offers: OfferColumns, items: ItemFacts, work: Scratch, sums: Tally) -> None:
    """Add candidates to the offers that name them, unless the offer is for their category: there they count already."""
    for c in range(found):
        item = work.touched[c]
        if item + 1 >= len(offers.item_start) or items.hidden[item]:
            continue
        score = work.score[item]
        for o in range(offers.item_start[item], offers.item_start[item + 1]):
            offer = offers.item_offers[o]
            if covers(offers, items.category[item], offer):
                continue
            sums.score[offer] += score
            if score > sums.best[offer] or (
                score == sums.best[offer] and id_less(items.blob, items.spans, item, sums.why[offer])
            ):
                sums.best[offer] = score
                sums.why[offer] = item


@lean_kernel
def covers(offers: OfferColumns, category: int, offer: int) -> bool:
    """Whether an offer is for a category."""
    found = False
    if 0 <= category < len(offers.category_start) - 1:
        for o in range(offers.category_start[category], offers.category_start[category + 1]):
            found |= offers.category_offers[o] == offer
    return found


@lean_kernel
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


@lean_kernel
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

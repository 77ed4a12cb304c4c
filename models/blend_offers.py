"""Blended lists and offers in one pass: the chances that rank a visitor's candidates are the p(j | i, t) of offers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.blend_features import Desk
from models.blend_lists import BlendArrays, list_candidates, weigh
from models.histories import HistoryArrays
from models.kernel import lean_kernel
from models.listwise import softmax
from models.neighbour_rows import RowArrays
from models.offer_ranking import ItemFacts, OfferColumns, OfferScratch, Picked, Shoppers, pick_offers
from models.ranking import Lists, Query, Scratch

LEAST = 1e-12  # chance of what `softmax` leaves out: sums of offers need scores above 0


@lean_kernel
def rank_users_blended(
    arrays: BlendArrays,
    histories: HistoryArrays,
    users: NDArray[np.int32],
    rows: RowArrays,
    query: Query,
    items: ItemFacts,
    offers: OfferColumns,
    shoppers: Shoppers,
    desk: Desk,
    sums: OfferScratch,
    lists: Lists,
    picked: Picked,
) -> None:
    """As `models.offer_ranking.rank_users`, by the blend's chances instead of co-visitation alone."""
    work = desk.scratch
    item = desk.candidates.item
    behind = Scratch(work.score, item[1:], work.place, work.row, work.seed, work.vote, work.step, work.best)
    for u in range(len(users)):
        found = weigh(arrays, histories, users[u], rows, query, desk)
        if len(offers.value) > 0 and found > 1:
            share_chances(found, desk)
            # without the item the visitor is on, which comes first
            pick_offers(users[u], u, found - 1, offers, items, shoppers, behind, sums, picked)
            for c in range(1, found):
                work.score[item[c]] = 0.0
        list_candidates(arrays, found, rows, items.hidden, items.blob, items.spans, desk, lists, u)


@lean_kernel
def share_chances(found: int, desk: Desk) -> None:
    """Write each candidate's chance to be the next one into the scratch."""
    softmax(desk.score[:found], desk.chance[:found])
    for c in range(1, found):
        desk.scratch.score[desk.candidates.item[c]] = max(np.float64(desk.chance[c]), LEAST)

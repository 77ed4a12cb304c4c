"""Offers as arrays, for the ranking kernel; the meaning of each is in :mod:`models.offers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from models.offers import MAX_SEGMENTS, Offer

EVERYONE = np.uint64(2**64 - 1)


class OfferTable(NamedTuple):
    """Offers as arrays for a kernel; rows are sorted by offer id, so that equal scores rank by row.

    Offers for item number i are ``item_offers[item_start[i]:item_start[i + 1]]`` and likewise by category; a row may be
    found through both and counts once per item. The affinities asked for by row r are
    ``affinity_start[r]:affinity_start[r + 1]`` of `affinity_category` and `affinity_share`.
    Bit s of `segments` is segment s, bit 63 a user without one. `max_cart` is inf where there is no bound.
    """

    ids: tuple[str, ...]
    value: npt.NDArray[np.float64]
    from_s: npt.NDArray[np.int64]
    until_s: npt.NDArray[np.int64]
    segments: npt.NDArray[np.uint64]
    min_cart: npt.NDArray[np.float64]
    max_cart: npt.NDArray[np.float64]
    affinity_start: npt.NDArray[np.int32]
    affinity_category: npt.NDArray[np.int32]
    affinity_share: npt.NDArray[np.float64]
    item_start: npt.NDArray[np.int32]
    item_offers: npt.NDArray[np.int32]
    category_start: npt.NDArray[np.int32]
    category_offers: npt.NDArray[np.int32]


def build_table(
    offers: Sequence[Offer],
    item_index: Callable[[str], int],
    category_index: Callable[[str], int],
    labels: Sequence[str] = (),
) -> OfferTable:
    """Lay offers out for the ranking kernel; to be built again when offers or segment labels change.

    Parameters
    ----------
    offers
        All known offers.
    item_index, category_index
        Number of an id, 0 or more (intern it if it is new).
    labels
        Label of each segment, by number.

    Returns
    -------
    OfferTable
        Memory: about 60 bytes per offer and 4 per item number, category number, and item or category of an offer.
    """
    rows = sorted(offers, key=lambda offer: offer.id)
    wanted = [sorted((category_index(c), share) for c, share in o.min_category_affinity.items()) for o in rows]
    item_start, item_offers = _by_number([[item_index(item) for item in offer.items] for offer in rows])
    category_start, category_offers = _by_number([[category_index(c) for c in offer.categories] for offer in rows])
    return OfferTable(
        tuple(offer.id for offer in rows),
        np.array([offer.value for offer in rows], np.float64),
        np.array([offer.from_s for offer in rows], np.int64),
        np.array([offer.until_s for offer in rows], np.int64),
        np.array([_mask(offer, labels) for offer in rows], np.uint64),
        np.array([offer.min_cart_value for offer in rows], np.float64),
        np.array([np.inf if offer.max_cart_value is None else offer.max_cart_value for offer in rows], np.float64),
        np.cumsum([0, *(len(pairs) for pairs in wanted)], dtype=np.int32),
        np.array([category for pairs in wanted for category, _ in pairs], np.int32),
        np.array([share for pairs in wanted for _, share in pairs], np.float64),
        item_start,
        item_offers,
        category_start,
        category_offers,
    )


def _mask(offer: Offer, labels: Sequence[str]) -> np.uint64:
    """Segments that may see the offer."""
    if not offer.segments:
        return EVERYONE
    words = [set(label.split(", ")) for label in labels]
    numbers = {s for s in offer.segments if isinstance(s, int)}
    numbers |= {
        n
        for n, found in enumerate(words[:MAX_SEGMENTS])
        if found.intersection(s for s in offer.segments if isinstance(s, str))
    }
    return np.uint64(sum(1 << number for number in numbers))


def _by_number(numbers: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Invert rows of numbers to compressed lists of rows by number."""
    pairs = sorted({(number, row) for row, found in enumerate(numbers) for number in found if number >= 0})
    counts = np.bincount([number for number, _ in pairs]) if pairs else np.zeros(0, np.int64)
    return np.cumsum([0, *counts], dtype=np.int32), np.array([row for _, row in pairs], np.int32)

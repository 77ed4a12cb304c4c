"""The offers that may be pushed: as they come one by one from their topic, and laid out for ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.hashing import hash_ids
from models.offer_ranking import OfferColumns, OfferScratch
from models.offer_table import build_table
from models.offers import Offer, encode_offer
from stream.stages.pushing import Shelf
from stream.stages.space import ItemSpace


class Offering:
    """Offers by id. What ranking needs of them is made anew when it is asked for after a change.

    Parameters
    ----------
    space
        The process's items.

    Attributes
    ----------
    columns, sums
        What ranking reads, and its workspace.
    shelf
        What is pushed of each.
    """

    def __init__(self, space: ItemSpace) -> None:
        self._space = space
        self.replace([])
        self.lay_out(())

    def replace(self, offers: Sequence[Offer]) -> None:
        """These and no others."""
        self._offers = {offer.id.encode(): offer for offer in offers}
        self._stale = True

    def put(self, key: bytes, offer: Offer | None) -> None:
        """Add or replace one offer, or withdraw it; cheap, as they are laid out anew only when that is needed next."""
        if offer is None:
            self._offers.pop(key, None)
        else:
            self._offers[key] = offer
        self._stale = True

    def doubt(self) -> None:
        """The labels of segments, which offers name, have changed."""
        self._stale = True

    def lay_out(self, labels: Sequence[str]) -> bool:
        """Bring the layout up to date; True if anything had changed."""
        if not self._stale:
            return False
        self._stale = False
        space = self._space
        offers = [self._offers[key] for key in sorted(self._offers)]
        table = build_table(
            offers,
            lambda item: int(space.encode([item])[0]),
            lambda category: int(space.encode_categories([category])[0]),
            labels,
        )
        self.columns = OfferColumns.of(table)
        self.sums = OfferScratch.of(self.columns)
        self.shelf = Shelf.of(table)
        self._terms, first = np.unique(hash_ids([encode_offer(o).decode() for o in offers]), return_index=True)
        self._until_s = np.array([offer.until_s for offer in offers], dtype=np.int64)[first]
        return True

    def standing(self, now_s: int) -> NDArray[np.uint64]:
        """Hash of the terms, rising, of each offer that has not ended at an event time."""
        return self._terms[self._until_s > now_s]

    def items(self) -> NDArray[np.int64]:
        """Items that some offer names."""
        return np.flatnonzero(np.diff(self.columns.item_start))

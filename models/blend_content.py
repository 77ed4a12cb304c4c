"""What a shop's catalogue adds to the blend: items like those in hand, also brand-new ones, and prices that fit.

The visitor's latest items make a query in content space, the newest counting most. Items that share its strongest
features become candidates, whether anybody has touched them or not, and every candidate gets its cosine with the query
and how near its price is to that of the item in hand. Without a catalogue nothing is done and nothing said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates
from models.content_index import ContentIndex
from models.content_search import Workspace, clear_query, cosine, list_near, set_query
from models.content_vectors import DESCRIBED, ContentArrays
from models.kernel import lean_kernel
from models.nesting import part, prefixed
from models.text_features import Facts
from models.vocabulary import grown

LATEST: Final = 3  # distinct items that make the query
NEAR: Final = np.arange(1, LATEST + 1, dtype=np.float64) ** -1.5
PROBES: Final = 6  # features of the query that are looked up
ADDED: Final = 60  # most candidates that only content brings
LISTED: Final = 64  # items of a feature's list: with `PROBES` it bounds the cost of a search
FEATURES: Final = 16  # of an item
DEAREST: Final = float(np.finfo(np.float32).max)
DIMENSIONS: Final = 1 << 16  # a quarter of `models.text_features`': the table of a query stays in a core's cache


class Catalogue(NamedTuple):
    """What is known of items whoever touched them. `vectors`: in content space; `price`: by item, 0 = not known.

    Both may end before the highest item index.
    """

    vectors: ContentArrays
    price: NDArray[np.float32]


def empty_index() -> ContentIndex:
    """An index of the size that the blend searches."""
    return ContentIndex(FEATURES, LISTED, DIMENSIONS)


def no_catalogue() -> Catalogue:
    """A catalogue of nothing: all that it costs is to look whether there is one."""
    return Catalogue(ContentIndex(dimensions=1).arrays, np.zeros(0, dtype=np.float32))


def known_price(price: float | None) -> float:
    """A price that can be compared; 0 for none, and for what is none: two infinite ones would make all weights NaN."""
    return price if price is not None and 0.0 < price < DEAREST else 0.0


class Contents:
    """What the catalogue says of items, by their index; several blends may share it. No part of a blend's snapshot.

    Notes
    -----
    About 50 us per record. Memory: 140 bytes per item index, 60 to 1,000 more per record, and 1.3 MB.
    """

    def __init__(self) -> None:
        self._index = empty_index()
        self._price = np.zeros(0, dtype=np.float32)

    def __len__(self) -> int:
        """Items with a record that says something."""
        return len(self._index)

    def put(self, item: int, facts: Facts) -> None:
        """Take an item's record; it replaces what was known of the item. Empty facts withdraw it."""
        if not any(facts) and item >= len(self._price):
            return  # a shop that tells stocks only needs no room
        self._index.describe(item, facts)
        self._price = grown(self._price, item + 1)
        self._price[item] = known_price(facts.price)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        return {**prefixed("index", self._index.copied()), "price": self._price.copy()}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Contents:
        """The state that `arrays` described."""
        contents = cls()
        contents._index, contents._price = ContentIndex.restore(part(arrays, "index")), arrays["price"]
        return contents

    @property
    def catalogue(self) -> Catalogue:
        """The arrays for kernels; to be asked for again with every batch."""
        return Catalogue(self._index.arrays, self._price)


@lean_kernel
def vote_alike(
    catalogue: Catalogue,
    recent: NDArray[np.int32],
    near: NDArray[np.float64],
    work: Workspace,
    candidates: Candidates,
    content: int,
    found: int,
) -> int:
    """Say how like the latest items each candidate is, and list more that are.

    Parameters
    ----------
    catalogue
        Vectors and prices.
    recent, near
        The query: distinct items, newest first, and their weights.
    work, candidates
        Room for a query; where to write.
    content
        Row of the cosines.
    found
        Candidates so far.

    Returns
    -------
    int
        Candidates now.

    Notes
    -----
    At most ``PROBES * LISTED`` entries of lists and one vector per candidate are read.
    """
    index = catalogue.vectors
    if index.counts[DESCRIBED] == 0:
        return found
    known, size = set_query(index, recent, near, work)
    if known == 0:
        return found
    found = list_near(index, known, PROBES, found + ADDED, work, candidates, found)
    for c in range(found):
        if candidates.item[c] < len(index.filled):
            candidates.x[content, c] = cosine(index, candidates.item[c], work, size)
    clear_query(known, work)
    return found


@lean_kernel
def compare_prices(
    price: NDArray[np.float32], recent: NDArray[np.int32], candidates: Candidates, feature: int, found: int
) -> None:
    """Write how near each candidate's price is to that of the item in hand: the smaller divided by the larger one."""
    paid = price[recent[0]] if recent[0] < len(price) else np.float32(0.0)
    if paid <= 0.0:
        return
    for c in range(found):
        item = candidates.item[c]
        asked = price[item] if item < len(price) else np.float32(0.0)
        if asked > 0.0:
            candidates.x[feature, c] = min(asked, paid) / max(asked, paid)


@lean_kernel
def name_alike(
    index: ContentArrays,
    recent: NDArray[np.int32],
    items: NDArray[np.int32],
    asked: NDArray[np.bool_],
    work: Workspace,
    likeness: NDArray[np.float32],
    out: NDArray[np.int32],
) -> None:
    """Write for some items, those asked for, which recent one is most like each.

    The first of equals, -1 where none has anything in common. `likeness` is room. 0.1 us per item asked for.
    """
    for i in range(len(items)):
        likeness[i] = 0.0
        out[i] = -1 if asked[i] else out[i]
    for r in range(len(recent)):
        known, size = set_query(index, recent[r : r + 1], NEAR, work)
        for i in range(len(items)):
            if known > 0 and asked[i]:
                value = np.float32(cosine(index, items[i], work, size))
                if value > likeness[i]:
                    likeness[i] = value
                    out[i] = recent[r]
        clear_query(known, work)

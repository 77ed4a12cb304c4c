"""What a shop says of an item, as hashed features: words, character pairs, categories, tags and price bands.

Features of a field share a length of 1 times the field's strength, so that a long text does not drown the category.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.hashing import hash_ids

DIMENSIONS: Final = 1 << 18  # places features are hashed to; with a million different ones, four share a place
LONGEST: Final = 4_000  # characters of a text that are read
STRENGTH: Final = {"w": 1.0, "c": 1.0, "t": 0.7, "p": 0.5}  # words, categories, tags, price
BANDS_PER_DOUBLING: Final = 2
PATH: Final = re.compile(r"[./>]")
_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
# scripts that are written without spaces: South-East Asian ones, kana, Han
_UNSPACED: Final = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


class Facts(NamedTuple):
    """What is known of an item; whatever is not known is empty.

    `category`: a path like ``shoes.running``, or several with ``|`` between them.
    """

    title: str = ""
    text: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    price: float | None = None


class Features(NamedTuple):
    """A sparse vector: distinct places, and a weight > 0 for each, the strongest first."""

    place: NDArray[np.int32]
    weight: NDArray[np.float32]


def tokens(text: str) -> list[str]:
    """Words of a text in order, small letters; where a script has no spaces, each pair of neighbouring characters.

    Parameters
    ----------
    text
        Anything; only the first 4,000 characters are read.

    Returns
    -------
    list[str]
        With repeats. A single unspaced character stands alone.

    Notes
    -----
    About 2 us for a title in ASCII, 10 us in another script.

    Examples
    --------
    >>> tokens("Tent, 2 persons")
    ['tent', '2', 'persons']
    >>> tokens("東京タワー tower")
    ['東京', '京タ', 'タワ', 'ワー', 'tower']
    """
    text = unicodedata.normalize("NFKC", text[:LONGEST]).casefold()
    if text.isascii():
        return _ASCII_WORD.findall(text)
    found: list[str] = []
    for kind, run in groupby(text, _kind):
        word = "".join(run)
        if kind == "spaced" or (kind and len(word) == 1):
            found.append(word)
        elif kind:
            found += [word[n : n + 2] for n in range(len(word) - 1)]
    return found


@lru_cache(maxsize=65_536)
def _kind(character: str) -> str:
    """Empty for what separates words. Marks belong to words: without them Hindi and Thai would fall into pieces."""
    if unicodedata.category(character)[0] not in "LNM":
        return ""
    return "unspaced" if any(low <= ord(character) <= high for low, high in _UNSPACED) else "spaced"


def categories(category: str) -> list[str]:
    """The categories of an item: those between the bars.

    Examples
    --------
    >>> categories("Comedy|Drama"), categories("")
    (['Comedy', 'Drama'], [])
    """
    return [name for name in (part.strip() for part in category.split("|")) if name]


def price_bands(price: float | None) -> list[tuple[str, float]]:
    """The two nearest of bands that each cover half a doubling, and how near they are; none without a price > 0.

    Examples
    --------
    >>> price_bands(8.0), price_bands(0.0)
    ([('6', 1.0)], [])
    """
    if price is None or not 0 < price < math.inf:
        return []
    place = math.log2(price) * BANDS_PER_DOUBLING
    low = math.floor(place)
    shares = ((low, 1 - (place - low)), (low + 1, place - low))
    return [(str(band), share) for band, share in shares if share > 0]


def features(facts: Facts, size: int, dimensions: int = DIMENSIONS) -> Features:
    """Hashed features of an item.

    Parameters
    ----------
    facts
        What is known of it.
    size
        Most features kept, > 0: the strongest, of equal ones those met first (title before text).
    dimensions
        Places to hash to, a power of two.

    Returns
    -------
    Features
        At most `size`; weights are not yet multiplied by idf.

    Notes
    -----
    About 15 us for a title, a category, two tags and a price.

    Examples
    --------
    >>> found = features(Facts("Red tent", category="camping.tents", price=40.0), size=10)
    >>> [round(weight, 2) for weight in found.weight.tolist()]
    [0.71, 0.71, 0.71, 0.71, 0.44, 0.24]
    """
    words = Counter(tokens(facts.title) + tokens(facts.text))
    paths = Counter(path for name in categories(facts.category) for path in _prefixes(name))
    fields = (
        ("w", [(word, 1 + math.log(count)) for word, count in words.items()]),
        ("c", [(path, 1.0) for path in paths]),
        ("t", [(tag.casefold(), 1.0) for tag in dict.fromkeys(facts.tags) if tag]),
        ("p", price_bands(facts.price)),
    )
    names: list[str] = []
    weights: list[float] = []
    for field, cells in fields:
        length = math.sqrt(sum(weight * weight for _, weight in cells))
        names += [f"{field}:{name}".replace("\0", " ") for name, _ in cells]
        weights += [STRENGTH[field] * weight / length for _, weight in cells]
    return _hashed(names, weights, size, dimensions)


def _prefixes(path: str) -> Iterable[str]:
    """``a.b.c`` is also in ``a`` and ``a.b``."""
    for cut in PATH.finditer(path):
        if cut.start():
            yield path[: cut.start()]
    yield path


def _hashed(names: list[str], weights: list[float], size: int, dimensions: int) -> Features:
    """The strongest features; those that meet at a place are one, with the weights' sum."""
    places = (hash_ids(names) & np.uint64(dimensions - 1)).astype(np.int32).tolist()
    summed: dict[int, float] = {}
    for place, weight in zip(places, weights, strict=True):
        summed[place] = summed.get(place, 0.0) + weight
    strongest = sorted(summed.items(), key=lambda cell: -round(cell[1], 6))[:size]
    return Features(
        np.array([place for place, _ in strongest], dtype=np.int32),
        np.array([weight for _, weight in strongest], dtype=np.float32),
    )

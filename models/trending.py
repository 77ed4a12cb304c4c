"""What is trending: overall, per category and per segment, merged from what item shards and samples tell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.nesting import part, prefixed
from models.popularity import Popularity, Ranked
from models.vocabulary import Vocabulary

HALF_LIFE_S: Final = 6 * 3600.0
MAX_ITEMS: Final = 50_000
MAX_SEGMENT_ITEMS: Final = 2_000


class Trending:
    """`Popularity` with a short half-life: overall and per category from absolute counts, per segment from samples.

    Wrong for items whose shard is silent: their last count stands, and decays relative to what is newer.

    Parameters
    ----------
    max_items
        Items kept overall; above it the weakest tenth is dropped.
    max_segment_items
        Items kept per segment; above it the weakest tenth is dropped.

    Notes
    -----
    `top` costs about 20 ns per item kept. Memory: that of `Popularity`, overall and per segment.

    Examples
    --------
    >>> trending = Trending()
    >>> trending.replace(["tent", "mat"], [1.0, 3.0], [0, 0], ["camping", ""])
    >>> trending.top(1)
    {('all', ''): (['mat'], [1.0]), ('category', 'camping'): (['tent'], [1.0])}
    """

    def __init__(self, max_items: int = MAX_ITEMS, max_segment_items: int = MAX_SEGMENT_ITEMS) -> None:
        self.max_segment_items = max_segment_items
        self.overall = Popularity(HALF_LIFE_S, max_items)
        self.segments: dict[int, Popularity] = {}
        self.categories = Vocabulary(16)  # of `overall`'s groups

    def replace(self, items: list[str], values: list[float], epochs: list[int], categories: list[str]) -> None:
        """Take over the counts of some items, as cells of `models.decay`; the same message twice changes nothing."""
        named = np.array([bool(category) for category in categories], dtype=np.bool_)
        groups = np.where(named, self.categories.encode(categories), -1)
        self.overall.replace(items, values, epochs, groups.tolist())

    def add_to_segment(self, segment: int, item: str, weight: float, ts_s: int) -> None:
        """Count a touch of an item by someone of a segment at an event time (seconds)."""
        self._segment(segment).add(item, weight, ts_s)

    def top(self, k: int, hidden: Collection[str] = ()) -> dict[tuple[str, str], Ranked]:
        """Best k items by list name, with scores relative to the leader's, best first, ties by id.

        Parameters
        ----------
        k
            Length of the lists.
        hidden
            Items to leave out.

        Returns
        -------
        dict
            Lists that have items, under ``("all", "")``, ``("category", name)`` and ``("segment", number)``.
        """
        names = self.categories.texts(range(len(self.categories)))
        lists = {("all", ""): self.overall.leaders(k, None, hidden)[0]}
        for name, ranked in zip(names, self.overall.leaders(k, len(names), hidden), strict=True):
            lists["category", name] = ranked
        for segment, popularity in sorted(self.segments.items()):
            lists["segment", str(segment)] = popularity.leaders(k, None, hidden)[0]
        return {name: ranked for name, ranked in lists.items() if ranked[0]}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state as arrays."""
        numbers = np.array(sorted(self.segments), dtype=np.int32)
        flat = prefixed("overall", self.overall.arrays()) | prefixed("categories", self.categories.arrays())
        for number in numbers:
            flat |= prefixed(f"segment{number}", self.segments[number].arrays())
        return {"segments": numbers, **flat}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Trending:
        """The state that `arrays` described."""
        trending = cls()
        trending.overall.restore(part(arrays, "overall"))
        trending.categories = Vocabulary.from_arrays(part(arrays, "categories"))
        for number in arrays["segments"].tolist():
            trending._segment(number).restore(part(arrays, f"segment{number}"))
        return trending

    def _segment(self, number: int) -> Popularity:
        if number not in self.segments:
            self.segments[number] = Popularity(HALF_LIFE_S, self.max_segment_items)
        return self.segments[number]

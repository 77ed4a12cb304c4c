"""What is popular now: overall, per category and per segment, merged from what item shards and samples tell.

Values decay by event time exactly (forward decay, see `models.decay`): a cell is ``value * 2 ** (epoch - t / H)``
at time t, so cells are compared by ``log2(value) + epoch`` without touching them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

HALF_LIFE_S: Final = 6 * 3600.0
MAX_ITEMS: Final = 50_000
MAX_SEGMENT_ITEMS: Final = 2_000


def strength(value: float, epoch: int) -> float:
    """Order of decayed cells: log2 of the value they had at time 0; minus infinity for nothing."""
    return math.log2(value) + epoch if value > 0 else -math.inf


class Trending:
    """Decayed popularity of items: overall and per category from absolute values, per segment from samples.

    Wrong for items whose shard is silent: their last value stands, and decays relative to what is newer.

    Parameters
    ----------
    max_items
        Items kept overall; above it the weakest tenth is dropped.
    max_segment_items
        Items kept per segment; above it the weaker half is dropped.

    Notes
    -----
    `top` costs about 1 us per item kept; memory about 300 bytes per item.

    Examples
    --------
    >>> trending = Trending()
    >>> trending.replace(["tent", "mat"], [1.0, 3.0], [0, 0], ["camping", ""])
    >>> trending.top(1)
    {('all', ''): (['mat'], [1.0]), ('category', 'camping'): (['tent'], [1.0])}
    """

    def __init__(self, max_items: int = MAX_ITEMS, max_segment_items: int = MAX_SEGMENT_ITEMS) -> None:
        self.max_items = max_items
        self.max_segment_items = max_segment_items
        self.items: dict[str, tuple[float, str]] = {}  # strength, category
        self.segments: dict[int, dict[str, float]] = {}  # strength

    def replace(self, items: list[str], values: list[float], epochs: list[int], categories: list[str]) -> None:
        """Take over the current values of some items; the same message twice changes nothing."""
        for item, value, epoch, category in zip(items, values, epochs, categories, strict=True):
            if value > 0:
                self.items[item] = (strength(value, epoch), category)
            else:
                self.items.pop(item, None)
        if len(self.items) > self.max_items:
            kept = sorted(self.items.items(), key=lambda cell: (-cell[1][0], cell[0]))
            self.items = dict(kept[: self.max_items * 9 // 10])

    def add_to_segment(self, segment: int, item: str, weight: float, ts_s: float) -> None:
        """Count a touch of an item by someone of a segment at an event time (seconds)."""
        cells = self.segments.setdefault(segment, {})
        added = math.log2(weight) + ts_s / HALF_LIFE_S
        before = cells.get(item)
        if before is not None:  # log2(2^a + 2^b)
            high, low = max(before, added), min(before, added)
            added = high + math.log2(1.0 + 2.0 ** (low - high))
        cells[item] = added
        if len(cells) > self.max_segment_items:
            kept = sorted(cells.items(), key=lambda cell: (-cell[1], cell[0]))
            self.segments[segment] = dict(kept[: self.max_segment_items // 2])

    def top(self, k: int) -> dict[tuple[str, str], tuple[list[str], list[float]]]:
        """Best k items by list name, with scores relative to the leader's, best first, ties by id.

        Returns
        -------
        dict
            Lists under ``("all", "")``, ``("category", name)`` and ``("segment", number)``.
        """
        ordered = sorted(((-power, item, category) for item, (power, category) in self.items.items()))
        lists: dict[tuple[str, str], list[tuple[float, str]]] = {}
        for power, item, category in ordered:
            for name in (("all", ""), ("category", category)) if category else (("all", ""),):
                cells = lists.setdefault(name, [])
                if len(cells) < k:
                    cells.append((-power, item))
        for segment, powers in sorted(self.segments.items()):
            cells = sorted(((power, item) for item, power in powers.items()), key=lambda cell: (-cell[0], cell[1]))
            lists["segment", str(segment)] = cells[:k]
        return {name: _scored(cells) for name, cells in lists.items() if cells}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state as arrays."""
        segments = [(s, item, power) for s, cells in sorted(self.segments.items()) for item, power in cells.items()]
        return {
            "items": _text(list(self.items)),
            "powers": np.array([power for power, _ in self.items.values()], dtype=np.float64),
            "categories": _text([category for _, category in self.items.values()]),
            "segment": np.array([s for s, _, _ in segments], dtype=np.int32),
            "segment_items": _text([item for _, item, _ in segments]),
            "segment_powers": np.array([power for _, _, power in segments], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Trending:
        """The state that `arrays` described."""
        trending = cls()
        cells = zip(arrays["powers"].tolist(), _texts(arrays["categories"]), strict=True)
        trending.items = dict(zip(_texts(arrays["items"]), cells, strict=True))
        names = _texts(arrays["segment_items"])
        for segment, item, power in zip(
            arrays["segment"].tolist(), names, arrays["segment_powers"].tolist(), strict=True
        ):
            trending.segments.setdefault(segment, {})[item] = power
        return trending


def _scored(cells: list[tuple[float, str]]) -> tuple[list[str], list[float]]:
    leader = cells[0][0]
    return [item for _, item in cells], [2.0 ** (power - leader) for power, _ in cells]


def _text(texts: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer("\0".join([*texts, ""]).encode(), dtype=np.uint8)


def _texts(array: NDArray[np.uint8]) -> list[str]:
    return array.tobytes().decode().split("\0")[:-1]

"""Who was forgotten, and until when: what keeps a replay from learning a person again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Tombstones:
    """Times until which people are forgotten, by a stable hash of the person's id.

    Nothing else is kept of a person. Whoever has an id can ask whether it was forgotten; ids cannot be listed. It is
    wrong where two ids share a hash: one in 1.8e13 per id that is looked up among a million.

    Parameters
    ----------
    capacity
        People remembered, at least 1; the one forgotten longest ago is dropped first.

    Notes
    -----
    Times are seconds since 2000-01-01 (until 2136). Memory: 16 bytes per person. A `put` copies all of it, 2 ms for a
    million; `cover` looks up by bisection, 0.1-0.3 us per hash.

    Examples
    --------
    >>> tombstones = Tombstones()
    >>> tombstones.put(7, until=100, asked=90)
    >>> tombstones.cover(np.array([7, 7, 8], dtype=np.uint64), np.array([100, 101, 5])).tolist()
    [True, False, False]
    >>> tombstones.of(7), tombstones.of(8)
    ((100, 90), (0, 0))
    """

    def __init__(self, capacity: int = 1_000_000) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.capacity = capacity
        self._person = np.zeros(0, dtype=np.uint64)  # rising
        self._until = np.zeros(0, dtype=np.uint32)
        self._asked = np.zeros(0, dtype=np.uint32)

    def __len__(self) -> int:
        """People remembered."""
        return len(self._person)

    def put(self, person: int, until: int, asked: int) -> None:
        """Remember that a person asked, at one time, to be forgotten until another; a time is never taken back."""
        at, known = self._find(person)
        if known:
            self._until[at] = max(self._until[at], until)
            self._asked[at] = max(self._asked[at], asked)
            return
        self._person = np.insert(self._person, at, np.uint64(person))
        self._until = np.insert(self._until, at, until)
        self._asked = np.insert(self._asked, at, asked)
        self._bound()

    def of(self, person: int) -> tuple[int, int]:
        """Until when a person is forgotten, and when the person last asked; 0 for somebody who is not remembered."""
        at, known = self._find(person)
        return (int(self._until[at]), int(self._asked[at])) if known else (0, 0)

    def cover(self, persons: NDArray[np.uint64], seconds: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of these moments in a person's life is forgotten."""
        if len(self) == 0:
            return np.zeros(len(persons), dtype=np.bool_)
        at = np.minimum(np.searchsorted(self._person, persons), len(self) - 1)
        covered: NDArray[np.bool_] = (self._person[at] == persons) & (seconds <= self._until[at])
        return covered

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a snapshot must hold."""
        return {"person": self._person, "until": self._until, "asked": self._asked}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], capacity: int) -> Tombstones:
        """Tombstones from the arrays of a snapshot; if there are more than `capacity`, the newest."""
        tombstones = cls(capacity)
        tombstones._person, tombstones._until, tombstones._asked = (
            np.ascontiguousarray(arrays[name]) for name in ("person", "until", "asked")
        )
        tombstones._bound()
        return tombstones

    def _find(self, person: int) -> tuple[int, bool]:
        at = int(np.searchsorted(self._person, np.uint64(person)))
        return at, at < len(self) and int(self._person[at]) == person

    def _bound(self) -> None:
        over = len(self) - self.capacity
        if over > 0:
            kept = np.sort(np.argpartition(self._until, over - 1)[over:])
            self._person, self._until, self._asked = self._person[kept], self._until[kept], self._asked[kept]

"""Histories by name, of at most so many users: the one silent for longest gives up his ring to a new one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.histories import Histories
from models.nesting import part, prefixed
from models.vocabulary import Vocabulary

NONE: Final = -1


class NamedRings:
    """Which ring of some histories is whose.

    Parameters
    ----------
    size
        Touches kept per user, 1 to 127.
    most
        Users kept, > 0.

    Examples
    --------
    >>> rings = NamedRings(size=3, most=2)
    >>> [rings.open(name) for name in ("ann", "bob", "ann", "cyd")]
    [0, 1, 0, 1]
    >>> rings.find("bob")
    -1
    """

    def __init__(self, size: int, most: int) -> None:
        self.most = most
        self.histories = Histories(size)
        self._rings: dict[str, int] = {}  # the one silent for longest first
        self._free: list[int] = []  # of forgotten users

    def find(self, name: str) -> int:
        """Ring of a user, -1 for none."""
        return self._rings.get(name, NONE)

    def open(self, name: str) -> int:
        """Ring of a user, who is the latest now; empty if he is new."""
        ring = self._rings.pop(name, NONE)
        if ring == NONE:
            if len(self._rings) >= self.most:
                self.forget(next(iter(self._rings)))
            ring = self._free.pop() if self._free else len(self._rings)
            self.histories.reserve(ring + 1)
        self._rings[name] = ring
        return ring

    def forget(self, name: str) -> None:
        """Wipe a known user's ring; it goes to the next new one."""
        ring = self._rings.pop(name)
        self.histories.clear(np.array([ring], dtype=np.int32))
        self._free.append(ring)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        names = Vocabulary(max(len(self._rings), 1))
        names.encode(list(self._rings))
        return {
            **prefixed("names", names.arrays()),
            "rings": np.array(list(self._rings.values()), dtype=np.int32),
            "free": np.array(self._free, dtype=np.int32),
            **prefixed("histories", self.histories.snapshot(len(self._rings) + len(self._free))),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described."""
        names = Vocabulary.from_arrays(part(arrays, "names"))
        self._rings = dict(zip(names.texts(range(names.size)), arrays["rings"].tolist(), strict=True))
        self._free = arrays["free"].tolist()
        self.histories = Histories.restore(part(arrays, "histories"))

"""How often items are touched, over a long memory and a few short ones, in one number per item and memory.

A cell is ``log2(sum 2^(n/H))`` over an item's touches n, counted in events: forward decay in the logarithm, so that
nothing overflows, reading needs one subtraction (``cell - now/H`` is log2 of the decayed count), and two cells compare
without a clock. Counting in events instead of seconds makes one half-life fit a busy hour and a quiet month. The most
popular items stay listed without a search: all cells decay alike, so that only a touch can change their order.

References
----------
Cormode, Shkapenyuk, Srivastava, Xu (2009), "Forward decay: a practical time decay model for streaming systems".
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel
from models.vocabulary import grown

NEVER: Final = -np.inf
SLOW: Final = 100_000.0  # half-life of the long memory, in events
MEMORIES: Final = np.array([500.0, 2_000.0, 8_000.0])  # of the short ones, which race, ...
MIDDLE: Final = 1  # ... and the one that leads at first
POPULAR: Final = 50  # items listed
FADED: Final = 17.0  # halvings after which a touch no longer counts


class Tallies(NamedTuple):
    """`slow`, `fast`: the cells by item index, and by short memory.

    `popular`: the items with the highest slow cells, best first, else -1; `events`: touches counted.
    Memory: 32 bytes per item.
    """

    slow: NDArray[np.float64]
    fast: NDArray[np.float64]
    popular: NDArray[np.int32]
    events: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Tallies:
        """Nothing counted."""
        popular = np.full(POPULAR, -1, dtype=np.int32)
        return cls(np.zeros(0), np.zeros((0, len(MEMORIES))), popular, np.zeros(1, dtype=np.int64))

    def reserved(self, items: int) -> Tallies:
        """The same with room for item indices below `items`."""
        known = len(self.slow)
        if items <= known:
            return self
        slow, fast = (grown(cells, max(items, 1024)) for cells in (self.slow, self.fast))
        slow[known:] = fast[known:] = NEVER
        return self._replace(slow=slow, fast=fast)


def widened(middle: NDArray[np.float64], events: int) -> NDArray[np.float64]:
    """Cells of all short memories from those of the middle one, all that earlier versions had."""
    return np.asarray((middle - events / MEMORIES[MIDDLE])[:, None] + events / MEMORIES)


@lean_kernel
def tally(tallies: Tallies, item: int) -> None:
    """Count a touch of an item."""
    tallies.events[0] += 1
    now = np.float64(tallies.events[0])
    tallies.slow[item] = added(tallies.slow[item], now / SLOW)
    for memory in range(len(MEMORIES)):
        tallies.fast[item, memory] = added(tallies.fast[item, memory], now / MEMORIES[memory])
    raise_to_place(tallies.popular, tallies.slow, item)


@lean_kernel
def added(cell: float, now: float) -> float:
    """The cell after a touch at time `now`, in half-lives."""
    grown_to: float = now + np.log2(1.0 + 2.0 ** (cell - now))
    return grown_to


@lean_kernel
def raise_to_place(listed: NDArray[np.int32], cells: NDArray[np.float64], item: int) -> None:
    """Move an item whose cell has grown up to its place in the list; equal cells: the one listed first stays first."""
    at = 0
    while at < len(listed) - 1 and listed[at] >= 0 and listed[at] != item:
        at += 1
    if listed[at] >= 0 and listed[at] != item and cells[listed[at]] >= cells[item]:
        return
    while at > 0 and cells[listed[at - 1]] < cells[item]:
        listed[at] = listed[at - 1]
        at -= 1
    listed[at] = item


@lean_kernel
def strength(cell: float, now: float) -> float:
    """log2 of the decayed count at time `now` (in half-lives), from 0 for faded or never touched upwards."""
    return max(cell - now + FADED, 0.0)

"""Constants of the blend that are tuned online: of each a few values race (`models.race`), and lists go by the leader.

Which value tells best what comes next differs from shop to shop. `memory`: touches in which the short memory of
popularity halves. `recency`: seconds in which what a visitor did before the item in hand loses half of its say; at
first only its place counts, not its age.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from models.kernel import lean_kernel
from models.race import LEADER, Races
from models.tallies import MEMORIES, MIDDLE

CONSTANTS: Final = ("memory", "recency")
MEMORY, RECENCY = range(2)
VALUES: Final = np.array([MEMORIES, [3_600.0, 86_400.0, np.inf]])  # by constant
FIRST: Final = (MIDDLE, 2)  # the values that lead at first


@lean_kernel
def leading(races: Races, constant: int) -> float:
    """The value that leads a constant's race."""
    value: float = VALUES[constant, races.lead[constant, LEADER]]
    return value

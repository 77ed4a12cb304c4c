"""What the other values of the blend's constants would have made of a list, and the races that follow from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.blend_constants import MEMORY, RECENCY, VALUES, leading
from models.blend_features import NEAR, OLDER, SEEN, TRENDING, Desk, trend
from models.decay import remains
from models.kernel import lean_kernel
from models.listwise import NEGLIGIBLE
from models.race import LEADER, Races, compare, gain_of
from models.tallies import NEVER, Tallies


@lean_kernel
def race_constants(races: Races, tallies: Tallies, desk: Desk, found: int, target: int) -> None:
    """Judge all values by a lesson, whose chances are on the desk; its scores are overwritten. 3-5 us."""
    chance, change = desk.chance[:found], desk.score[:found]
    for constant in range(len(VALUES)):
        for value in range(VALUES.shape[1]):
            if value == races.lead[constant, LEADER]:
                continue
            if constant == MEMORY:
                _remember(tallies, desk, value, target, change)
            else:
                _recede(desk, leading(races, RECENCY), VALUES[RECENCY, value], change)
            if compare(races, constant, value, gain_of(chance, change, target)):
                break


@lean_kernel
def _remember(tallies: Tallies, desk: Desk, memory: int, target: int, change: NDArray[np.float32]) -> None:
    """Write what another memory of popularity would add to each score."""
    candidates = desk.candidates
    for c in range(len(change)):
        change[c] = 0.0
        item = candidates.item[c]
        if (desk.chance[c] > NEGLIGIBLE or c == target) and item < len(tallies.slow) and tallies.slow[item] > NEVER:
            change[c] = desk.weight[TRENDING] * (trend(tallies, item, memory) - candidates.x[TRENDING, c])


@lean_kernel
def _recede(desk: Desk, leader: float, half_life_s: float, change: NDArray[np.float32]) -> None:
    """Write what another half-life of what the visitor did before would add to each score."""
    x = desk.candidates.x
    change[:] = 0.0
    for k in range(len(OLDER)):
        more = desk.weight[OLDER[k]] * _more(desk.since[k], leader, half_life_s)
        for c in range(len(change)):
            change[c] += more * x[OLDER[k], c]
    for c in range(len(change)):
        if x[SEEN, c] > 0.0:
            change[c] += desk.weight[NEAR] * x[NEAR, c] * _more(desk.age[c], leader, half_life_s)


@lean_kernel
def _more(age: float, leader: float, half_life_s: float) -> float:
    """What another half-life adds to something of an age, in parts of what is left of it now."""
    return remains(age, half_life_s) / remains(age, leader) - 1.0

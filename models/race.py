"""Races between a few values of a constant: each is judged by what visitors did next, and the better one leads.

After a visitor has chosen, the chance that the leading value gave the choice is compared with the chance that a
*challenger* would have given it: the gain, a difference of log-likelihoods on the same list (test, then learn). Gains
are summed with decay, and a sum that falls to 0 begins anew (Page's test), so that a race never ends and past losses do
not bind. A challenger takes the lead when its sum is several times as large as chance would make it; then all sums
begin anew. It is slow where values differ little, which is also where it matters little, and judges a challenger by
weights that were learned with the leader's values: in doubt the leader stays.

References
----------
Dawid (1984), "Present position and potential developments: some personal views. Statistical theory: the prequential
approach" (forecasts are judged by what came next).

Page (1954), "Continuous inspection schemes".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel
from models.listwise import NEGLIGIBLE

MEMORY: Final = 2_000.0  # comparisons after which one counts 1/e
LEAST: Final = 200.0  # comparisons, decayed, before which nobody takes the lead
CLEAR: Final = 4.0  # a sum of gains beyond so many roots of the sum of squares is no chance
LEADER, CHANGES = range(2)  # columns of `lead`


class Races(NamedTuple):
    """The state of some races, a row of a few numbers each. `lead`: which value leads, and how often that has changed.

    By value, decayed sums over its comparisons with the leader since it last had nothing to show: of the `gain`, its
    `square`, and 1 (`seen`).
    """

    lead: NDArray[np.int64]
    gain: NDArray[np.float64]
    square: NDArray[np.float64]
    seen: NDArray[np.float64]

    @classmethod
    def start(cls, leaders: Sequence[int], values: int) -> Races:
        """Races of so many values each, and which of them leads at first."""
        lead = np.array([[leader, 0] for leader in leaders])
        gain, square, seen = np.zeros((3, len(lead), values))
        return cls(lead, gain, square, seen)


@lean_kernel
def gain_of(chance: NDArray[np.float32], change: NDArray[np.float32], target: int) -> float:
    """How much likelier (in nats) the choice would have been with other scores on the same list.

    Parameters
    ----------
    chance
        Of each candidate, as it was; they sum to 1. The scores of those below `NEGLIGIBLE` count as unchanged.
    change
        What the other value adds to each one's score.
    target
        The candidate that was chosen.

    Notes
    -----
    ``log softmax(s + d)[t] - log softmax(s)[t] = d[t] - log sum softmax(s)[c] exp(d[c])``. What the sum is beyond 1 is
    summed, so that a value that changes nothing gains nothing, and not what rounding left of the chances.
    """
    more = 0.0
    for c in range(len(chance)):
        if chance[c] > NEGLIGIBLE:
            more += chance[c] * np.expm1(np.float64(change[c]))
    return float(change[target] - np.log1p(more))


@lean_kernel
def compare(races: Races, race: int, value: int, gain: float) -> bool:
    """Count a challenger's gain over the leader of its race; True if it takes the lead with it."""
    gains, squares, seen = races.gain[race], races.square[race], races.seen[race]
    kept = 1.0 - 1.0 / MEMORY
    gains[value] = kept * gains[value] + gain
    squares[value] = kept * squares[value] + gain * gain
    seen[value] = kept * seen[value] + 1.0
    if gains[value] <= 0.0:  # what it lost in other times is no debt
        gains[value] = squares[value] = seen[value] = 0.0
    if seen[value] < LEAST or gains[value] <= CLEAR * np.sqrt(squares[value]):
        return False
    races.lead[race, LEADER] = value
    races.lead[race, CHANGES] += 1
    gains[:] = squares[:] = seen[:] = 0.0
    return True

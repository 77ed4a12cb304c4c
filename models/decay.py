"""Exact decay by event time: sums whose terms lose half their weight every H seconds, whatever order they arrive in.

A cell is a value and an integer epoch: ``value = sum w 2^(t/H - epoch)``. Raising the epoch multiplies by a power of
two, which rounds nothing; comparing two cells needs no clock, because both decay alike.

References
----------
Cormode, Shkapenyuk, Srivastava, Xu (2009), "Forward decay: a practical time decay model for streaming systems".
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel

YEAR_2000_S: Final = 946_684_800  # kernels count seconds in 32 bits from here, good until 2136
FAINT: Final = 20.0  # halvings after which what fades does so no more
ROUNDING: Final = 1e-9  # share of a subtracted amount that may be left of it by rounding alone


@lean_kernel
def remains(age: float, half_life_s: float) -> float:
    """What is left of something after so many seconds, if half of it goes in each half-life; never nothing."""
    left: float = np.exp2(-min(age / half_life_s, FAINT))
    return left


@lean_kernel
def seconds(since: int, now: int) -> float:
    """Seconds between two moments of 32 bits, 0 where they are out of order."""
    return max(np.float64(now) - np.float64(since), 0.0)


@lean_kernel
def summed(value: float, amount: float) -> float:
    """Add; where a subtraction leaves nothing or only its rounding, 0: noise divided by noise would be a neighbour."""
    total = value + amount
    return total if total > ROUNDING * abs(amount) else 0.0


@lean_kernel
def decay_add_many(
    values: NDArray[np.float64],
    epochs: NDArray[np.int32],
    indices: NDArray[np.int32],
    weights: NDArray[np.float32],
    ts: NDArray[np.uint32],
    half_life_s: float,
) -> None:
    """Add weights at event times (seconds) to cells; negative weights subtract, and a cell never falls below 0."""
    for n in range(len(indices)):
        index = indices[n]
        age = ts[n] / half_life_s
        epoch = np.int64(np.floor(age))
        behind = epoch - epochs[index]
        if behind > 0:
            values[index] *= np.ldexp(1.0, -behind) if behind < 1024 else 0.0
            epochs[index] = epoch
        values[index] = summed(values[index], weights[n] * 2.0 ** (age - epochs[index]))

"""A linear ranker that learns online from lists: softmax over the candidates, one right answer, AdaGrad.

Every candidate has the same few features; its chance to be the next one is ``softmax(w . x)`` over the list. After the
visitor has chosen, the weights move along the gradient of the log-likelihood, each feature at its own pace (AdaGrad).
The weights of a list are a sum of rows: one for all lists and one for each *group* the list belongs to (how long the
visit is, how well the item in hand is known), so that rare groups begin with what all lists have taught.

References
----------
Cao, Qin, Liu, Tsai, Li (2007), "Learning to rank: from pairwise approach to listwise approach".
Duchi, Hazan, Singer (2011), "Adaptive subgradient methods for online learning and stochastic optimization".
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel

FLOOR: Final = 1e-2  # start of the sums of squared gradients: the first steps are not longer than ten rates
NEGLIGIBLE: Final = 1e-4  # a candidate's share of a gradient below which it is left out


class Learner(NamedTuple):
    """Weights and sums of squared gradients, one row for all lists and one per group: float64[1 + groups, features]."""

    weight: NDArray[np.float64]
    square: NDArray[np.float64]

    @classmethod
    def start(cls, prior: NDArray[np.float64], groups: int) -> Learner:
        """A learner that has seen nothing and ranks by the prior weights."""
        weight = np.zeros((1 + groups, len(prior)))
        weight[0] = prior
        return cls(weight, np.full_like(weight, FLOOR))


@lean_kernel
def mixed(learner: Learner, groups: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    """Write the weights of a list that belongs to some groups (row numbers)."""
    for k in range(len(out)):
        total = learner.weight[0, k]
        for group in groups:
            total += learner.weight[group, k]
        out[k] = total


@lean_kernel
def score(x: NDArray[np.float32], found: int, weight: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write ``w . x`` for the first `found` columns of x[features, candidates]; feature by feature, in vector steps."""
    row = out[:found]
    row[:] = 0.0
    for k in range(len(weight)):
        w = weight[k]
        values = x[k, :found]
        for c in range(found):
            row[c] += w * values[c]


@lean_kernel
def learn(
    learner: Learner,
    x: NDArray[np.float32],
    chance: NDArray[np.float32],
    target: int,
    groups: NDArray[np.int64],
    gradient: NDArray[np.float64],
    rate: float,
) -> None:
    """Move the weights towards the candidate that was chosen.

    Parameters
    ----------
    learner
        Changed in place.
    x, chance
        Features of the candidates, and the chance each was given; candidates with chance 0 do not count.
    target
        Which one was chosen.
    groups
        Rows of the list's groups.
    gradient
        Room for one number per feature.
    rate
        Learning rate, > 0.
    """
    features = len(x)
    gradient[:] = 0.0
    for c in range(len(chance)):
        share = np.float64(chance[c]) - (1.0 if c == target else 0.0)
        if abs(share) < NEGLIGIBLE:
            continue
        for k in range(features):
            gradient[k] += share * x[k, c]
    step(learner, 0, gradient, rate)
    for group in groups:
        step(learner, group, gradient, rate)


@lean_kernel
def step(learner: Learner, row: int, gradient: NDArray[np.float64], rate: float) -> None:
    """One AdaGrad step of one row."""
    for k in range(len(gradient)):
        learner.square[row, k] += gradient[k] * gradient[k]
        learner.weight[row, k] -= rate * gradient[k] / np.sqrt(learner.square[row, k])


@lean_kernel
def softmax(scores: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Chances that sum to 1; what lies more than 16 below the best gets 0, as does minus infinity."""
    best = np.float32(-np.inf)
    for value in scores:
        best = max(best, value)
    total = 0.0
    for c in range(len(scores)):
        below = best - scores[c]
        out[c] = np.exp(-below) if below < 16.0 else np.float32(0.0)
        total += out[c]
    for c in range(len(scores)):
        out[c] /= total

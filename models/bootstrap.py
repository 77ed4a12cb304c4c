"""How sure are measured differences? Paired bootstrap over visitors: all models are judged on the same resamples.

One visitor's lists are not independent of each other, hence whole visitors are drawn, with replacement; differences
between models vary far less than the models' own figures, because both see the same visitors.

References
----------
Efron, Tibshirani (1993), "An introduction to the bootstrap".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

REPLICATES: Final = 1_000
LEVEL: Final = 0.95

Interval = tuple[float, float]


def paired_intervals(
    groups: NDArray[np.int32] | NDArray[np.str_],
    outcomes: Mapping[str, NDArray[np.float64]],
    against: str | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Interval]:
    """95 % percentile intervals of the mean outcome of each model, or of its difference to one of them.

    Parameters
    ----------
    groups
        Whose each outcome is, by number or name; groups are drawn as a whole.
    outcomes
        By model, one value per list.
    against
        The model whose mean is subtracted; None = nothing.
    replicates
        Resamples, > 0. More gives steadier ends.
    seed
        The same seed gives the same intervals.

    Returns
    -------
    dict
        By model, the lower and the upper end; (0, 0) if there are no lists.

    Notes
    -----
    Cost: about 20 ns per resample and group, and 2 ns more per model.

    Examples
    --------
    >>> outcomes = {"a": np.array([1.0, 1, 0, 1]), "b": np.array([0.0, 1, 0, 0])}
    >>> paired_intervals(np.arange(4, dtype=np.int32), outcomes, against="b")
    {'a': (0.0, 1.0), 'b': (0.0, 0.0)}
    """
    _, group = np.unique(groups, return_inverse=True)
    n = int(group.max(initial=-1)) + 1
    if n == 0:
        return dict.fromkeys(outcomes, (0.0, 0.0))
    base = outcomes[against] if against is not None else 0.0
    sums = np.stack([np.bincount(group, values - base, minlength=n) for values in outcomes.values()])
    sizes = np.bincount(group, minlength=n)
    chance = np.random.default_rng(seed)
    means = np.empty((replicates, len(sums)))
    for r in range(replicates):
        drawn = np.bincount(chance.integers(0, n, n), minlength=n)
        means[r] = sums @ drawn / (sizes @ drawn)
    ends = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return {name: (float(low), float(high)) for name, low, high in zip(outcomes, *ends, strict=True)}

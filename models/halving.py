"""Successive halving: many settings are tried on little data, the better ones on more, the best on all of it.

References
----------
Jamieson, Talwalkar (2016), "Non-stochastic best arm identification and hyperparameter optimization".
https://arxiv.org/abs/1502.07943
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

Setting = Mapping[str, float]
KEEP: Final = 3  # one in so many goes on


class Trial(NamedTuple):
    """A setting and its score on the largest share of the data it was tried on."""

    setting: Setting
    score: float
    share: float


def draw(
    ranges: Mapping[str, tuple[float, float]], default: Setting, count: int, seed: int = 0
) -> list[dict[str, float]]:
    """Settings to try: the default, then random ones, each parameter even in its logarithm.

    Parameters
    ----------
    ranges
        Lowest and highest value by parameter, > 0.
    default
        Tried first.
    count
        Settings, > 0.
    seed
        The same seed draws the same ones.

    Examples
    --------
    >>> [round(setting["rate"], 2) for setting in draw({"rate": (0.1, 10.0)}, {"rate": 1.0}, 3)]
    [1.0, 4.88, 3.28]
    """
    chance = random.Random(seed)
    others = range(count - 1)
    drawn = [{name: low * (high / low) ** chance.random() for name, (low, high) in ranges.items()} for _ in others]
    return [dict(default), *drawn]


def rungs(count: int) -> list[float]:
    """Shares of the data for so many settings: three times as much for a third of them, all of it for the last.

    Examples
    --------
    >>> [round(share, 2) for share in rungs(9)]
    [0.11, 0.33, 1.0]
    """
    steps = math.ceil(math.log(count, KEEP) - 1e-9)
    return [float(KEEP) ** -step for step in range(steps, -1, -1)] if steps else [1.0]


def successive_halving(
    settings: Sequence[Setting], score: Callable[[Setting, float], float], shares: Sequence[float]
) -> list[Trial]:
    """Try all settings on the first share; of each, the best third goes on to the next.

    Parameters
    ----------
    settings
        At least one. The first is also tried on the last share, as a yardstick.
    score
        (setting, share) to its quality; higher is better.
    shares
        Rising, as `rungs` gives them.

    Returns
    -------
    list[Trial]
        Every setting once, best first: by share, then score, then order.

    Examples
    --------
    >>> settings = [{"x": x} for x in (0.0, 3.0, 5.0)]
    >>> trials = successive_halving(settings, lambda setting, share: -abs(setting["x"] - 4.9), [0.5, 1.0])
    >>> [(trial.setting["x"], trial.share) for trial in trials]
    [(5.0, 1.0), (0.0, 1.0), (3.0, 0.5)]
    """
    tried: dict[int, Trial] = {}
    left = list(range(len(settings)))
    for step, share in enumerate(shares):
        if step == len(shares) - 1 and 0 not in left:
            left.append(0)
        for n in left:
            tried[n] = Trial(settings[n], score(settings[n], share), share)
        best = sorted(left, key=lambda n: -tried[n].score)
        left = best[: max(len(left) // KEEP, 1)]
    return sorted(tried.values(), key=lambda trial: (-trial.share, -trial.score))

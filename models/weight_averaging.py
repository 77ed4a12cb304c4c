"""Weights learned apart and shared: learners of the same model send what they have, and move towards the mean.

Each learner sees a part of the visitors. What it sends is an `Opinion`; whoever collects them returns the mean, in
which a learner counts by its lessons until it has `SETTLED` of them, and then as much as any other. The learner then
moves by its distance to the mean *at the time it sent*, so that what it learned meanwhile is kept. Its share in the
mean says how far: one that has learned nothing takes the mean over, one that is alone stays where it is.

It is wrong where the parts differ for good (a shop per partition): the mean then fits nobody.

References
----------
McMahan, Moore, Ramage, Hampson, Aguera y Arcas (2017), "Communication-efficient learning of deep networks from
decentralized data" (federated averaging).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.listwise import FLOOR, Learner

SETTLED: Final = 20_000  # lessons from which on a learner counts in full


class Opinion(NamedTuple):
    """Weights, sums of squared gradients, and the lessons behind them (of a mean: those that counted)."""

    weight: NDArray[np.float64]
    square: NDArray[np.float64]
    lessons: int

    @classmethod
    def of(cls, learner: Learner, lessons: int) -> Opinion:
        """What a learner holds now, as copies."""
        return cls(learner.weight.copy(), learner.square.copy(), lessons)

    @property
    def counted(self) -> int:
        """Lessons that count in a mean."""
        return min(self.lessons, SETTLED)


def mean_of(opinions: Sequence[Opinion]) -> Opinion:
    """Mean of some opinions of one shape, of which at least one has a lesson.

    Examples
    --------
    >>> one, two = (Opinion(np.full((1, 1), w), np.ones((1, 1)), lessons) for w, lessons in ((1.0, 300), (2.0, 100)))
    >>> mean_of([one, two]).weight.tolist()
    [[1.25]]
    """
    total = sum(opinion.counted for opinion in opinions)
    shares = [opinion.counted / total for opinion in opinions]
    weight = sum(share * opinion.weight for share, opinion in zip(shares, opinions, strict=True))
    square = sum(share * opinion.square for share, opinion in zip(shares, opinions, strict=True))
    return Opinion(np.asarray(weight), np.asarray(square), total)


def move(learner: Learner, sent: Opinion, mean: Opinion, *, settle: bool = True) -> None:
    """Move a learner by its distance to the mean when it sent its opinion, less the part of the mean that was its own.

    Parameters
    ----------
    learner
        Changed in place.
    sent
        What it sent, and what the mean was made with.
    mean
        The mean.
    settle
        Whether the sums of squares move, too; they are those of learners who are less in a hurry after a drift.
    """
    others = 1.0 - min(sent.counted / mean.lessons, 1.0)
    learner.weight[:] += others * (mean.weight - sent.weight)
    if settle:
        learner.square[:] = np.maximum(learner.square + others * (mean.square - sent.square), FLOOR)

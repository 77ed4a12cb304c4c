"""The blend as a whole, slowly: test, then learn; weights that follow; drifts; and the list that is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from river.drift import ADWIN

from models import blend, race
from models.blend import LOOK, PRIOR, QUICKEN, RATE
from models.blend_constants import MEMORY, RECENCY, VALUES
from models.blend_features import FEATURES, GROUPS, TRENDING
from models.blend_lists import ALERTED, ALL_TEACH, EVERY, GRID, MANY_TEACH, OFTEN, RACED, TOP
from models.histories import HISTORY
from models.listwise import FLOOR, NEGLIGIBLE
from models.race import CLEAR, LEAST
from tests.plain_features import PlainFeatures


class Shown(NamedTuple):
    """One item of a list; its chance is in parts of the first one's."""

    item: int
    score: float
    chance: float


class PlainBlend(PlainFeatures):
    """The slow reference of `models.blend_ranker.BlendRanker`.

    Parameters
    ----------
    ids
        By item its id.
    history, rate, frozen
        As for the fast one.
    """

    def __init__(self, ids: Sequence[str], history: int = HISTORY, rate: float = RATE, *, frozen: bool = False) -> None:
        super().__init__(history)
        self.ids, self.rate, self.frozen = ids, rate, frozen
        self.weight = [list(PRIOR), *([0.0] * FEATURES for _ in range(GROUPS))]
        self.square = [[FLOOR] * FEATURES for _ in range(1 + GROUPS)]
        self.touches = self.lessons = self.hits = self.drifts = self.alert = 0
        self.told = (0, 0)
        self.detector: Any = ADWIN(clock=LOOK)  # type: ignore[no-untyped-call]  # River's detectors are not annotated
        self.races: list[dict[float, list[float]]] = [{value: [0.0] * 3 for value in row} for row in VALUES.tolist()]
        self.changes = [0] * len(self.races)

    def learn(self, user: int, item: int, ts: int) -> None:
        if self.ring(user)[:1] != [item]:
            every = 1 if self.lessons < max(ALL_TEACH, self.alert) else OFTEN if self.lessons < MANY_TEACH else EVERY
            if not self.frozen and self.ring(user) and self.touches % every == 0:
                self.teach(user, item)
            self.touches += 1
        super().learn(user, item, ts)
        self.watch()

    def scores(self, user: int, features: dict[int, list[float]]) -> dict[int, float]:
        """``w . x`` of each candidate but the item the user is on."""
        weight, current = self.mixed(user), self.ring(user)[0]
        return {item: _dot(weight, x) for item, x in features.items() if item != current}

    def mixed(self, user: int) -> list[float]:
        rows = [self.weight[row] for row in (0, *self.groups(user))]
        return [sum(column) for column in zip(*rows, strict=True)]

    def teach(self, user: int, target: int) -> None:
        """One step of AdaGrad towards what was chosen, if it was a candidate."""
        self.lessons += 1
        features = self.features(user)
        if target not in features:
            return
        scores = self.scores(user, features)
        self.hits += sum(score > scores[target] for score in scores.values()) < TOP
        total = sum(math.exp(score) for score in scores.values())
        chances = {item: math.exp(score) / total for item, score in scores.items()}
        if self.lessons % RACED == 0:
            for constant in range(len(VALUES)):
                self.compete(constant, user, chances, target)
        shares = {item: chance - (item == target) for item, chance in chances.items()}
        counted = [(share, features[item]) for item, share in shares.items() if abs(share) >= NEGLIGIBLE]
        gradient = [sum(share * x[k] for share, x in counted) for k in range(FEATURES)]
        for row in (0, *self.groups(user)):
            for k, g in enumerate(gradient):
                self.square[row][k] += g * g
                self.weight[row][k] -= self.rate * g / math.sqrt(self.square[row][k])

    def compete(self, constant: int, user: int, chances: dict[int, float], target: int) -> None:
        """Judge the other values of a constant by how likely each would have made what was chosen."""
        leader, values = self.leading[constant], self.races[constant]
        weight, ageless = self.mixed(user), self.ageless(user)
        for value in values:
            if value == leader:
                continue
            gain = self.gain(chances, target, self.changed(constant, value, user, weight, ageless))
            if self.takes_the_lead(values, value, gain):
                self.leading[constant] = value
                self.changes[constant] += 1
                self.races[constant] = {each: [0.0] * 3 for each in values}
                return

    def gain(self, chances: dict[int, float], target: int, change: dict[int, float]) -> float:
        return change[target] - math.log(sum(chance * math.exp(change[item]) for item, chance in chances.items()))

    def changed(
        self, constant: int, value: float, user: int, weight: list[float], ageless: dict[int, list[float]]
    ) -> dict[int, float]:
        """What another value of a constant would add to each candidate's score."""
        if constant == MEMORY:
            known, leader = self.counts[value], self.leading[MEMORY]
            rises = {item: self.height(value, item) - self.height(leader, item) for item in known}
            return {item: weight[TRENDING] * rises.get(item, 0.0) for item in ageless}
        now, then = self.aged(user, ageless, self.leading[RECENCY]), self.aged(user, ageless, value)
        return {item: _dot(weight, then[item]) - _dot(weight, now[item]) for item in ageless}

    def takes_the_lead(self, values: dict[float, list[float]], value: float, gain: float) -> bool:
        kept = 1 - 1 / race.MEMORY
        gains, squares, seen = (kept * old + new for old, new in zip(values[value], (gain, gain**2, 1), strict=True))
        values[value] = [gains, squares, seen] if gains > 0 else [0.0] * 3
        return gains > 0 and seen >= LEAST and gains > CLEAR * math.sqrt(squares)

    def watch(self) -> None:
        """Where the hit rate has fallen for good, steps are twice as long again, and each list teaches for a while."""
        lessons, hits = self.lessons - self.told[0], self.hits - self.told[1]
        if lessons < blend.SAMPLE:
            return
        before, self.told = self.detector.estimation, (self.lessons, self.hits)
        self.detector.update(hits / lessons)
        if self.detector.drift_detected and self.detector.estimation < before:
            self.drifts += 1
            self.alert = self.lessons + ALERTED
            self.square = [[value * QUICKEN for value in row] for row in self.square]

    def recommend(self, user: int, k: int = 20) -> list[Shown]:
        """Best k by the score in steps of `GRID`, ties by id."""
        scores = self.scores(user, self.features(user))
        keys = {item: math.floor(score * GRID + 0.5) for item, score in scores.items()}
        best = max(keys.values(), default=0)
        ranked = sorted(keys, key=lambda item: (-keys[item], self.ids[item]))[:k]
        return [Shown(item, scores[item], max(round(math.exp((keys[item] - best) / GRID), 6), 1e-6)) for item in ranked]


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(one * other for one, other in zip(left, right, strict=True))

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.listwise import FLOOR, NEGLIGIBLE, Learner, learn, mixed, score, softmax

FEATURES = 3


class PlainLearner:
    """The slow reference: lists of floats, one feature after another."""

    def __init__(self, prior: list[float], groups: int) -> None:
        self.weight = [list(prior)] + [[0.0] * len(prior) for _ in range(groups)]
        self.square = [[FLOOR] * len(prior) for _ in self.weight]

    def chances(self, lists: list[list[float]], rows: list[int]) -> list[float]:
        weights = [sum(self.weight[row][k] for row in (0, *rows)) for k in range(FEATURES)]
        scores = [sum(w * x for w, x in zip(weights, candidate, strict=True)) for candidate in lists]
        powers = [math.exp(s - max(scores)) for s in scores]
        return [power / sum(powers) for power in powers]

    def learn(self, lists: list[list[float]], target: int, rows: list[int], rate: float) -> None:
        shares = [chance - (n == target) for n, chance in enumerate(self.chances(lists, rows))]
        for k in range(FEATURES):
            slope = sum(share * x[k] for share, x in zip(shares, lists, strict=True) if abs(share) >= NEGLIGIBLE)
            for row in (0, *rows):
                self.square[row][k] += slope**2
                self.weight[row][k] -= rate * slope / math.sqrt(self.square[row][k])


number = st.floats(0, 1, width=32)
lesson = st.tuples(
    st.lists(st.tuples(number, number, number), min_size=2, max_size=6), st.integers(0, 5), st.integers(1, 2)
)


@given(lessons=st.lists(lesson, max_size=15), rate=st.sampled_from([0.01, 0.1]))
@settings(deadline=None)
def test_weights_equal_the_plain_learner_step_by_step(
    lessons: list[tuple[list[tuple[float, float, float]], int, int]], rate: float
) -> None:
    prior = [0.5, 0.0, -0.25]
    learner, plain = Learner.start(np.array(prior), 3), PlainLearner(prior, 3)
    for candidates, pick, group in lessons:
        target, rows = pick % len(candidates), [group, 3]
        x = np.array(candidates, dtype=np.float32).T.copy()
        weight, out = np.zeros(FEATURES, np.float32), np.zeros(len(candidates), np.float32)
        groups = np.array(rows)
        mixed(learner, groups, weight)
        score(x, len(candidates), weight, out)
        softmax(out, out)
        lists = [list(candidate) for candidate in candidates]
        assert out.tolist() == pytest.approx(plain.chances(lists, rows), abs=1e-5)
        learn(learner, x, out, target, groups, np.empty(len(x)), rate)
        plain.learn(lists, target, rows, rate)
        assert learner.weight == pytest.approx(np.array(plain.weight), abs=1e-3)


def test_learns_which_feature_tells_the_target_and_only_in_the_groups_it_saw() -> None:
    learner = Learner.start(np.zeros(2), 2)
    chance = np.random.default_rng(1)
    for _ in range(500):
        x = chance.random((2, 8)).astype(np.float32)
        weight, out = np.zeros(2, np.float32), np.zeros(8, np.float32)
        mixed(learner, np.array([1]), weight)
        score(x, 8, weight, out)
        softmax(out, out)
        learn(learner, x, out, int(x[0].argmax()), np.array([1]), np.empty(len(x)), 0.1)
    assert learner.weight[0, 0] > 1 > abs(learner.weight[0, 1])
    assert not learner.weight[2].any()


def test_minus_infinity_has_no_chance() -> None:
    out = np.zeros(3, np.float32)
    softmax(np.array([-np.inf, 0, 0], dtype=np.float32), out)
    assert out.tolist() == [0, 0.5, 0.5]

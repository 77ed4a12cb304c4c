from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.listwise import FLOOR, Learner
from models.weight_averaging import SETTLED, Opinion, mean_of, move

LESSONS = st.integers(0, 3 * SETTLED)
WEIGHTS = st.lists(st.floats(-5, 5), min_size=3, max_size=3)


def learner_of(weights: list[float], square: float = 1.0) -> Learner:
    weight = np.array([weights])
    return Learner(weight, np.full_like(weight, square))


@given(st.lists(st.tuples(WEIGHTS, LESSONS), min_size=1, max_size=5).filter(lambda held: any(n for _, n in held)))
def test_the_mean_counts_each_by_its_lessons_up_to_a_bound(held: list[tuple[list[float], int]]) -> None:
    mean = mean_of([Opinion.of(learner_of(weights), lessons) for weights, lessons in held])
    counted = [min(lessons, 20_000) for _, lessons in held]
    for feature in range(3):
        total = sum(n * weights[feature] for n, (weights, _) in zip(counted, held, strict=True))
        assert mean.weight[0, feature] == pytest.approx(total / sum(counted), abs=1e-9)
    assert mean.lessons == sum(counted)
    assert mean.square.tolist() == [pytest.approx([1.0] * 3)]


def test_who_is_alone_stays_and_who_knows_nothing_takes_the_mean_over() -> None:
    alone, new = learner_of([1.0, 2.0, 3.0]), learner_of([0.0, 0.0, 0.0], FLOOR)
    sent = Opinion.of(alone, 500)
    mean = mean_of([sent])
    alone.weight[:] += 0.5  # learned meanwhile
    move(alone, sent, mean)
    assert alone.weight.tolist() == [[1.5, 2.5, 3.5]]
    move(new, Opinion.of(new, 0), mean)
    assert new.weight.tolist() == [[1.0, 2.0, 3.0]]
    assert new.square.tolist() == [[1.0] * 3]  # as sure, too: no leap with the first lesson


@given(st.lists(WEIGHTS, min_size=2, max_size=5), st.lists(WEIGHTS, min_size=5, max_size=5))
def test_equal_learners_come_together_and_keep_what_they_learned_meanwhile(
    weights: list[list[float]], steps: list[list[float]]
) -> None:
    learners = [learner_of(w) for w in weights]
    sent = [Opinion.of(learner, SETTLED) for learner in learners]
    mean = mean_of(sent)
    for learner, step in zip(learners, steps, strict=False):
        learner.weight[0] += step
    for n, learner in enumerate(learners):
        move(learner, sent[n], mean)
        left = (np.array(weights[n]) - mean.weight[0]) / len(learners)
        assert learner.weight[0] == pytest.approx(mean.weight[0] + left + np.array(steps[n]), abs=1e-9)


def test_sums_of_squares_stay_above_their_start() -> None:
    learner = learner_of([1.0, 1.0, 1.0], FLOOR)
    sent = Opinion(learner.weight.copy(), np.full((1, 3), 9.0), 1)
    move(learner, sent, Opinion(learner.weight.copy(), np.full((1, 3), 0.5), 100))
    assert learner.square.tolist() == [[FLOOR] * 3]

from __future__ import annotations

import numpy as np
import pytest

from models.bootstrap import paired_intervals


def test_interval_of_a_mean_agrees_with_the_normal_one() -> None:
    values = (np.random.default_rng(1).random(2_000) < 0.3).astype(float)
    low, high = paired_intervals(np.arange(2_000, dtype=np.int32), {"a": values})["a"]
    error = 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 2_000)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.2 * error)


def test_visitors_are_drawn_as_a_whole() -> None:
    values = np.repeat((np.random.default_rng(1).random(200) < 0.5).astype(float), 10)
    whole = paired_intervals(np.repeat(np.arange(200, dtype=np.int32), 10), {"a": values})["a"]
    single = paired_intervals(np.arange(2_000, dtype=np.int32), {"a": values})["a"]
    assert whole[1] - whole[0] > 2.5 * (single[1] - single[0])


def test_a_small_steady_advantage_is_seen_only_in_pairs() -> None:
    chance = np.random.default_rng(1)
    base = (chance.random(2_000) < 0.5).astype(float)
    better = np.maximum(base, (chance.random(2_000) < 0.02).astype(float))
    groups = np.arange(2_000, dtype=np.int32)
    alone = paired_intervals(groups, {"base": base, "better": better})
    assert alone["better"][0] < alone["base"][1]
    assert paired_intervals(groups, {"base": base, "better": better}, against="base")["better"][0] > 0


def test_the_seed_decides() -> None:
    values = {"a": np.random.default_rng(1).random(50)}
    groups = np.arange(50, dtype=np.int32)
    assert paired_intervals(groups, values) == paired_intervals(groups, values)
    assert paired_intervals(groups, values) != paired_intervals(groups, values, seed=1)


def test_nothing_gives_zeros() -> None:
    assert paired_intervals(np.empty(0, dtype=np.int32), {"a": np.empty(0)}) == {"a": (0.0, 0.0)}

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.evaluation import Stream, measure
from models.list_metrics import miscalibration, repeats
from models.text_features import Facts
from tests.plain import bounded
from tests.streams import TOUCHES, Touch, queries, stream_of

CATEGORIES = ["a", "a|b", "", "c", "b", "a", "b|c", "a", "", "c"]
FACTS = tuple(Facts(category=category) for category in CATEGORIES)


def lists_of(stream: Stream, k: int, seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.int32]]:
    """Random lists that keep the protocol."""
    chance = np.random.default_rng(seed)
    lists = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    for row, (_, _, recent) in zip(lists, queries(stream), strict=True):
        items = [i for i in chance.permutation(10).tolist() if i != recent[0]][: chance.integers(0, k + 1)]
        row[: len(items)] = items
    return lists


def mix(items: list[int]) -> Counter[str]:
    parts: Counter[str] = Counter()
    for item in items:
        names = [name for name in CATEGORIES[item].split("|") if name]
        for name in names:
            parts[name] += 1 / len(names)  # type: ignore[assignment]  # a Counter of shares
    total = sum(parts.values())
    return Counter({name: part / total for name, part in parts.items()})


@given(touches=TOUCHES, k=st.integers(1, 6), seed=st.integers(0, 99))
@bounded
def test_metrics_equal_their_definitions(touches: list[Touch], k: int, seed: int) -> None:
    stream = stream_of(touches, facts=FACTS)
    lists = lists_of(stream, k, seed)
    again, divergences = [], []
    for (_, _, recent), row in zip(queries(stream), lists.tolist(), strict=True):
        shown = [item for item in row if item >= 0]
        again += [item in recent for item in shown]
        p, q = mix(recent[:50]), mix(shown)
        if p and q:
            divergences.append(sum(s * math.log2(s / (0.99 * q[c] + 0.01 * s)) for c, s in p.items()))
    targets = np.flatnonzero(stream.scored)
    assert repeats(stream.key, stream.item, targets, lists).tolist() == again
    found = miscalibration(stream.item, stream.previous, targets, lists, FACTS)
    expected = sum(divergences) / len(divergences) if divergences else None
    assert found == (pytest.approx(expected, abs=1e-9) if expected is not None else None)
    metrics = measure(stream, lists)
    assert metrics.repeat_share == pytest.approx(sum(again) / max(len(again), 1))
    assert metrics.calibration == found


def test_popularity_bias_and_novelty_by_hand() -> None:
    stream = stream_of([(0, 0, 1), (1, 0, 1), (2, 1, 1), (0, 1, 1), (1, 1, 1)], start=0.6)
    metrics = measure(
        stream, np.array([[1, 2], [1, -1]], dtype=np.int32)
    )  # both targets are 1; before: 0 twice, 1 once
    assert metrics.popularity == pytest.approx(2 / 3)
    assert metrics.popularity_bias == pytest.approx(2 / 3)
    assert metrics.novelty == pytest.approx((2 * -math.log2(2 / 13) - math.log2(1 / 13)) / 3)
    assert metrics.calibration is None
    assert metrics.repeat_share == 0.0


def test_a_list_like_the_history_is_calibrated_and_a_one_sided_one_is_not() -> None:
    stream = stream_of([(0, 0, 1), (0, 3, 1), (0, 4, 1), (0, 9, 1)], start=0.75, facts=FACTS)
    same, other = (measure(stream, np.array([row], dtype=np.int32)).calibration for row in ([5, 3, 6, 6][:2], [5, 7]))
    assert same is not None
    assert other is not None
    assert 0 <= same < other < 6.7
    even = miscalibration(stream.item, stream.previous, np.array([3]), np.array([[7, 3, 4]], dtype=np.int32), FACTS)
    assert even == pytest.approx(0.0, abs=1e-9)

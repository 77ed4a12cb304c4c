from __future__ import annotations

import math
import pickle
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation import Contender, measure, prepare
from models.text_features import Facts
from tests.streams import ITEM_IDS, TOUCHES, Touch, queries, stream_of

CONTENDERS = [
    "item_similarity",
    "session_knn",
    "popularity",
    "sequential_rules",
    "blend_ranker",
    "content",
    "tencent_rec",
]

rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.0, 1.0, 2.0])), max_size=40)


def plain_protocol(touches: list[tuple[int, int, float]], start: float) -> list[tuple[int, int, bool]]:
    """Key, item and scored, one event after another, as the protocol is written."""
    on: dict[int, int] = {}
    kept = []
    for n, (key, item, weight) in enumerate(touches):
        if weight > 0 and on.get(key) != item:
            kept.append((key, item, key in on and n >= start * len(touches)))
            on[key] = item
    return kept


@given(touches=rows, start=st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_prepare_follows_the_protocol(touches: list[tuple[int, int, float]], start: float) -> None:
    key, item, weight = (np.array(c) for c in zip(*touches, strict=True)) if touches else (np.empty(0),) * 3
    ids = ["e", "d", "c", "b", "a"]
    columns = (key.astype(np.int32), item.astype(np.int32), np.arange(len(key)), weight.astype(np.float32))
    stream = prepare(*columns, ids, start)
    got = list(zip(stream.key.tolist(), stream.item.tolist(), stream.scored.tolist(), strict=True))
    assert got == plain_protocol(touches, start)
    assert stream.rank.tolist() == [4, 3, 2, 1, 0]
    for n, previous in enumerate(stream.previous.tolist()):
        earlier = [m for m in range(n) if stream.key[m] == stream.key[n]]
        assert previous == (earlier[-1] if earlier else -1)


def test_metrics_of_a_stream_checked_by_hand() -> None:
    stream = stream_of([(0, 0, 1), (0, 1, 1), (0, 2, 1), (0, 3, 1)], start=0.5)
    lists = np.array([[5, 2, 7, -1], [1, -1, -1, -1]], dtype=np.int32)  # targets 2 and 3: second place, missed
    metrics = measure(stream, lists)
    assert metrics.predictions == 2
    assert metrics.hr == metrics.recall == 0.5
    assert metrics.mrr == 0.25
    assert metrics.ndcg == pytest.approx(0.5 / math.log2(3))
    assert metrics.precision == 0.125
    assert metrics.f1 == pytest.approx(2 * 0.125 * 0.5 / 0.625)
    assert metrics.coverage == 0.4
    assert metrics.popularity == 0.25  # only item 1 was seen before, once


def test_nothing_scored_gives_zeros() -> None:
    metrics = measure(stream_of([]), np.empty((0, 20), dtype=np.int32))
    assert (metrics.predictions, metrics.hr, metrics.popularity) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("lists", "problem"),
    [
        ([[1], [2]], "1 lists are needed"),
        ([[0]], "the item the visitor is on"),
        ([[1, 1]], "names an item twice"),
    ],
)
def test_lists_that_break_the_protocol_are_refused(lists: list[list[int]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        measure(stream_of([(0, 0, 1), (0, 1, 1)]), np.array(lists, dtype=np.int32))


def test_a_share_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="start must be 0 to 1"):
        stream_of([], start=1.5)


@pytest.mark.parametrize("name", CONTENDERS)
@given(touches=TOUCHES, start=st.sampled_from([0.0, 0.5]), k=st.integers(1, 12))
@settings(deadline=None, max_examples=50)
def test_every_contender_keeps_the_protocol(name: str, touches: list[Touch], start: float, k: int) -> None:
    run: Contender = import_module(f"models.{name}").run
    stream = stream_of(touches, start, tuple(Facts(category=f"c{n % 3}") for n in range(10)))
    before = pickle.dumps(stream)
    lists = run(stream, k)
    assert lists.shape == (int(stream.scored.sum()), k)
    measure(stream, lists)
    assert pickle.dumps(stream) == before
    assert np.array_equal(lists, run(stream, k))
    for (n, _, _), row in zip(queries(stream), lists.tolist(), strict=True):
        assert all(i < 0 or i in stream.item[:n] for i in row), "shows an item before it was learned"
        assert row == sorted(row, key=lambda i: i < 0), "has a hole"


@pytest.mark.parametrize(
    "name", ["item_similarity", "session_knn", "sequential_rules", "blend_ranker", "tencent_rec", "time_aware"]
)
def test_every_personal_contender_finds_a_certain_successor(name: str) -> None:
    run: Contender = import_module(f"models.{name}").run
    touches = [touch for key in range(20) for touch in ((key, key % 2, 1), (key, 2 + key % 2, 1))]
    stream = stream_of(touches, start=0.5)
    assert measure(stream, run(stream, 1)).hr == 1.0


def test_head_scores_something_to_compile_with() -> None:
    stream = stream_of([(0, n % 10, 1) for n in range(30)], start=0.9)
    assert stream.head(10).scored.sum() == 1
    assert len(stream.head(0)) == 0
    assert len(stream.head(10).item_ids) == len(ITEM_IDS)

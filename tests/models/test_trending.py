from __future__ import annotations

import pickle
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.decay import decay_add_many
from models.trending import HALF_LIFE_S, Trending
from tests.plain import bounded, equal_arrays

ITEMS = ["i10", "i9", "b", "a", "ä", "Z"]
CATEGORIES = ["", "camping", "home"]
Cell = tuple[str, float, int, str]
cells = st.lists(
    st.tuples(
        st.sampled_from(ITEMS),
        st.sampled_from([0.0, 0.25, 1.0, 3.0, 1e-3]),
        st.integers(0, 40),
        st.sampled_from(CATEGORIES),
    ),
    max_size=20,
)
samples = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(ITEMS), st.sampled_from([1.0, 2.0, 0.5]), st.integers(0, 10**7)),
    max_size=30,
)
Found = dict[tuple[str, str], tuple[list[str], list[float]]]


def told(trending: Trending, made: list[Cell]) -> Trending:
    for item, value, epoch, category in made:
        trending.replace([item], [value], [epoch], [category])
    return trending


def sampled(trending: Trending, touches: list[tuple[int, str, float, int]]) -> Trending:
    for touch in touches:
        trending.add_to_segment(*touch)
    return trending


def plain_lists(made: list[Cell], touches: list[tuple[int, str, float, int]], k: int) -> Found:
    """Values at second 0, list by list."""
    lists: dict[tuple[str, str], dict[str, float]] = {}
    for item, (_, value, epoch, category) in {cell[0]: cell for cell in made}.items():
        for name in [("all", ""), *([("category", category)] if category else [])]:
            if value > 0:
                lists.setdefault(name, {})[item] = value * 2.0**epoch
    for segment, item, weight, ts in touches:
        values = lists.setdefault(("segment", str(segment)), {})
        values[item] = values.get(item, 0.0) + weight * 2.0 ** ((ts - 10**7) / HALF_LIFE_S)
    found: Found = {}
    for name, values in lists.items():
        best = sorted(values.items(), key=lambda cell: (-cell[1], cell[0]))[:k]
        found[name] = [item for item, _ in best], [value / best[0][1] for _, value in best]
    return found


def close(left: Found, right: Found) -> bool:
    """Equal scores within 1e-9, items free among equal ones."""
    return left.keys() == right.keys() and all(
        dict(zip(*left[name], strict=True)) == pytest.approx(dict(zip(*right[name], strict=True)), rel=1e-9)
        for name in left
    )


@bounded
@given(cells, samples)
def test_lists_equal_the_plain_ones(made: list[Cell], touches: list[tuple[int, str, float, int]]) -> None:
    trending = sampled(told(Trending(), made), touches)
    assert close(trending.top(10), plain_lists(made, touches, 10))
    for name, (items, scores) in trending.top(3).items():
        assert len(items) <= 3
        assert scores == trending.top(10)[name][1][:3] == sorted(scores, reverse=True)
        assert scores[0] == 1.0


@bounded
@given(cells)
def test_overall_and_category_lists_are_in_exact_order(made: list[Cell]) -> None:
    found, expected = told(Trending(), made).top(4), plain_lists(made, [], 4)
    assert {name: items for name, (items, _) in found.items()} == {n: items for n, (items, _) in expected.items()}


@bounded
@given(cells, st.integers(1, 500))
def test_neither_doubling_nor_waiting_changes_a_list(made: list[Cell], half_lives: int) -> None:
    plain = told(Trending(), made).top(6)
    doubled = told(Trending(), [(item, 2 * value, epoch, c) for item, value, epoch, c in made])
    later = told(Trending(), [(item, value, epoch + half_lives, c) for item, value, epoch, c in made])
    assert close(doubled.top(6), plain)
    assert close(later.top(6), plain)


@bounded
@given(samples, st.randoms(use_true_random=False), st.integers(1, 100))
def test_neither_order_nor_waiting_changes_a_segments_list(
    touches: list[tuple[int, str, float, int]], random: Random, half_lives: int
) -> None:
    shuffled = [(s, item, w, ts + int(half_lives * HALF_LIFE_S)) for s, item, w, ts in touches]
    random.shuffle(shuffled)
    assert close(sampled(Trending(), shuffled).top(9), sampled(Trending(), touches).top(9))


@bounded
@given(cells)
def test_the_same_message_twice_changes_nothing(made: list[Cell]) -> None:
    once = told(Trending(), made)
    last = list({cell[0]: cell for cell in made}.values())
    twice = told(told(Trending(), made), last)
    assert once.top(9) == twice.top(9)


@bounded
@given(cells, samples, cells, samples)
def test_goes_on_from_a_snapshot_as_if_nothing_had_happened(
    made: list[Cell],
    touches: list[tuple[int, str, float, int]],
    later: list[Cell],
    later_touches: list[tuple[int, str, float, int]],
) -> None:
    trending = sampled(told(Trending(), made), touches)
    again = Trending.from_arrays(trending.arrays())
    assert again.top(9) == trending.top(9)
    assert sampled(told(again, later), later_touches).top(9) == sampled(told(trending, later), later_touches).top(9)
    assert equal_arrays(again.arrays(), trending.arrays())


@bounded
@given(cells, samples)
def test_reading_leaves_the_state_equal(made: list[Cell], touches: list[tuple[int, str, float, int]]) -> None:
    trending = sampled(told(Trending(), made), touches)
    before = pickle.dumps(trending)
    trending.top(3)
    trending.arrays()
    assert pickle.dumps(trending) == before


def test_equal_scores_rank_by_id_as_text() -> None:
    trending = told(Trending(), [(item, 1.0, 5, "") for item in ITEMS])
    for item in ITEMS:
        trending.add_to_segment(0, item, 1.0, 0)
    assert trending.top(9)["all", ""][0] == sorted(ITEMS)
    assert trending.top(9)["segment", "0"][0] == sorted(ITEMS)


def test_bounds_keep_the_strongest() -> None:
    trending = Trending(max_items=100, max_segment_items=50)
    order = list(range(500))
    Random(1).shuffle(order)
    for n in order:
        trending.replace([f"i{n}"], [float(n + 1)], [0], [""])
        trending.add_to_segment(0, f"i{n}", float(n + 1), 0)
        assert len(trending.overall) <= 100
        assert len(trending.segments[0]) <= 50
    best = [f"i{n}" for n in range(499, 489, -1)]
    assert trending.top(10)["all", ""][0] == best
    assert trending.top(10)["segment", "0"][0] == best


def test_counts_of_items_are_those_of_decays_cells() -> None:
    values, epochs = np.zeros(2), np.zeros(2, dtype=np.int32)
    indices, weights = np.array([0, 1, 1], dtype=np.int32), np.array([1, 1, 2], dtype=np.float32)
    decay_add_many(values, epochs, indices, weights, np.array([0, 0, 43_200], dtype=np.uint32), HALF_LIFE_S)
    trending = Trending()
    trending.replace(["mat", "tent"], values.tolist(), epochs.tolist(), ["", ""])
    assert trending.top(2)["all", ""] == (["tent", "mat"], [1.0, pytest.approx(1 / (1 + 2 * 4))])

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decay import YEAR_2000_S
from models.popularity import Popularity, run
from tests.plain import bounded
from tests.streams import ITEM_IDS, TOUCHES, Touch, queries, shown, stream_of

HALF_LIFE_S = 8.0
counts = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 5), st.integers(0, 500)), max_size=40)


def plain_scores(touches: list[tuple[str, float, int]], now: int, half_life_s: float) -> dict[str, float]:
    """The definition: every touch by itself, decayed to now."""
    scores: dict[str, float] = {}
    for item, weight, ts in touches:
        scores[item] = scores.get(item, 0.0) + weight * 2.0 ** ((ts - now) / half_life_s)
    return scores


def plain_rounded(score: float, epoch: int) -> int:
    mantissa, exponent = math.frexp(score)
    return round((mantissa - 0.5) * 2**20) + (exponent + epoch) * 2**19


@given(touches=TOUCHES, k=st.integers(1, 5))
@settings(deadline=None)
def test_run_equals_counting_again_before_every_event(touches: list[Touch], k: int) -> None:
    stream = stream_of(touches)
    seconds = (stream.ts - YEAR_2000_S).tolist()
    lists = run(stream, k, HALF_LIFE_S)
    for (n, _, recent), row in zip(queries(stream), lists, strict=True):
        epoch = math.floor(seconds[n] / HALF_LIFE_S)
        past = [(ITEM_IDS[stream.item[m]], 1.0, seconds[m]) for m in range(n)]
        scores = plain_scores(past, int(epoch * HALF_LIFE_S), HALF_LIFE_S)
        best = sorted(scores, key=lambda item: (-plain_rounded(scores[item], epoch), item))
        assert shown(row) == [item for item in best if item != ITEM_IDS[recent[0]]][:k]


@given(touches=counts)
@settings(deadline=None)
def test_scores_are_decayed_sums_whatever_the_order(touches: list[tuple[str, int, int]]) -> None:
    model = Popularity(HALF_LIFE_S)
    for item, weight, ts in touches:
        model.learn_one("ann", item, weight, {"ts": ts})
    expected = plain_scores([(i, float(w), t) for i, w, t in touches], model.latest_s, HALF_LIFE_S)
    assert model.scores() == pytest.approx(expected, rel=1e-9)
    for item, score in expected.items():
        assert model.predict_one("bob", item) == pytest.approx(score, rel=1e-9)
        assert model.predict_one("bob", item, {"ts": model.latest_s + 8}) == pytest.approx(score / 2, rel=1e-9)


@given(kept=counts, forgotten=counts)
@settings(deadline=None)
def test_what_was_learned_can_be_subtracted(
    kept: list[tuple[str, int, int]], forgotten: list[tuple[str, int, int]]
) -> None:
    model = Popularity(half_life_s=100.0)
    for item, weight, ts in kept + forgotten:
        model.add(item, weight, ts)
    for item, weight, ts in forgotten:
        model.add(item, -weight, ts)
    expected = plain_scores([(i, float(w), t) for i, w, t in kept], model.latest_s, 100.0)
    got = model.scores()
    for item in "abcdef":
        assert got.get(item, 0.0) == pytest.approx(expected.get(item, 0.0), rel=1e-9, abs=1e-9)


def test_decay_is_exact_over_whole_half_lives() -> None:
    model = Popularity(half_life_s=60)
    model.add("tent", 3.0, 0)
    model.add("mat", 1.0, 60 * 50)
    assert model.predict_one("", "tent") == 3.0 * 2.0**-50


def test_an_infinite_half_life_counts() -> None:
    model = Popularity(half_life_s=math.inf)
    for ts in (0, 10**9):
        model.add("tent", 1.0, ts)
    assert model.recommend(None) == [("tent", 2.0)]


def test_equal_scores_rank_by_text() -> None:
    model = Popularity()
    for item in ("b", "a", "c", "a", "b", "c"):
        model.add(item, 0.1, 5)
    assert [item for item, _ in model.recommend(None, 2)] == ["a", "b"]
    assert model.leaders(2) == [(["a", "b"], [1.0, 1.0])]


def test_drops_the_weakest_above_its_bound() -> None:
    model = Popularity(max_items=10)
    for n in range(10):
        model.add(f"i{n}", 2.0 + n, 0)
    model.add("new", 100.0, 0)
    assert [item for item, _ in model.recommend(None)] == ["new", *(f"i{n}" for n in range(9, 1, -1))]


@bounded
@given(
    touches=counts,
    told=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from([0.0, 0.5, 1.0, 3.0]), st.integers(0, 60))),
    groups=st.lists(st.integers(-1, 2), min_size=6, max_size=6),
    hidden=st.sets(st.sampled_from("abcdefgh")),
    k=st.integers(1, 4),
)
def test_leaders_are_the_best_of_every_group(
    touches: list[tuple[str, int, int]],
    told: list[tuple[str, float, int]],
    groups: list[int],
    hidden: set[str],
    k: int,
) -> None:
    group_of = dict(zip("abcdef", groups, strict=True))
    model = Popularity(HALF_LIFE_S)
    for item, weight, ts in touches:
        model.add(item, weight, ts)
        group_of[item] = -1  # counted here, until someone says where it is listed
    for item, value, epoch in told:
        model.replace([item], [value], [epoch], [groups["abcdef".index(item)]])
        group_of[item] = groups["abcdef".index(item)]
    scores = plain_scores([(i, float(w), t) for i, w, t in touches], 0, HALF_LIFE_S)
    scores |= {item: value * 2.0**epoch for item, value, epoch in told}
    for number, (items, shares) in enumerate(model.leaders(k, 3, hidden)):
        shown = {i: s for i, s in scores.items() if s > 0 and group_of[i] == number and i not in hidden}
        best = sorted(shown, key=lambda item: (-plain_rounded(shown[item], 0), item))[:k]
        assert items == best
        assert shares == pytest.approx([shown[item] / shown[best[0]] for item in best], rel=1e-9)
    everyone = {i: s for i, s in scores.items() if s > 0 and i not in hidden}
    ((items, _),) = model.leaders(k, None, hidden)
    assert items == sorted(everyone, key=lambda item: (-plain_rounded(everyone[item], 0), item))[:k]


@pytest.mark.parametrize(("half_life_s", "max_items"), [(0.0, 1), (-1.0, 1), (math.nan, 1), (1.0, 0)])
def test_refuses_parameters_out_of_range(half_life_s: float, max_items: int) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        Popularity(half_life_s, max_items)

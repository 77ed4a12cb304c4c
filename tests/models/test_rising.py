from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.rising import Rising
from tests.plain import bounded, equal_arrays

SHORT_S, LONG_S, DOUBT = 20.0, 200.0, 2.0
counts = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 3), st.integers(0, 600)), min_size=1, max_size=40)
Touch = tuple[str, int, int]


def plain_trend(touches: list[Touch], item: str) -> float:
    """The definition: every touch by itself, decayed to the newest."""
    now = max(ts for *_, ts in touches)

    def decayed(half_life_s: float, of: str | None = None) -> float:
        return sum(w * 2 ** ((ts - now) / half_life_s) for i, w, ts in touches if of in (None, i))

    expected = decayed(SHORT_S) * decayed(LONG_S, item) / decayed(LONG_S)
    return (decayed(SHORT_S, item) + DOUBT) / (expected + DOUBT)


def taught(touches: list[Touch]) -> Rising:
    model = Rising(SHORT_S, LONG_S, DOUBT)
    for item, weight, ts in touches:
        model.learn_one("ann", item, weight, {"ts": ts})
    return model


@given(touches=counts)
@bounded
def test_trends_equal_the_definition_whatever_the_order(touches: list[Touch]) -> None:
    model = taught(touches)
    expected = {item: plain_trend(touches, item) for item in {item for item, *_ in touches}}
    for item, trend in expected.items():
        assert model.trend(item) == pytest.approx(trend, rel=1e-6)
    above = {item: trend - 1 for item, trend in expected.items() if trend > 1 + 1e-6}
    assert {i: s for i, s in model.scores().items() if s > 1e-6} == pytest.approx(above, rel=1e-4, abs=1e-6)
    again = Rising(SHORT_S, LONG_S, DOUBT)
    again.restore(model.arrays())
    assert again.scores() == model.scores()
    assert equal_arrays(again.arrays(), model.arrays())


@given(kept=counts, gone=counts)
@bounded
def test_what_was_learned_can_be_subtracted(kept: list[Touch], gone: list[Touch]) -> None:
    model = taught(kept + gone)
    for item, weight, ts in gone:
        model.learn_one("ann", item, -weight, {"ts": ts})
    model.latest_s = max(ts for *_, ts in kept)
    for item in {item for item, *_ in kept}:
        assert model.trend(item) == pytest.approx(plain_trend(kept, item), rel=1e-5)


@given(touches=counts)
@bounded
def test_twice_the_traffic_of_all_changes_no_share(touches: list[Touch]) -> None:
    once, twice = Rising(SHORT_S, LONG_S, 1.0), Rising(SHORT_S, LONG_S, 2.0)
    for item, weight, ts in touches:
        once.learn_one("", item, weight, {"ts": ts})
        twice.learn_one("", item, 2 * weight, {"ts": ts})
    for item in "abcde":
        assert twice.trend(item) == pytest.approx(once.trend(item), rel=1e-6)


def test_a_night_is_no_fall_and_a_few_touches_are_no_rise() -> None:
    model = Rising(SHORT_S, LONG_S, doubt=5)
    for ts in range(0, 1_000, 2):
        for item in "ab":
            model.learn_one("", item, 1, {"ts": ts})
    assert model.trend("a") == pytest.approx(1, abs=1e-6)
    for ts in range(1_000, 1_200, 20):  # a tenth of the traffic
        for item in "ab":
            model.learn_one("", item, 1, {"ts": ts})
    assert model.trend("a") == pytest.approx(1, abs=1e-6)
    model.learn_one("", "new", 1, {"ts": 1_200})
    assert 1 < model.trend("new") < 1.3
    assert model.trend("never met") == 1
    assert model.predict_one("", "never met") == 0


@pytest.mark.parametrize(
    "wrong", [(0.0, 1.0, 1.0, 1), (2.0, 1.0, 1.0, 1), (1.0, 2.0, 0.0, 1), (1.0, 2.0, 1.0, 0), (math.nan, 1.0, 1.0, 1)]
)
def test_refuses_parameters_out_of_range(wrong: tuple[float, float, float, int]) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        Rising(*wrong)

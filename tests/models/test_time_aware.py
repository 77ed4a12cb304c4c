from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.covisitation import weighting
from models.ranking import query
from models.rising import Rising
from models.time_aware import TimeAware, run
from tests.plain import PlainHistories, PlainRows, bounded, plain_emit
from tests.plain import Touch as PlainTouch
from tests.streams import ITEM_IDS, TOUCHES, Touch, queries, shown, stream_of

HALF_LIFE_S, SHORT_S, LONG_S, DOUBT = 100.0, 8.0, 60.0, 2.0


@given(touches=TOUCHES, k=st.integers(1, 6))
@bounded
def test_lists_and_values_equal_the_formula_step_by_step(touches: list[Touch], k: int) -> None:
    stream = stream_of(touches)
    rows = run(stream, k, HALF_LIFE_S, SHORT_S, LONG_S, DOUBT)
    asked = {n: row for (n, _, _), row in zip(queries(stream), rows, strict=True)}
    model = TimeAware(HALF_LIFE_S, SHORT_S, LONG_S, DOUBT)
    seconds = (stream.ts - stream.ts[0] if len(stream) else stream.ts).tolist()
    histories, plain = PlainHistories(20), PlainRows(100, 20, HALF_LIFE_S, 1.0)
    trend, votes = Rising(SHORT_S, LONG_S, DOUBT), query()
    for n, (key, item) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), strict=True)):
        if n in asked:
            scores: dict[int, float] = {}
            for distance, touch in histories.distances(key, votes.gap):
                row = plain.rows.get(touch.item)
                total = sum(row.cells.values()) if row else 0.0
                for other, value in row.cells.items() if row and total else ():
                    worth = float(votes.near[distance]) * value / total * trend.trend(ITEM_IDS[other])
                    scores[other] = scores.get(other, 0.0) + worth
            current = histories.recent[key][0].item
            expected = {ITEM_IDS[i]: score for i, score in scores.items() if i != current}
            assert dict(model.recommend(key, 99)) == pytest.approx(expected, abs=2e-6)
            listed = [name for name, _ in model.recommend(key, k)]
            assert [round(expected[name], 5) for name in shown(asked[n])] == pytest.approx(
                [round(expected[name], 5) for name in listed], abs=2e-5
            )
        visits = plain_emit(histories, [PlainTouch(key, item, 0, seconds[n])], weighting())
        plain.learn(visits)
        model.learn_one(key, ITEM_IDS[item], 1, {"ts": seconds[n]})
        trend.learn_one(key, ITEM_IDS[item], 1, {"ts": seconds[n]})
    for item, plain_row in plain.rows.items():
        total = sum(plain_row.cells.values())
        value = sum(v / total * trend.trend(ITEM_IDS[other]) for other, v in plain_row.cells.items()) if total else 0.0
        assert model.value(ITEM_IDS[item]) == pytest.approx(value, rel=1e-6)


def test_without_trends_it_is_the_mean_of_ones() -> None:
    model = TimeAware(doubt=1e12)
    for user in range(5):
        for item in ("tent", "mat", "stove"):
            model.learn_one(user, item, 1, {"ts": user})
    assert model.value("tent") == pytest.approx(1.0)  # rows sum to 1
    assert model.value("never met") == 0.0


def test_of_two_that_follow_alike_the_rising_one_comes_first() -> None:
    model = TimeAware(short_s=60, long_s=3_600, doubt=1)
    for n in range(40):
        for item in ("tent", "mat" if n % 2 else "stove"):
            model.learn_one(f"u{n}", item, 1, {"ts": 60 * n})
    for n in range(30):
        model.learn_one(f"v{n}", "mat", 1, {"ts": 2_400})
    model.learn_one("ann", "tent", 1, {"ts": 2_400})
    (first, high), (second, low) = model.recommend("ann")
    assert (first, second) == ("mat", "stove")
    assert high > 2 * low

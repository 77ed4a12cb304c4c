from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.histories import Histories, Touches
from models.neighbour_rows import NeighbourRows
from models.rating_similarity import emit_ratings, retract_ratings
from models.tencent_rec import TencentRec, run
from tests.plain import bounded, deltas_of, same_values, values_of, visits_of
from tests.streams import ITEM_IDS, TOUCHES, queries, shown, stream_of
from tests.streams import Touch as StreamTouch

Action = tuple[str, str, str, int]  # user, item, action, seconds
WEIGHTS = {"view_item": 1.0, "add_to_cart": 2.0, "purchase": 3.0}
HALF_LIFE_S = 50.0
actions = st.lists(
    st.tuples(st.sampled_from("uvw"), st.sampled_from("abcde"), st.sampled_from(sorted(WEIGHTS)), st.integers(0, 300)),
    max_size=40,
)


class PlainRec:
    """The formulas over whole histories, computed anew for every question; everything is worth what it is at 0 s."""

    def __init__(self, half_life_s: float, fade: float) -> None:
        self.half_life_s, self.fade = half_life_s, fade
        self.touches: dict[str, list[tuple[str, float, int]]] = {}

    def learn(self, user: str, item: str, weight: float, ts: int) -> None:
        mine = self.touches.setdefault(user, [])
        if not mine or mine[-1][0] != item or mine[-1][1] < weight:  # what a history keeps
            mine.append((item, weight, ts))

    def rating(self, user: str, item: str) -> float:
        return max(
            (w * 2 ** (ts / self.half_life_s) for i, w, ts in self.touches.get(user, []) if i == item), default=0.0
        )

    def similarity(self, p: str, q: str) -> float:
        common = sum(min(self.rating(user, p), self.rating(user, q)) for user in self.touches)
        sums = [sum(self.rating(user, item) for user in self.touches) for item in (p, q)]
        return common / math.sqrt(sums[0] * sums[1]) if min(sums) > 0 else 0.0

    def scores(self, user: str, items: Sequence[str]) -> dict[str, float]:
        mine = self.touches.get(user, [])
        recent = list(dict.fromkeys(item for item, _, _ in reversed(mine)))
        now = 2 ** (mine[-1][2] / self.half_life_s) if mine else 1.0
        near = [float(np.float32(i) ** np.float32(-self.fade)) for i in range(1, len(recent) + 1)]
        found = {
            p: sum(
                weight * self.rating(user, q) / now * self.similarity(p, q)
                for weight, q in zip(near, recent, strict=True)
                if q != p
            )
            for p in items
            if recent and p != recent[0]
        }
        return {item: score for item, score in found.items() if score > 0}


@given(events=actions)
@bounded
def test_scores_similarities_and_ratings_equal_the_formulas_step_by_step(events: list[Action]) -> None:
    model, plain = TencentRec(WEIGHTS, HALF_LIFE_S, fade=1.0, history=100), PlainRec(HALF_LIFE_S, 1.0)
    for user, item, action, ts in events:
        model.learn_one(user, item, 1, {"ts": ts, "action": action})
        plain.learn(user, item, WEIGHTS[action], ts)
        assert model.scores(user) == pytest.approx(plain.scores(user, "abcde"), rel=1e-5)
    for item in "abcde":
        alike = model.similarities(item)
        expected = {other: plain.similarity(item, other) for other in "abcde" if other != item}
        assert alike == pytest.approx({other: s for other, s in expected.items() if s > 0}, rel=1e-5)
        assert all(0 < similarity <= 1 + 1e-6 for similarity in alike.values())
        for user in plain.touches if alike else ():
            now = 2 ** (plain.touches[user][-1][2] / HALF_LIFE_S)
            mean = sum(s * plain.rating(user, other) / now for other, s in expected.items()) / sum(expected.values())
            assert model.expected_rating(user, item) == pytest.approx(mean, rel=1e-5)


@given(touches=TOUCHES, k=st.integers(1, 6))
@bounded
def test_run_equals_the_class(touches: list[StreamTouch], k: int) -> None:
    stream = stream_of(touches)
    rows = run(stream, k, HALF_LIFE_S)
    model = TencentRec({"view_item": 1.0}, HALF_LIFE_S)
    asked = {n: row for (n, _, _), row in zip(queries(stream), rows, strict=True)}
    seconds = (stream.ts - 946_684_800).tolist()
    for n, (key, item) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), strict=True)):
        if n in asked:
            assert shown(asked[n]) == [name for name, _ in model.recommend(key, k)]
        model.learn_one(key, ITEM_IDS[item], 1, {"ts": seconds[n]})


@given(kept=actions, gone=actions)
@bounded
def test_a_forgotten_user_leaves_nothing(kept: list[Action], gone: list[Action]) -> None:
    model, plain = (TencentRec(WEIGHTS, HALF_LIFE_S, history=100) for _ in range(2))
    for user, item, action, ts in gone:
        model.learn_one("gone" + user, item, 1, {"ts": ts, "action": action})
    for user, item, action, ts in kept:
        for each in (model, plain):
            each.learn_one(user, item, 1, {"ts": ts, "action": action})
    for user in {user for user, *_ in gone}:
        model.forget_one("gone" + user)
        assert model.scores("gone" + user) == {}
    for item in "abcde":
        assert model.similarities(item) == pytest.approx(plain.similarities(item), rel=1e-6, abs=1e-6)


@given(events=actions)
@bounded
def test_deltas_cross_in_any_order_and_are_taken_back(events: list[Action]) -> None:
    columns = Touches(
        np.array(["uvw".index(user) for user, *_ in events], dtype=np.int32),
        np.array(["abcde".index(item) for _, item, *_ in events], dtype=np.int32),
        np.array([sorted(WEIGHTS).index(action) for *_, action, _ in events], dtype=np.uint8),
        np.array([ts for *_, ts in events], dtype=np.uint32),
        np.zeros(len(events), dtype=np.bool_),
    )
    kinds = np.array([WEIGHTS[name] for name in sorted(WEIGHTS)], dtype=np.float32)
    histories = Histories(100)
    histories.reserve(3)
    deltas = emit_ratings(histories.arrays, columns, kinds, HALF_LIFE_S)
    rows, turned = (NeighbourRows(10, 1, HALF_LIFE_S) for _ in range(2))
    partition = np.zeros(5, dtype=np.int32)
    for each in (rows, turned):
        each.reserve(5)
    rows.learn(deltas, partition)
    turned.learn(deltas_of(visits_of(deltas)[::-1]), partition)
    assert same_values(values_of(rows), values_of(turned), within=1e-6)
    rows.learn(retract_ratings(histories, np.arange(3, dtype=np.int32), kinds, HALF_LIFE_S), partition)
    assert all(abs(value) < 1e-4 * 2 ** (300 / HALF_LIFE_S) for value in values_of(rows).values())


def test_a_bound_on_users_and_items_and_actions() -> None:
    model = TencentRec(max_users=2, max_items=2)
    for user, item in [
        ("ann", "tent"),
        ("ann", "mat"),
        ("ann", "axe"),
        ("bob", "tent"),
        ("ann", "mat"),
        ("cyd", "tent"),
    ]:
        model.learn_one(user, item, 1)
    model.learn_one("cyd", "mat", 1, {"action": "sneeze"})
    assert [item for item, _ in model.recommend("cyd")] == ["mat"]
    assert model.recommend("bob") == []  # silent for longest
    assert model.similarities("axe") == {}
    model.forget_one("ann")
    model.forget_one("nobody")
    model.learn_one("dan", "tent", 1)
    assert model.recommend("dan") == []
    with pytest.raises(ValueError, match="actions must be"):
        TencentRec({})

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.biased_mf import PENALTY, RATE, BiasedMF, run
from models.evaluation import prepare
from tests.plain import bounded, equal_arrays
from tests.streams import ITEM_IDS

ratings = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(1, 5)), max_size=40)


class PlainMF:
    """Stochastic gradient as it is written, with the first tastes that the model drew."""

    def __init__(self, model: BiasedMF) -> None:
        self.drawn, self.seen, self.mean = model, 0, 0.0
        self.bias: dict[str, float] = {}
        self.taste: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}

    def predict(self, user: str, item: str) -> float:
        both = float(self.taste[user] @ self.taste[item]) if {user, item} <= self.taste.keys() else 0.0
        return self.mean + self.bias.get(user, 0.0) + self.bias.get(item, 0.0) + both

    def learn(self, user: str, item: str, y: float) -> None:
        self.seen += 1
        self.mean += (y - self.mean) / self.seen
        error = 2 * (self.predict(user, item) - y)
        for key in (user, item):
            bias = self.bias.get(key, 0.0)
            self.bias[key] = bias - RATE * (error + PENALTY * bias)
        u, i = self.taste[user], self.taste[item]
        self.taste[user] = u - RATE * (error * i + PENALTY * u)
        self.taste[item] = i - RATE * (error * u + PENALTY * i)


@given(events=ratings)
@bounded
def test_predictions_equal_plain_gradient_steps(events: list[tuple[int, int, int]]) -> None:
    model = BiasedMF(seed=3)
    plain = PlainMF(model)
    for user, item, stars in events:
        name, title = f"u{user}", f"i{item}"
        assert model.predict_one(name, title) == pytest.approx(plain.predict(name, title), abs=1e-9)
        for key, latents in ((name, model._model.u_latents), (title, model._model.i_latents)):
            if key not in plain.taste:
                plain.taste[key] = latents[key].copy()  # drawn now, as learning would
        model.learn_one(name, title, stars)
        plain.learn(name, title, stars)
        assert model.predict_one(name, title) == pytest.approx(plain.predict(name, title), abs=1e-9)
    again = BiasedMF(seed=3)
    again.restore(model.arrays())
    assert equal_arrays(again.arrays(), model.arrays())
    assert again.recommend("u1") == model.recommend("u1")


def test_reading_makes_no_parameters() -> None:
    model = BiasedMF()
    model.learn_one("ann", "tent", 4)
    for n in range(100):
        model.predict_one(f"new{n}", f"unheard{n}")
        model.recommend(f"new{n}")
    assert [len(part) for part in (model._model.u_latents, model._model.i_latents, model._model.u_biases)] == [1, 1, 1]


def test_forgets_who_rated_longest_ago_and_who_asks_for_it() -> None:
    model = BiasedMF(max_users=2, max_items=2)
    for user, item in [("ann", "a"), ("bob", "b"), ("ann", "c"), ("cyd", "c")]:
        model.learn_one(user, item, 5)
    assert list(model._model.u_biases) == list(model._model.u_latents) == ["ann", "cyd"]
    assert [item for item, _ in model.recommend("ann")] == sorted(
        ["b", "c"], key=lambda i: -model.predict_one("ann", i)
    )
    model.forget_one("ann")
    model.forget_one("nobody")
    assert list(model._model.u_latents) == ["cyd"]


def test_run_lists_as_the_class() -> None:
    chance = np.random.default_rng(1)
    key, item = (chance.integers(0, n, 200).astype(np.int32) for n in (5, 10))
    stars = chance.integers(1, 6, 200).astype(np.float32)
    ones = np.ones(200, dtype=np.float32)
    stream = prepare(key, item, np.arange(200), ones, ITEM_IDS, 0.5, rating=stars)
    lists, model, queries = run(stream, 3), BiasedMF(), 0
    for n, (who, what) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), strict=True)):
        if stream.scored[n]:
            current = ITEM_IDS[stream.item[stream.previous[n]]]
            best = [ITEM_IDS.index(title) for title in _named(model, who) if title != current][:3]
            assert lists[queries].tolist() == best
            queries += 1
        model.learn_one(who, what, float(stream.rating[n]))
    assert (run(prepare(key, item, np.arange(200), ones, ITEM_IDS), 3) == -1).all()


def _named(model: BiasedMF, user: int) -> list[str]:
    """The model knows items by index here; ties are by id, and there are none."""
    return [ITEM_IDS[int(title)] for title, _ in model.recommend(user)]

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.text_features import Facts, categories, features, price_bands, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Trail-Running SHOE, 2nd gen.", ["trail", "running", "shoe", "2nd", "gen"]),
        ("帐篷双人", ["帐篷", "篷双", "双人"]),
        ("猫", ["猫"]),
        ("ﾃﾝﾄ", ["テン", "ント"]),  # half-width kana are the same letters
        ("キャンプ用 LEDライト", ["キャ", "ャン", "ンプ", "プ用", "led", "ライ", "イト"]),
        ("เต็นท์", ["เต", "ต็", "็น", "นท", "ท์"]),  # marks stay with their letters
        ("Größe café", ["grösse", "café"]),
        ("हिन्दी किताब", ["हिन्दी", "किताब"]),
        ("한국어 책", ["한국어", "책"]),
        ("⛺ - !", []),
    ],
)
def test_words_and_pairs_of_characters(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


@given(st.text(), st.text(), st.text(), st.lists(st.text(max_size=5)), st.floats() | st.none(), st.integers(1, 8))
@settings(deadline=None)
def test_features_of_anything_are_distinct_positive_and_bounded(
    title: str, text: str, category: str, tags: list[str], price: float | None, size: int
) -> None:
    facts = Facts(title, text, category, tuple(tags), price)
    found = features(facts, size, 64)
    places = found.place.tolist()
    assert len(places) == len(set(places)) == len(found.weight) <= size
    assert all(0 <= place < 64 for place in places)
    assert all(0 < weight < math.inf for weight in found.weight.tolist())
    again = features(facts, size, 64)
    assert np.array_equal(found.place, again.place)
    assert np.array_equal(found.weight, again.weight)


def test_a_field_has_its_strength_however_long_it_is() -> None:
    for title in ("tent", "tent for two persons with a porch"):
        found = features(Facts(title), 50)
        assert float((found.weight**2).sum()) == pytest.approx(1.0, rel=1e-6)
    assert float(features(Facts(tags=("red", "new")), 50).weight[0]) == pytest.approx(0.7 / math.sqrt(2))


def test_a_long_text_is_cut() -> None:
    assert len(tokens("a " * 10_000)) == 2_000


def test_a_path_is_also_in_its_parents() -> None:
    deep, parent = (features(Facts(category=c), 9).place.tolist() for c in ("a.b.c", "a.b"))
    assert set(parent) < set(deep)
    assert len(deep) == 3
    assert categories(" Comedy |Drama|") == ["Comedy", "Drama"]


def test_near_prices_share_a_band_and_far_ones_do_not() -> None:
    bands = {price: dict(price_bands(price)) for price in (100.0, 110.0, 200.0)}
    assert bands[100.0].keys() & bands[110.0].keys()
    assert not bands[100.0].keys() & bands[200.0].keys()
    assert all(sum(shares.values()) == pytest.approx(1) for shares in bands.values())
    assert [price_bands(price) for price in (None, -1.0, math.nan, math.inf)] == [[]] * 4

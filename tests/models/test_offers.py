from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stream.demo
from models.offer_table import OfferTable, build_table
from models.offers import (
    Offer,
    OfferError,
    ScoredOffer,
    Shopper,
    decode_offer,
    encode_offer,
    is_eligible,
    load_offers,
    score_offers,
)
from stream.demo.shop import Shop

DEMO = Path(str(stream.demo.__file__)).with_name("offers.toml")
NOW = int(datetime(2025, 6, 15, tzinfo=UTC).timestamp())
ITEMS = {"tent": "camping", "mat": "camping", "stove": "camping", "pan": "kitchen", "vase": "home", "book": "books"}
CATEGORIES = sorted(set(ITEMS.values()))
LABELS = ["camping, high spend", "kitchen", "mixed"]


def toml(**fields: str) -> str:
    entry = {"id": "'x'", "value": "1", "items": "['tent']", **fields}
    return "[[offers]]\n" + "\n".join(f"{name} = {value}" for name, value in entry.items() if value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"value": "0"}, "value: Expected `float` > 0.0"),
        ({"value": "nan"}, "value: Expected `float` > 0.0"),
        ({"value": "inf"}, "value: must be finite"),
        ({"value": "'much'"}, "value: Expected `float`, got `str`"),
        ({"value": ""}, "Object missing required field `value`"),
        ({"price": "3"}, "Object contains unknown field `price`"),
        ({"items": ""}, "items: give items or categories"),
        ({"items": "['']"}, r"items[0]: Expected `str` of length >= 1"),
        ({"segments": "[-1]"}, r"segments[0]: Expected `int` >= 0"),
        ({"segments": "[64]"}, r"segments[0]: Expected `int` <= 62"),
        ({"min_category_affinity": "{tea = 2}"}, "min_category_affinity[...]: Expected `float` <= 1.0"),
        ({"min_cart_value": "5", "max_cart_value": "4"}, "max_cart_value: must not be below min_cart_value"),
        ({"valid_from": "2024-02-01", "valid_until": "2024-02-01"}, "valid_until: must be after valid_from"),
        ({"valid_until": "'soon'"}, "valid_until: Invalid RFC3339 encoded datetime"),
    ],
)
def test_a_bad_offer_is_one_clear_line(fields: dict[str, str], message: str) -> None:
    with pytest.raises(OfferError) as caught:
        load_offers(toml(**fields), "offers.toml")
    assert str(caught.value) == f"offers.toml: offer 'x': {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("offers", "offers.toml: not TOML: "),
        ("offer = 1", "offers.toml: unknown key 'offer', only [[offers]] is known"),
        ("offers = 1", "offers.toml: offers: write [[offers]] with double brackets"),
        (toml() + "\n" + toml(), "offers.toml: offer 'x': id: used twice"),
        (toml() + "\n" + toml(id=""), "offers.toml: offer number 2: Object missing required field `id`"),
    ],
)
def test_a_bad_file_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(OfferError) as caught:
        load_offers(text, "offers.toml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "written",
    ["2024-02-01", "'2024-02-01'", "2024-02-01T00:00:00Z", "'2024-02-01T01:00:00+01:00'", "2024-02-01T00:00:00"],
)
def test_times_are_utc_however_written(written: str) -> None:
    (offer,) = load_offers(toml(valid_from=written), "f")
    assert offer.valid_from == datetime(2024, 2, 1, tzinfo=UTC)


def test_validity_includes_its_first_second_and_not_its_end() -> None:
    offer = Offer(
        id="x",
        value=1,
        items=("tent",),
        valid_from=datetime.fromtimestamp(100.5, UTC),
        valid_until=datetime.fromtimestamp(200, UTC),
    )
    assert [is_eligible(offer, Shopper(), now) for now in (100, 101, 199, 200)] == [False, True, True, False]


def test_an_empty_file_has_no_offers() -> None:
    assert load_offers("", "f") == []


def test_demo_offers_are_about_the_demos_shop() -> None:
    offers = load_offers(DEMO.read_text(), DEMO.name)
    shop = Shop()
    items = {product.item_id for product in shop.products}
    categories = {product.category for product in shop.products}
    assert all(set(offer.items) <= items for offer in offers)
    assert all({*offer.categories, *offer.min_category_affinity} <= categories for offer in offers)
    assert sum(offer.until_s <= NOW for offer in offers) == 1
    assert any(offer.segments for offer in offers)
    assert any(offer.min_cart_value for offer in offers)


shares = st.floats(0, 1, width=16)
moments = st.one_of(st.none(), st.integers(NOW - 3, NOW + 3).map(lambda s: datetime.fromtimestamp(s, UTC)))


@st.composite
def offers_(draw: st.DrawFn) -> list[Offer]:
    made = []
    for number in range(draw(st.integers(0, 6))):
        items = draw(st.sets(st.sampled_from(sorted(ITEMS)), max_size=3))
        categories = draw(st.sets(st.sampled_from(CATEGORIES), max_size=2))
        lower = draw(st.sampled_from([0.0, 10.0, 50.0]))
        made.append(
            Offer(
                id=f"o{number}",
                items=tuple(sorted(items or {"tent"})),
                categories=tuple(sorted(categories)),
                value=draw(st.floats(0.5, 20, width=16)),
                valid_from=draw(moments),
                valid_until=draw(moments),
                segments=tuple(draw(st.lists(st.sampled_from([0, 1, 2, 62, "camping", "kitchen"]), max_size=2))),
                min_category_affinity=draw(st.dictionaries(st.sampled_from(CATEGORIES), shares, max_size=2)),
                min_cart_value=lower,
                max_cart_value=draw(st.sampled_from([None, lower, lower + 30])),
            )
        )
    return made


@st.composite
def shoppers(draw: st.DrawFn) -> Shopper:
    segment = draw(st.integers(-1, 2))
    liked = draw(st.dictionaries(st.sampled_from(CATEGORIES), shares, max_size=3))
    return Shopper(segment, LABELS[segment] if segment >= 0 else "", liked, draw(st.sampled_from([0.0, 10.0, 55.0])))


neighbours = st.dictionaries(st.sampled_from(sorted(ITEMS)), st.floats(0, 100, width=16), max_size=6).map(
    lambda scores: dict(sorted(scores.items()))  # sums in the same order as in from_table
)


@settings(deadline=None)  # a busy machine is no failure
@given(offers_())
def test_topic_records_survive_the_way(offers: list[Offer]) -> None:
    valid = [offer for offer in offers if offer.from_s < offer.until_s]
    assert [decode_offer(encode_offer(offer)) for offer in valid] == valid


@pytest.mark.parametrize("data", [b"", b"[]", b'{"id":"x"}', b'{"id":"x","value":1}', b"\xff"])
def test_bad_topic_records_are_refused(data: bytes) -> None:
    with pytest.raises(OfferError, match=r"^topic offers: "):
        decode_offer(data)


def from_table(table: OfferTable, scores: dict[str, float], shopper: Shopper) -> list[ScoredOffer]:
    """What the ranking kernel does, by the arrays alone."""
    total = sum(scores.values())
    found: dict[int, list[tuple[float, str]]] = {}
    for item, score in sorted(scores.items()):
        i, c = sorted(ITEMS).index(item), CATEGORIES.index(ITEMS[item])
        rows = set(table.item_offers[slice(*table.item_start[i : i + 2])]) if i + 1 < len(table.item_start) else set()
        if c + 1 < len(table.category_start):
            rows |= set(table.category_offers[slice(*table.category_start[c : c + 2])])
        for row in rows if score > 0 else ():
            found.setdefault(int(row), []).append((score / total * table.value[row], item))
    ranked = []
    for row, parts in found.items():
        bit = int(table.segments[row]) >> (shopper.segment if shopper.segment >= 0 else 63) & 1
        likes = all(
            shopper.category_shares.get(CATEGORIES[table.affinity_category[a]], 0.0) >= table.affinity_share[a]
            for a in range(table.affinity_start[row], table.affinity_start[row + 1])
        )
        fits = table.min_cart[row] <= shopper.cart_value <= table.max_cart[row]
        if bit and likes and fits and table.from_s[row] <= NOW < table.until_s[row]:
            why = min(parts, key=lambda part: (-part[0], part[1]))[1]
            ranked.append(ScoredOffer(table.ids[row], float(sum(part for part, _ in parts)), why))
    return sorted(ranked, key=lambda scored: (-scored.score, scored.offer_id))[:3]


def close(a: list[ScoredOffer], b: list[ScoredOffer]) -> bool:
    return sorted(x.offer_id for x in a) == sorted(x.offer_id for x in b) and np.allclose(
        sorted(x.score for x in a), sorted(x.score for x in b)
    )


@settings(deadline=None)  # a busy machine is no failure
@given(offers_(), shoppers(), neighbours)
def test_the_table_says_the_same_as_the_reference(
    offers: list[Offer], shopper: Shopper, scores: dict[str, float]
) -> None:
    table = build_table(offers, sorted(ITEMS).index, CATEGORIES.index, LABELS)
    reference = score_offers(scores, offers, shopper, NOW, category_of=ITEMS.get)
    assert close(from_table(table, scores, shopper), reference)


@settings(deadline=None)  # a busy machine is no failure
@given(offers_(), shoppers(), neighbours)
def test_scores_are_values_weighted_by_probabilities(
    offers: list[Offer], shopper: Shopper, scores: dict[str, float]
) -> None:
    found = score_offers(scores, offers, shopper, NOW, category_of=ITEMS.get)
    by_id = {offer.id: offer for offer in offers}
    assert len(found) <= 3
    assert [scored.score for scored in found] == sorted((scored.score for scored in found), reverse=True)
    for scored in found:
        offer = by_id[scored.offer_id]
        assert 0 < scored.score <= offer.value * (1 + 1e-9)
        assert is_eligible(offer, shopper, NOW)
        assert scored.why_item in offer.items or ITEMS[scored.why_item] in offer.categories
    doubled = score_offers({i: 2 * s for i, s in scores.items()}, offers, shopper, NOW, category_of=ITEMS.get)
    assert close(found, doubled)


def test_an_item_found_by_id_and_category_counts_once() -> None:
    offer = Offer(id="x", value=2.0, items=("tent",), categories=("camping",))
    assert score_offers({"tent": 1.0}, [offer], Shopper(), NOW, category_of=ITEMS.get) == [
        ScoredOffer("x", 2.0, "tent")
    ]

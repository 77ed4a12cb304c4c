from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.content import ContentBased, run
from models.text_features import Facts
from tests.plain_content import PlainContent
from tests.streams import ITEM_IDS, TOUCHES, Touch, queries, shown, stream_of

TITLES = ["red tent", "blue tent", "red mat", "chair", "blue chair", "lamp", "red lamp", "", "tent mat", "new"]
FACTS = tuple(Facts(title, price=5.0 + n) for n, title in enumerate(TITLES))


@given(touches=TOUCHES, length=st.integers(1, 4), k=st.integers(1, 6), ahead=st.booleans())
@settings(deadline=None)
def test_kernel_and_class_equal_the_plain_profile_step_by_step(
    touches: list[Touch], length: int, k: int, ahead: bool
) -> None:
    stream = stream_of(touches, facts=FACTS)
    rows = run(stream, k, length, 1.0, ahead=ahead)
    model = ContentBased(length, fade=1.0)
    for item, facts in reversed(list(enumerate(FACTS))):
        if ahead:
            model.describe_one(ITEM_IDS[item], {"title": facts.title, "price": facts.price})
    asked = {n: (row, recent) for (n, _, recent), row in zip(queries(stream), rows, strict=True)}
    for n, (key, item) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), strict=True)):
        if n in asked:
            row, recent = asked[n]
            best = model.recommend(key, k)
            assert shown(row) == [name for name, _ in best]
            assert ITEM_IDS[recent[0]] not in dict(best)
        facts = FACTS[item]
        known = {"title": facts.title, "price": facts.price}
        model.learn_one(key, ITEM_IDS[item], 1, known if not ahead else None)


def test_scores_are_cosines_with_the_plain_profile() -> None:
    model, plain = ContentBased(length=3, fade=1.0, dimensions=64), PlainContent(32)
    for item, title in enumerate(TITLES):
        model.describe_one(f"i{item}", {"title": title})
        plain.describe(item, Facts(title))
    for item in (3, 0, 2, 1):
        model.learn_one("ann", f"i{item}", 1)
    expected = {f"i{item}": score for item, score in plain.similar([1, 2, 0], [1, 1 / 2, 1 / 3]).items() if item != 1}
    assert model.scores("ann") == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("seen", "same", "other"),
    [
        ("双人帐篷 防水", "三人帐篷", "花园椅子"),
        ("キャンプ用テント", "二人用テント", "ガーデンチェア"),
        ("เต็นท์สองคน", "เต็นท์ครอบครัว", "เก้าอี้สนาม"),
        ("Family tent", "TENT, small", "Garden chair"),
    ],
)
def test_a_brand_new_item_is_recommended_once_its_record_is_known(seen: str, same: str, other: str) -> None:
    model = ContentBased()
    model.describe_one("seen", {"title": seen})
    model.describe_one("other", {"title": other})
    model.learn_one("ann", "seen", 1)
    assert [item for item, _ in model.recommend("ann")] in ([], ["other"])
    model.describe_one("new", {"title": same})
    assert model.recommend("ann")[0][0] == "new"
    assert model.similar("new")[0][0] == "seen"
    model.describe_one("new", {})
    assert "new" not in dict(model.recommend("ann"))


def test_a_record_that_comes_after_the_touch_counts_as_well() -> None:
    model = ContentBased()
    model.describe_one("mat", {"title": "mat", "tags": ["camping"]})
    model.learn_one("ann", "tent", 1)
    assert model.recommend("ann") == []
    model.describe_one("tent", {"title": "tent", "tags": ["camping"]})
    assert [item for item, _ in model.recommend("ann")] == ["mat"]


def test_drops_what_was_described_or_touched_longest_ago() -> None:
    model = ContentBased(max_items=10, dimensions=1 << 10)
    for n in range(10):
        model.describe_one(f"i{n}", {"title": "tent"})
    model.learn_one("ann", "i0", 1)  # touched: i1 is the oldest now
    model.learn_one("bob", "i1", 1)
    model.learn_one("ann", "i2", 1)
    model.describe_one("new", {"title": "tent"})
    assert {item for item, _ in model.recommend("ann")} == {"new", "i0", "i1", *(f"i{n}" for n in range(4, 10))}
    for n in range(30):
        model.describe_one(f"j{n}", {"title": "tent"})
    assert model.recommend("ann") == []  # what ann was on is gone, and nobody else's item took its place
    assert model.similar("unheard of") == []

"""What goes at the bounds leaves nothing to those who take its place; `test_item_similarity` says what goes."""

from __future__ import annotations

import pytest

from models.blend_ranker import BlendRanker
from models.item_similarity import ItemSimilarity
from models.rising import LONG, SHORT
from models.time_aware import TimeAware
from tests.models.test_common import events


@pytest.mark.parametrize("kind", [BlendRanker, ItemSimilarity, TimeAware])
def test_goes_on_alike_from_a_snapshot_taken_when_it_was_full(
    kind: type[BlendRanker | ItemSimilarity | TimeAware],
) -> None:
    model, other = kind(max_users=7, max_items=11), kind(max_users=7, max_items=11)
    for event in events(100):
        model.learn_one(*event)
    other.restore(model.arrays())
    for user, item, y, x in events(40, seed=2):
        for each in (model, other):
            each.learn_one(user, item, y, x)
        assert other.recommend(user) == model.recommend(user)


@pytest.mark.parametrize("bound", ["max_users", "max_items"])
def test_a_bound_of_nothing_is_refused(bound: str) -> None:
    with pytest.raises(ValueError, match="must be kept"):
        ItemSimilarity(**{bound: 0})


def test_an_item_in_anothers_place_has_none_of_its_votes() -> None:
    model = BlendRanker(max_items=3)
    for user, item in [
        ("ann", "tent"),
        ("ann", "mat"),
        ("bob", "tent"),
        ("bob", "mat"),
        ("cyd", "mat"),
        ("cyd", "hat"),
    ]:
        model.learn_one(user, item, 1, {"title": f"{item} of felt"})
    assert "tent" in dict(model.recommend("cyd"))
    place = model._items.lookup(["tent"])
    model.describe_one("axe", {"price": 5})
    assert model._items.lookup(["axe"]) == place
    assert {item for item, _ in model.recommend("cyd", 9)} == {"mat"}
    assert {item for item, *_ in model.explain("ann")} == {"hat"}


def test_an_item_in_anothers_place_rises_by_its_own_touches() -> None:
    model = TimeAware(max_items=1)
    for user in range(9):
        model.learn_one(user, "tent")
    model.learn_one("ann", "axe")
    assert model._trend.value[:, model._items.lookup(["axe"])[0]].tolist() == [1.0, 1.0]
    assert model._trend.total[[SHORT, LONG]].tolist() == [10.0, 10.0]


def test_who_takes_a_users_place_has_no_history_and_what_was_taught_stays() -> None:
    model = ItemSimilarity(max_users=1)
    for user, item in [("ann", "tent"), ("ann", "mat"), ("bob", "tent")]:
        model.learn_one(user, item)
    assert model.recommend("ann") == []
    assert model.recommend("bob") == [("mat", 0.75)]

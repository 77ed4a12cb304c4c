"""What the blend knows of candidates, and the lists it makes of that, against plain Python."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.blend_constants import RECENCY, VALUES
from models.blend_content import ADDED, LATEST, LISTED
from models.blend_features import NEW, POPULAR, SEEN
from models.blend_ranker import BlendRanker
from models.candidates import clear
from models.race import LEADER
from models.text_features import Facts
from tests.blending import FACTS, described, teach
from tests.plain_features import PlainFeatures
from tests.streams import ITEM_IDS, TOUCHES, Touch


@pytest.mark.parametrize("facts", [{}, FACTS], ids=["no catalogue", "catalogue"])
@given(touches=TOUCHES.filter(lambda touches: len(touches) > 0), lead=st.integers(0, 2), pace=st.sampled_from([1, 999]))
@settings(deadline=None)
def test_features_equal_the_plain_ones(facts: Mapping[str, Facts], touches: list[Touch], lead: int, pace: int) -> None:
    model = BlendRanker(history=8)
    model.blend.arrays.races.lead[RECENCY, LEADER] = lead
    plain = teach(model, [(user, item, gap * pace) for user, item, gap in touches], facts)
    plain.leading[RECENCY] = float(VALUES[RECENCY, lead])
    for user in plain.histories.recent:
        got, work = described(model, str(user))
        expected = {ITEM_IDS[item]: x for item, x in plain.features(user).items()}
        assert got.keys() == expected.keys()
        for item, features in got.items():
            assert features == pytest.approx(expected[item], abs=1e-4), item
        assert tuple(work.group) == plain.groups(user)


@pytest.mark.parametrize("facts", [{}, FACTS], ids=["no catalogue", "catalogue"])
@given(touches=TOUCHES.filter(lambda touches: len(touches) > 0))
@settings(deadline=None)
def test_lists_are_the_weighed_features_by_chance_with_a_reason_the_visitor_can_follow(
    facts: Mapping[str, Facts], touches: list[Touch]
) -> None:
    model = BlendRanker(history=8)
    plain = teach(model, touches, facts)
    for number in plain.histories.recent:
        user, ring = str(number), [ITEM_IDS[item] for item in plain.ring(number)]
        got, work = described(model, user)
        learner = model.blend.arrays.learner
        weight = learner.weight[0] + learner.weight[work.group[0]] + learner.weight[work.group[1]]
        scores = {item: float(weight @ x) for item, x in got.items() if item != ring[0]}
        listed = model.recommend(user)
        assert {item for item, _ in listed} == scores.keys()
        ranked = [scores[item] for item, _ in listed]
        assert all(a >= b - 2e-5 for a, b in pairwise(ranked))
        for item, chance in listed:
            assert chance == pytest.approx(math.exp(scores[item] - ranked[0]), abs=4e-5)
        popular = [weight[10:12] @ x[10:12] for item, x in got.items() if item != ring[0]]
        for item, reason, why in model.explain(user):
            parts = parts_of(weight, got[item]) | {"popular": weight[10:12] @ got[item][10:12] - np.mean(popular)}
            assert max(parts[reason], 0.0) >= max(0.0, *parts.values()) - 1e-5
            assert (why is None) == (reason == "popular")
            assert why is None or why in ring
            assert reason != "repeat" or why == item
            assert reason != "transition" or ITEM_IDS.index(item) in plain.steps(plain.ring(number)[0])
            assert reason != "covisit" or (why is not None and ITEM_IDS.index(item) in plain.row(ITEM_IDS.index(why)))
            assert reason != "content" or (why is not None and _likeness(plain, why, item) == _most(plain, ring, item))


def parts_of(weight: NDArray[np.float32], x: list[float]) -> dict[str, float]:
    """What each model of the visitor's own adds to the score of an item."""
    spans = {"covisit": (0, 3), "transition": (3, 4), "sessions": (4, 5), "walk": (5, 6), "repeat": (6, 10)}
    added = spans | {"content": (12, 13)}
    return {name: float(weight[first:end] @ np.array(x[first:end])) for name, (first, end) in added.items()}


def _likeness(plain: PlainFeatures, one: str, other: str) -> float:
    alike = plain.content.similar([ITEM_IDS.index(one)], [1.0])
    return round(alike.get(ITEM_IDS.index(other), 0.0), 6)


def _most(plain: PlainFeatures, ring: list[str], item: str) -> float:
    return max(_likeness(plain, own, item) for own in list(dict.fromkeys(ring))[:LATEST])


def test_desk_is_clean_after_every_list() -> None:
    model = BlendRanker()
    teach(model, [(n % 3, n % 7, 1) for n in range(40)])
    features, work = described(model, "0")
    assert len(features) == 7
    clear(work.candidates, len(features))
    assert not work.candidates.place.any()
    assert not work.candidates.x.any()
    assert not work.candidates.total.any()
    assert not work.matches.table.any()


def test_what_nobody_touched_is_a_candidate_if_it_is_alike_and_says_why() -> None:
    model = BlendRanker()
    teach(model, [(n % 3, n % 2, 1) for n in range(12)], FACTS)
    known = {item: reason for item, *reason in model.explain("0")}
    ring = model._items.texts(np.array(model._histories.recent(0), dtype=np.int32))
    alike = {item for item in FACTS if any(FACTS[item].title == FACTS[own].title for own in ring)} - set(ITEM_IDS[:2])
    assert alike
    assert alike <= known.keys()
    assert all(known[item][0] == "content" and known[item][1] in ring for item in alike)


def test_what_a_visitor_saw_is_not_new_though_it_is_not_counted() -> None:
    model = BlendRanker()
    teach(model, [(0, 0, 1), (0, 1, 1), (0, 2, 1)])
    model.blend.drop_items(model._items.lookup([ITEM_IDS[0]]))
    features, _ = described(model, "0")
    said = features[ITEM_IDS[0]]
    assert (said[SEEN], said[NEW], said[POPULAR]) == (1, 0, 0)


def test_search_in_content_is_bounded() -> None:
    """However many items are alike, no more become candidates, and the latest described come first."""
    model = BlendRanker()
    teach(model, [(0, 0, 1)])
    for n in range(5 * LISTED):
        model.describe_one(f"n{n:04}", {"title": "red"})
    model.describe_one(ITEM_IDS[0], {"title": "red"})
    features, _ = described(model, "0")
    assert len(features) == 1 + ADDED
    listed = {f"n{n:04}" for n in range(4 * LISTED, 5 * LISTED)}
    assert features.keys() - {ITEM_IDS[0]} <= listed

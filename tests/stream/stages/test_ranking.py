"""The blend inside the user stage: lists with reasons, what is forgotten, what partitions tell each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import models.blend
from models.blend_lists import LESSONS
from models.offers import Offer
from models.postings import FILLED, FIRST
from models.ranking import REASONS
from models.text_features import Facts
from stream.demo.shop import Shop
from stream.keys import Keys, Recommendations, parse_list, parse_offers
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages import reclaiming
from stream.stages.user_shard import UserRules
from tests.records import event, publish, read, record

KEYS = Keys()
SHOP = list(Shop(seed=3, users=60, concurrent=6).events(900))
BLEND, COVISIT = UserRules(), UserRules(ranking="covisit")
FROZEN = UserRules(blend_frozen=True)


def ran(
    rules: UserRules, events: list[dict[str, Any]] = SHOP, partitions: int = 1, batch: int = 2_000
) -> LocalPipeline:
    pipeline = LocalPipeline(MemoryStore(), rules, partitions=partitions, item_partitions=1, batch=batch)
    publish(pipeline, events)
    return pipeline


def lists(pipeline: LocalPipeline) -> dict[bytes, Recommendations]:
    store = pipeline.store
    assert isinstance(store, MemoryStore)
    return {key: parse_list(read(store, key) or b"") for key in store if key.endswith(b":recs")}


@pytest.fixture(scope="module")
def blended() -> LocalPipeline:
    return ran(BLEND, batch=60)


def test_each_item_of_a_list_has_a_reason_the_visitor_can_follow(blended: LocalPipeline) -> None:
    shard, space = blended.users.shards[0], blended.space
    found = lists(blended)
    assert len(found) > 30
    reasons = set()
    for key, listed in found.items():
        assert listed.model == "blend"
        assert listed.scores[0] == 1.0
        assert all(a >= b for a, b in pairwise(listed.scores))
        (user,) = shard.users.lookup([key.decode().split("{")[1].split("}")[0]])
        mine = set(space.ids.texts(np.array(shard.histories.recent(user), dtype=np.int32)))
        for item, (origin, reason) in zip(listed.items, listed.why, strict=True):
            assert reason in REASONS
            assert (origin is None) == (reason == "popular")
            assert origin is None or origin in mine
            assert reason != "repeat" or origin == item
            reasons.add(reason)
    assert {"covisit", "repeat", "popular"} <= reasons


def test_the_catalogue_brings_what_nobody_touched_and_nothing_once_it_is_withdrawn() -> None:
    pipeline = LocalPipeline(MemoryStore(), BLEND, partitions=1, item_partitions=1)
    touched, new = pipeline.space.encode(["tent", "tarp"])
    pipeline.space.contents.put(int(touched), Facts("Family tent", price=100.0))
    pipeline.space.contents.put(int(new), Facts("Tarp for a tent", price=40.0))
    publish(pipeline, [event("ann", "tent"), event("bob", "lamp", at=1), event("ann", "tent", at=2)])
    (found,) = (listed for key, listed in lists(pipeline).items() if b"{ann}" in key)
    assert list(zip(found.items, found.why, strict=True)) == [
        ("tarp", ("tent", "content")),
        ("lamp", (None, "popular")),
    ]
    pipeline.space.contents.put(int(new), Facts())
    assert len(pipeline.space.contents) == 1
    publish(pipeline, [event("ann", "tent", at=3)])
    (found,) = (listed for key, listed in lists(pipeline).items() if b"{ann}" in key)
    assert found.items == ["lamp"]


def test_covisitation_alone_learns_and_shows_nothing_of_the_blend() -> None:
    pipeline = ran(COVISIT)
    shard = pipeline.users.shards[0]
    assert shard.blend.lessons == 0
    assert len(shard.blend.items()) == 0
    assert "blend" not in shard.facts()
    for listed in lists(pipeline).values():
        assert listed.model == "covisit"
        assert {reason for _, reason in listed.why} == {"covisit"}


def test_frozen_weights_stay_while_all_else_is_learned(blended: LocalPipeline) -> None:
    frozen, learning = ran(FROZEN, batch=60).users.shards[0].blend, blended.users.shards[0].blend
    assert frozen.weights.tolist() == list(models.blend.PRIOR)
    assert frozen.lessons == 0
    assert learning.lessons > 100
    assert learning.weights.tolist() != frozen.weights.tolist()
    ours, theirs = frozen.arrays, learning.arrays
    assert ours.tallies.slow.tolist() == theirs.tallies.slow.tolist()
    assert ours.postings.newest.tolist() == theirs.postings.newest.tolist()


def test_what_a_partition_knows_of_its_visitors_does_not_depend_on_batches(blended: LocalPipeline) -> None:
    """Rows come from another stage, which had got further or less far; sessions and popularity do not."""
    one, other = blended.users.shards[0].blend, ran(BLEND, batch=7).users.shards[0].blend
    for name, column in one.by_item().items():
        assert other.by_item()[name].tolist() == column.tolist()
    for name in ("block", "popular", "events"):
        assert other.state()[name].tolist() == one.state()[name].tolist()
    assert other.lessons == one.lessons


def test_a_forgotten_person_is_in_no_session() -> None:
    pipeline = ran(BLEND)
    shard = pipeline.users.shards[0]
    person = max(range(len(shard.users)), key=lambda user: len(shard.histories.recent(user)))
    user = shard.users.text(person)
    assert person in members(pipeline)
    before = len(members(pipeline))
    theirs = members(pipeline).count(person)
    request = {"control": "forget", "user": user, "request": "r1", "asked_ms": SHOP[-1]["event_timestamp"] // 1000}
    pipeline.users.learn(0, [record(10_000, request)])
    assert person not in members(pipeline)
    assert len(members(pipeline)) == before - theirs


def members(pipeline: LocalPipeline) -> list[int]:
    """Users in the blocks of postings, as often as they are listed."""
    block = pipeline.users.shards[0].blend.state()["block"]
    return [int(user) for row in block for user in row[FIRST : FIRST + row[FILLED]]]


def test_a_user_dropped_from_a_full_shard_votes_for_nobody() -> None:
    visits = [event("a", item, at=n) for n, item in enumerate(("tent", "mat"))]
    pipeline = ran(
        UserRules(users=2), [*visits, event("b", "mug", at=5), event("c", "pan", at=6), event("d", "tent", at=7)]
    )
    shard = pipeline.users.shards[0]
    assert shard.counts["evicted"] >= 2
    for listed in lists(pipeline).values():
        assert "sessions" not in {reason for _, reason in listed.why}


def test_items_that_nothing_refers_to_are_forgotten_and_their_index_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaiming, "LEAST", 40)
    rules = UserRules(users=12, history=3)
    pipeline = LocalPipeline(MemoryStore(), rules, partitions=1, item_partitions=1, items=20, batch=50)
    publish(pipeline, churn(4_000))
    space, blend = pipeline.space, pipeline.users.shards[0].blend
    assert space.dropped > 500
    known = blend.items()
    assert (space.partition[known] >= 0).all()
    popular = blend.arrays.tallies.popular
    assert (space.partition[popular[popular >= 0]] >= 0).all()
    assert len(known) <= len(space.ids)


def churn(count: int) -> Iterator[dict[str, Any]]:
    """Visitors and items that come and go."""
    for n in range(count):
        yield event(f"u{n // 9}", f"i{n // 3 + n % 2}", at=n)


def test_partitions_come_together_over_the_global_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.blend, "SPEAK", 50)
    together, apart = ran(BLEND, partitions=3, batch=60), None
    assert together.globe.weights.version > 2
    assert together.users.versions["blend"] == together.globe.weights.version
    monkeypatch.setattr(models.blend, "SPEAK", 10**9)
    apart = ran(BLEND, partitions=3, batch=60)
    assert apart.globe.weights.version == 0
    assert spread(together) < 0.5 * spread(apart)
    for shard in together.users.shards.values():
        assert shard.facts()["blend"]["mean"] > 0
        assert shard.blend.arrays.counts[LESSONS] > 0


def spread(pipeline: LocalPipeline) -> float:
    """How far the partitions' weights are from each other."""
    weights = [shard.blend.weights for shard in pipeline.users.shards.values()]
    return float(np.std(weights, axis=0).sum())


def test_a_new_partition_begins_with_what_the_others_have_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.blend, "SPEAK", 50)
    pipeline = ran(BLEND, batch=60)
    mean = pipeline.users.shards[0].blend.weights
    pipeline.users.open(0, None)
    late = SHOP[-1]["event_timestamp"] / 1e6 - 1_750_000_000
    pipeline.users.learn(0, [record(0, event("first", "tent", at=late), at=late)])
    weights = pipeline.users.shards[0].blend.weights
    assert weights.tolist() != list(models.blend.PRIOR)
    assert np.abs(weights - mean).max() < 0.5 * np.abs(np.array(models.blend.PRIOR) - mean).max()


def test_frozen_partitions_neither_tell_nor_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.blend, "SPEAK", 50)
    pipeline = ran(FROZEN, partitions=2, batch=60)
    assert pipeline.globe.weights.version == 0


def test_scores_of_offers_follow_the_blend() -> None:
    """With chances that sum to 1 an offer for everything is worth what it says."""
    everything = tuple({item["item_id"] for e in SHOP for item in e.get("items", ())})
    offer = Offer(id="all", items=everything, value=4.0)
    pipeline = LocalPipeline(MemoryStore(), BLEND, partitions=1, item_partitions=1, offers=[offer])
    publish(pipeline, SHOP)
    store = pipeline.store
    assert isinstance(store, MemoryStore)
    found = [parse_offers(read(store, key) or b"") for key in store if key.endswith(b":offers")]
    assert len(found) > 20
    for offers in found:
        assert offers.offers[0].score == pytest.approx(4.0, rel=1e-5)

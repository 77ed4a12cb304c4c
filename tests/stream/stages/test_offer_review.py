"""Offers that end, are withdrawn or change leave Redis though their users do nothing; many at once cost one table."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from models.offer_table import OfferTable, build_table
from models.offers import Offer
from stream.errors import UnavailableError
from stream.keys import Keys, parse_offers
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.shard import Shard
from tests.records import T0_US, event, publish, read
from tests.user_agents import user_agent

KEYS = Keys()
MATS = Offer(id="mats", items=("mat",), value=1.0)
STOVES = Offer(id="stoves", items=("stove",), value=9.0)
SALE = Offer(id="sale", items=("stove",), value=20.0, valid_until=dt.datetime.fromtimestamp(T0_US / 1e6 + 200, dt.UTC))
VISITORS = [f"u{n}" for n in range(5)]
BASKETS = [event(user, "tent", "mat", "stove", at=n) for n, user in enumerate("abcdefgh")]


class Failing(MemoryStore):
    failing = False

    async def flush(self, batch: WriteBatch) -> None:
        if self.failing:
            raise UnavailableError("Redis is away")
        await super().flush(batch)


class Reviewer:
    """A pipeline in which every visitor was given all offers, and the agent that reviews them."""

    def __init__(self, *offers: Offer) -> None:
        self.pipeline = LocalPipeline(Failing(), partitions=1, offers=offers)
        publish(self.pipeline, BASKETS)
        publish(self.pipeline, [event(user, "tent", at=100) for user in VISITORS])
        self.shard = Shard("events", 0, 0.0, next=1, loads=1)

        self.agent = user_agent(self.pipeline)

    @property
    def store(self) -> Failing:
        assert isinstance(self.pipeline.store, Failing)
        return self.pipeline.store

    def offered(self) -> list[list[str] | None]:
        values = [read(self.store, KEYS.offers(user)) for user in VISITORS]
        return [None if value is None else [offer.id for offer in parse_offers(value).offers] for value in values]

    def review(self, times: int = 1) -> None:
        for _ in range(times):
            asyncio.run(self.agent.review(self.shard))


@pytest.fixture
def reviewer(monkeypatch: pytest.MonkeyPatch) -> Reviewer:
    monkeypatch.setattr("stream.agents.user.REVIEWED", 2)
    return Reviewer(MATS, STOVES)


@pytest.fixture
def during_sale(monkeypatch: pytest.MonkeyPatch) -> Reviewer:
    monkeypatch.setattr("stream.agents.user.REVIEWED", 2)
    reviewer = Reviewer(MATS, SALE)
    assert reviewer.offered() == [["sale", "mats"]] * 5
    return reviewer


def pass_time(reviewer: Reviewer, at: float) -> None:
    """Somebody else does something, and the agent has learned it."""
    value = msgspec.json.encode(event("z", at=at, name="login"))
    reviewer.pipeline.users.learn(0, [LocalRecord(int(999 + at), T0_US // 1000 + int(at * 1000), b"z", value)])


def test_an_offer_that_ended_leaves_redis_some_users_at_a_time(during_sale: Reviewer) -> None:
    pass_time(during_sale, 199)
    during_sale.review(8)
    assert during_sale.offered() == [["sale", "mats"]] * 5
    pass_time(during_sale, 200)
    during_sale.review(8)
    assert during_sale.offered() == [["mats"]] * 5
    assert len(during_sale.pipeline.users.outdated(0, 100)) == 0


def test_nobody_is_looked_at_when_an_offer_of_the_past_comes_again(during_sale: Reviewer) -> None:
    pass_time(during_sale, 300)
    during_sale.review(9)
    stage = during_sale.pipeline.users
    stage.offering.put(b"stoves", STOVES)
    assert len(stage.outdated(0, 100)) == 0
    stage.open(0, stage.copy(0).whole())
    assert len(stage.outdated(0, 100)) == 0


def test_who_comes_late_is_given_nothing_that_has_ended(during_sale: Reviewer) -> None:
    publish(during_sale.pipeline, [event("z", at=300, name="login"), event("late", "tent", at=150)])
    publish(during_sale.pipeline, [event("late", at=160, name="login")])
    value = read(during_sale.store, KEYS.offers("late"))
    assert value is not None
    assert [offer.id for offer in parse_offers(value).offers] == ["mats"]


def test_offers_end_without_an_agent_too(during_sale: Reviewer) -> None:
    publish(during_sale.pipeline, [event("z", at=300, name="login")])
    assert during_sale.offered() == [["mats"]] * 5


def test_a_withdrawn_offer_leaves_redis_some_users_at_a_time(reviewer: Reviewer) -> None:
    assert reviewer.offered() == [["stoves", "mats"]] * 5
    reviewer.pipeline.users.offering.put(b"stoves", None)
    others = int((reviewer.pipeline.users.shards[0].offers != 0).sum()) - 5  # who came first
    reviewer.review(-(-others // 2) + 1)
    assert ["mats"] in reviewer.offered()
    assert ["stoves", "mats"] in reviewer.offered()
    reviewer.review(3)
    assert reviewer.offered() == [["mats"]] * 5
    reviewer.pipeline.users.offering.put(b"mats", None)
    reviewer.review(8)
    assert reviewer.offered() == [None] * 5


def test_an_offer_with_other_terms_is_judged_again(reviewer: Reviewer) -> None:
    reviewer.pipeline.users.offering.put(b"stoves", msgspec.structs.replace(STOVES, min_cart_value=50.0))
    reviewer.review(8)
    assert reviewer.offered() == [["mats"]] * 5


def test_nobody_is_looked_at_where_nothing_was_taken_away(reviewer: Reviewer) -> None:
    stage = reviewer.pipeline.users
    stage.offering.put(b"tents", Offer(id="tents", items=("tent",), value=1.0))
    assert len(stage.outdated(0, 100)) == 0
    stage.offering.put(b"tents", None)  # it may have been pushed in between
    assert len(stage.outdated(0, 100)) > 0
    assert len(stage.outdated(0, 100)) == 0
    assert stage.shards[0].shelf.tolist() == sorted(stage.shards[0].shelf.tolist())
    assert len(stage.shards[0].shelf) == 2


def test_after_another_change_those_judged_before_come_again_after_the_rest(reviewer: Reviewer) -> None:
    stage = reviewer.pipeline.users
    everyone = np.flatnonzero(stage.shards[0].offers).tolist()
    stage.offering.put(b"stoves", None)
    assert stage.outdated(0, 2).tolist() == everyone[:2]
    stage.offering.put(b"mats", None)
    assert stage.outdated(0, 2).tolist() == everyone[2:4]
    stage.shards[0].users.encode([f"new-{n}" for n in range(9)])
    stage.shards[0].reserve()
    rest = [user for _ in everyone for user in stage.outdated(0, 2).tolist()]
    assert rest == everyone[4:] + everyone[:2]


def test_changes_one_after_another_keep_nobody_waiting(reviewer: Reviewer) -> None:
    stage = reviewer.pipeline.users
    everyone = np.flatnonzero(stage.shards[0].offers).tolist()
    seen = []
    for n in range(-(-len(everyone) // 2)):
        stage.offering.put(b"%d" % n, Offer(id=f"{n}", items=("mug",), value=1.0))
        seen += stage.outdated(0, 2).tolist()  # may be pushed from now on
        stage.offering.put(b"%d" % n, None)
        seen += stage.outdated(0, 2).tolist()
    assert set(seen) == set(everyone)


def test_what_is_offered_in_the_middle_of_a_review_and_withdrawn_again_is_looked_for(reviewer: Reviewer) -> None:
    stage = reviewer.pipeline.users
    stage.offering.put(b"stoves", None)
    judged = stage.outdated(0, 2).tolist()
    stage.offering.put(b"stoves", STOVES)
    stage.outdated(0, 2)
    stage.offering.put(b"stoves", None)
    assert set(judged) <= {user for _ in range(9) for user in stage.outdated(0, 2).tolist()}


def test_what_redis_did_not_take_is_written_later(reviewer: Reviewer) -> None:
    reviewer.pipeline.users.offering.put(b"stoves", None)
    reviewer.pipeline.users.offering.put(b"mats", None)
    reviewer.store.failing = True
    for _ in range(3):
        with pytest.raises(UnavailableError):
            reviewer.review()
    reviewer.store.failing = False
    reviewer.review(8)
    assert reviewer.offered() == [None] * 5


def test_a_successor_finishes_what_was_begun(reviewer: Reviewer) -> None:
    stage = reviewer.pipeline.users
    stage.offering.put(b"stoves", None)
    reviewer.review()
    stage.open(0, stage.copy(0).whole())
    reviewer.review(8)
    assert reviewer.offered() == [["mats"]] * 5
    stage.open(0, stage.copy(0).whole())
    assert len(stage.outdated(0, 100)) == 0


def test_a_shard_that_was_lost_or_stands_within_a_batch_is_left_alone(reviewer: Reviewer) -> None:
    reviewer.pipeline.users.offering.put(b"stoves", None)
    reviewer.shard.dirty = True
    reviewer.review(8)
    reviewer.shard.dirty, reviewer.shard.lost = False, True
    reviewer.review(8)
    assert reviewer.offered() == [["stoves", "mats"]] * 5


def test_many_offers_are_laid_out_once(reviewer: Reviewer, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, built = reviewer.pipeline.users, list[int]()

    def build(offers: Sequence[Offer], *rest: Any) -> OfferTable:
        built.append(len(offers))
        return build_table(offers, *rest)

    monkeypatch.setattr("stream.stages.offering.build_table", build)
    for n in range(500):
        stage.offering.put(b"%d" % n, Offer(id=f"offer-{n}", items=("mat",), value=1.0))
    assert built == []
    publish(reviewer.pipeline, [event("u0", "tent", at=200), event("u1", "tent", at=200)])
    assert built == [502]

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from models.offer_ranking import Picked
from models.offer_table import OfferTable, build_table
from models.offers import Offer
from models.profiles import ADS, ANALYTICS, DENIED, GRANTED, PERSONALISATION
from models.ranking import Lists
from stream.keys import OFFERS_TTL_S, PROFILE_TTL_S, RECS_TTL_S, Keys, parse_list, parse_offers
from stream.memory_store import MemoryStore
from stream.resp import key_of
from stream.stages.pushing import PROFILE_EVERY_MS, REFRESH_MS, Pushes, Ranked, Shelf, denied, push
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserRules, UserShard
from tests.records import T0_US, read, read_hash, written

KEYS = Keys()
T0_MS = T0_US // 1000
ITEMS = ["tent", "mat", "mug"]
USERS = ["anna", "bo:{1}"]
ENDLESS = Offer(id="a", items=("tent",), value=1.0)


def until(ms: int, name: str = "b") -> Offer:
    end = dt.datetime.fromtimestamp(ms / 1000, tz=dt.UTC)
    return Offer(id=name, items=("tent",), value=1.0, valid_until=end)


class Desk:
    """Two users, three items, and a store that remembers what was pushed."""

    def __init__(self, *offers: Offer, consent: bool = True) -> None:
        self.space = ItemSpace(1)
        self.space.encode(ITEMS)
        self.shard = UserShard(UserRules(k=2, consent=consent), 1)
        self.shard.users.encode(USERS)
        self.shard.reserve()
        self.store = MemoryStore()
        self.offers = self.table(*offers)

    def table(self, *offers: Offer) -> OfferTable:
        return build_table(offers, lambda item: int(self.space.encode([item])[0]), lambda _: 0)

    def push(
        self,
        ms: int = T0_MS,
        items: tuple[int, ...] = (1, 2),
        *,
        offers: tuple[int, ...] = (),
        moved: bool = False,
        force: bool = False,
        user: int = 0,
    ) -> Pushes:
        lists, picked = Lists.empty(1, 2), Picked.empty(1)
        lists.item[0, : len(items)] = items
        lists.micro[0, : len(items)] = np.arange(len(items), 0, -1) * 250_000
        lists.why[0, : len(items)] = 0
        picked.offer[0, : len(offers)] = offers
        picked.score[0, : len(offers)] = 0.123456789
        picked.why[0, : len(offers)] = 0
        users = np.array([user], dtype=np.int32)
        times = np.array([ms], dtype=np.int64)
        ranked = Ranked(users, times, lists, picked, np.array([moved]))
        self.shard.watermark = max(self.shard.watermark, ms * 1000)
        pushes = push(self.shard, self.space, KEYS, ranked, Shelf.of(self.offers), force=force)
        written(pushes.writes, into=self.store)
        return pushes

    def say(self, grant: int, answer: int) -> None:
        self.shard.profiles.arrays.flags[0] |= np.uint8(answer << grant)

    def keys(self, pushes: Pushes) -> set[str]:
        return {key.decode().rpartition(":")[2] for key in map(key_of, pushes.writes.frames)}


def test_one_flush_writes_list_offers_and_profile() -> None:
    desk = Desk(ENDLESS)
    pushes = desk.push(offers=(0,), user=1)
    assert pushes.lists == 1
    recs, offers = read(desk.store, KEYS.recs(USERS[1])), read(desk.store, KEYS.offers(USERS[1]))
    assert recs is not None
    assert offers is not None
    found = parse_list(recs)
    assert (found.items, found.scores, found.ts, found.model) == (["mat", "mug"], [0.5, 0.25], T0_MS, "blend")
    offered = parse_offers(offers)
    (offer,) = offered.offers
    assert (offered.ts, offer.id, offer.score, offer.why) == (T0_MS, "a", 0.123457, "tent")
    assert T0_MS < offer.until < 2**53  # readers in any language
    assert read_hash(desk.store, KEYS.profile(USERS[1]))[b"segment"] == b"-1"
    ttls = [desk.store.ttl(key(USERS[1])) for key in (KEYS.recs, KEYS.offers, KEYS.profile)]
    assert ttls == [RECS_TTL_S, OFFERS_TTL_S, PROFILE_TTL_S]


def test_what_has_not_changed_is_not_written() -> None:
    desk = Desk(ENDLESS)
    desk.push(offers=(0,))
    assert len(desk.push(offers=(0,)).writes) == 0
    assert desk.keys(desk.push(items=(2, 1), offers=(0,))) == {"recs"}
    assert desk.keys(desk.push(items=(2, 1))) == {"offers"}
    assert desk.keys(desk.push(items=(2, 1), moved=True)) == {"profile"}
    assert desk.keys(desk.push(items=(2, 1), offers=(0,), force=True)) == {"recs", "offers"}
    assert desk.keys(desk.push(items=())) == {"recs", "offers"}
    assert read(desk.store, KEYS.recs("anna")) is None
    assert len(desk.push(items=()).writes) == 0


@pytest.mark.parametrize(
    ("after", "again"),
    [(REFRESH_MS, "recs"), (PROFILE_EVERY_MS, "profile"), (OFFERS_TTL_S * 500, "offers")],
)
def test_what_has_not_changed_is_written_before_it_ends(after: int, again: str) -> None:
    desk = Desk(ENDLESS)
    desk.push(offers=(0,))
    assert again in desk.keys(desk.push(T0_MS + after, offers=(0,)))


def test_a_key_of_offers_ends_with_the_last_of_them() -> None:
    desk = Desk(until(T0_MS + 90_000, "a"), until(T0_MS + 60_000, "b"))
    desk.push(offers=(0, 1))
    assert desk.store.ttl(KEYS.offers("anna")) == 90
    desk.push(offers=(1,))
    assert desk.store.ttl(KEYS.offers("anna")) == 60


def test_a_key_of_offers_ends_with_them_though_its_user_came_long_ago() -> None:
    desk = Desk(until(T0_MS + 90_000))
    desk.shard.watermark = T0_US + 80_000_000
    desk.push(offers=(0,))
    assert desk.store.ttl(KEYS.offers("anna")) == 10


def test_a_row_of_the_table_is_no_identity() -> None:
    desk = Desk(ENDLESS)
    desk.push(offers=(0,))
    for offer in (until(T0_MS + 60_000, "b"), until(T0_MS + 70_000, "b")):
        desk.offers = desk.table(offer)
        assert desk.keys(desk.push(offers=(0,))) == {"offers"}
    desk.offers = desk.table(ENDLESS, offer)
    assert len(desk.push(offers=(1,)).writes) == 0


def test_order_and_number_of_offers_count() -> None:
    desk = Desk(ENDLESS, until(T0_MS + 60_000))
    for offers in [(0,), (1,), (0, 1), (1, 0), (0,)]:
        assert desk.keys(desk.push(offers=offers)) - {"recs", "profile"} == {"offers"}


@pytest.mark.parametrize("default", [True, False])
def test_each_grant_covers_its_own(default: bool) -> None:
    desk = Desk(ENDLESS, consent=default)
    answers = {ANALYTICS: DENIED, PERSONALISATION: GRANTED, ADS: GRANTED}
    for grant, answer in answers.items():
        user = np.array([0], dtype=np.int32)
        assert denied(desk.shard, user, grant).tolist() == [not default]
        desk.say(grant, answer)
        assert denied(desk.shard, user, grant).tolist() == [answer == DENIED]
    assert desk.keys(desk.push(offers=(0,))) == {"recs", "offers", "profile"}
    assert desk.keys(desk.push(offers=(0,), user=1)) == ({"recs", "offers", "profile"} if default else set())


def test_a_refused_list_is_removed_once() -> None:
    desk = Desk(ENDLESS)
    desk.push(offers=(0,))
    desk.say(PERSONALISATION, DENIED)
    assert desk.keys(desk.push(offers=(0,))) == {"recs", "profile"}
    assert list(desk.store) == [KEYS.offers("anna")]
    desk.say(ADS, DENIED)
    assert desk.keys(desk.push(offers=(0,))) == {"offers"}
    assert list(desk.store) == []
    assert len(desk.push(offers=(0,)).writes) == 0
    # a worker of before may have written them again
    assert desk.keys(desk.push(offers=(0,), force=True)) == {"recs", "offers", "profile"}


def test_nobody_to_push_to() -> None:
    desk = Desk(ENDLESS)
    nobody = Ranked(
        np.zeros(0, dtype=np.int32),
        np.zeros(0, dtype=np.int64),
        Lists.empty(0, 2),
        Picked.empty(0),
        np.zeros(0, dtype=np.bool_),
    )
    pushes = push(desk.shard, desk.space, KEYS, nobody, Shelf.of(desk.offers), force=True)
    assert (pushes.lists, len(pushes.writes)) == (0, 0)

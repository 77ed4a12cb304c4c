from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.offer_ranking import MAX_PICKED, ItemFacts, OfferColumns, OfferScratch, Picked, Shoppers, rank_users
from models.offer_table import build_table
from models.offers import MAX_SEGMENTS, Offer, ScoredOffer, Shopper, score_offers
from models.profiles import CATEGORIES, Profiles
from models.ranking import Lists, rank_rows, scratch
from tests.plain import Touch, bounded, plain_votes, same_lists, streams
from tests.small_world import IDS, ITEMS, USERS, VOTES, World

NOW = 1_750_000_000
NAMES = ["camping", "home", "books"]
LABELS = ["camping, high spend", "books", "mixed"]
MONEY = [0.0, 9.99, 19.99, 1234.56]


class Customer(NamedTuple):
    segment: int
    cart: float
    likes: dict[str, float]


customers = st.builds(
    Customer,
    st.integers(-1, 2),
    st.sampled_from(MONEY),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from([1.0, 2.0, 3.0]), max_size=3),
)
moments = st.none() | st.integers(NOW - 2, NOW + 2).map(lambda s: datetime.fromtimestamp(s, UTC))
names = st.sets(st.sampled_from(NAMES), max_size=2).map(sorted).map(tuple)
drafts = st.builds(
    Offer,
    id=st.sampled_from([f"o{n}" for n in range(30)]),
    items=st.sets(st.sampled_from(IDS), max_size=3).map(sorted).map(tuple),
    categories=names,
    value=st.sampled_from([0.5, 1.0, 2.0]),  # few, so that scores tie
    valid_from=moments,
    valid_until=moments,
    segments=st.lists(st.sampled_from([0, 1, MAX_SEGMENTS - 1, "camping", "books"]), max_size=2).map(tuple),
    min_category_affinity=st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0.0, 0.25, 0.5, 1.0]), max_size=1),
    min_cart_value=st.sampled_from(MONEY),
    max_cart_value=st.none() | st.sampled_from(MONEY),
)
offers_ = st.lists(drafts, max_size=8, unique_by=lambda offer: offer.id)
categories_ = st.lists(st.sampled_from([None, *NAMES]), min_size=ITEMS, max_size=ITEMS)
crowds = st.lists(customers, min_size=USERS, max_size=USERS)
few = streams(USERS, ITEMS, 4, most=30)


class Outcome(NamedTuple):
    lists: Lists
    picked: list[list[ScoredOffer]]


def shoppers(crowd: list[Customer], now_s: int) -> Shoppers:
    profiles = Profiles()
    profiles.reserve(USERS)
    for user, customer in enumerate(crowd):
        profiles.arrays.cart[user] = customer.cart
        for cell, (name, weight) in enumerate(customer.likes.items()):
            profiles.arrays.category[user, cell] = NAMES.index(name)
            profiles.arrays.affinity[user, cell] = weight
    segment = np.array([customer.segment for customer in crowd], dtype=np.int16)
    return Shoppers(profiles.arrays, segment, now_s)


def fast(
    world: World,
    offers: list[Offer],
    crowd: list[Customer],
    category: list[str | None],
    hidden: set[int] = frozenset(),  # type: ignore[assignment]  # never changed
) -> Outcome:
    table = build_table(offers, IDS.index, NAMES.index, LABELS)
    codes = np.array([-1 if name is None else NAMES.index(name) for name in category], dtype=np.int32)
    facts = ItemFacts(np.isin(np.arange(ITEMS), list(hidden)), codes, world.ids.blob, world.ids.spans)
    users = np.arange(USERS, dtype=np.int32)
    lists, picked, work = Lists.empty(USERS, 5), Picked.empty(USERS), scratch(ITEMS)
    columns = OfferColumns.of(table)
    sums = OfferScratch.of(columns)
    rank_users(
        world.histories.arrays,
        users,
        world.rows.arrays,
        VOTES,
        facts,
        columns,
        shoppers(crowd, NOW),
        work,
        sums,
        lists,
        picked,
    )
    assert not work.score.any()
    assert not sums.by_category.score.any()
    chosen = [
        [
            ScoredOffer(table.ids[offer], score, IDS[why])
            for offer, score, why in zip(*(column[user].tolist() for column in picked), strict=True)
            if offer >= 0
        ]
        for user in users
    ]
    return Outcome(lists, chosen)


def plain(
    world: World,
    offers: list[Offer],
    customer: Customer,
    category: list[str | None],
    user: int,
    hidden: set[int],
) -> list[ScoredOffer]:
    seeds = world.plain_histories.distances(user, VOTES.gap)
    votes = plain_votes(seeds, world.plain_rows, VOTES)
    scores = {IDS[item]: sum(vote for _, vote in got) for item, got in votes.items() if item not in hidden}
    total = sum(customer.likes.values())
    shopper = Shopper(
        customer.segment,
        LABELS[customer.segment] if customer.segment >= 0 else "",
        {name: weight / total for name, weight in customer.likes.items()},
        customer.cart,
    )
    of = dict(zip(IDS, category, strict=True))
    return score_offers(scores, offers, shopper, NOW, category_of=of.get, top=len(offers))


@bounded
@given(few, offers_, crowds, categories_, st.sets(st.integers(0, ITEMS - 1), max_size=3))
def test_picked_offers_equal_those_of_the_reference(
    stream: list[Touch], offers: list[Offer], crowd: list[Customer], category: list[str | None], hidden: set[int]
) -> None:
    world = World(stream)
    outcome = fast(world, offers, crowd, category, hidden)
    for user, customer in enumerate(crowd):
        everything = {o.offer_id: o for o in plain(world, offers, customer, category, user, hidden)}
        found = outcome.picked[user]
        assert len(found) == min(MAX_PICKED, len(everything))
        best = [o.score for o in list(everything.values())[:MAX_PICKED]]
        assert [o.score for o in found] == pytest.approx(best, rel=1e-9)
        for offer in found:  # which of nearly equal ones is free: sums round differently
            assert offer.score == pytest.approx(everything[offer.offer_id].score, rel=1e-9)


@bounded
@given(few, offers_, crowds, categories_, st.sets(st.integers(0, ITEMS - 1), max_size=3))
def test_lists_are_the_same_with_and_without_offers(
    stream: list[Touch], offers: list[Offer], crowd: list[Customer], category: list[str | None], hidden: set[int]
) -> None:
    world = World(stream)
    expected = Lists.empty(USERS, 5)
    rank_rows(
        world.histories.arrays,
        np.arange(USERS, dtype=np.int32),
        world.rows.arrays,
        VOTES,
        np.isin(np.arange(ITEMS), list(hidden)),
        world.ids.blob,
        world.ids.spans,
        scratch(ITEMS),
        expected,
    )
    for found in (fast(world, offers, crowd, category, hidden), fast(world, [], crowd, category, hidden)):
        assert same_lists(found.lists, expected)


@bounded
@given(few, offers_, crowds, categories_)
def test_a_reason_is_an_item_that_the_offer_is_for(
    stream: list[Touch], offers: list[Offer], crowd: list[Customer], category: list[str | None]
) -> None:
    by_id = {offer.id: offer for offer in offers}
    of = dict(zip(IDS, category, strict=True))
    for found in fast(World(stream), offers, crowd, category).picked:
        for offer in found:
            meant = by_id[offer.offer_id]
            assert offer.why_item in meant.items or of[offer.why_item] in meant.categories


NOBODY = Customer(-1, 0.0, {})
CAMPERS = [Touch(0, 0), Touch(0, 1), Touch(1, 0)]  # user 1 is on item 0, whose neighbour is item 1


def picked(offers: list[Offer], customer: Customer = NOBODY) -> list[str]:
    outcome = fast(World(CAMPERS), offers, [customer] * USERS, [None] * ITEMS)
    return [offer.offer_id for offer in outcome.picked[1]]


def test_equal_offers_rank_by_id_and_at_most_three_are_picked() -> None:
    assert picked([Offer(id=name, items=(IDS[1],), value=1.0) for name in ("d", "b", "c", "a")]) == ["a", "b", "c"]


def test_a_withdrawn_item_earns_no_offer() -> None:
    offer = Offer(id="x", items=(IDS[1],), value=1.0)
    shown, hidden = (fast(World(CAMPERS), [offer], [NOBODY] * USERS, [None] * ITEMS, some) for some in (set(), {1}))
    assert [len(outcome.picked[1]) for outcome in (shown, hidden)] == [1, 0]


def test_an_item_found_by_id_and_category_counts_once() -> None:
    offer = Offer(id="x", items=(IDS[1],), categories=("home",), value=2.0)
    found = fast(World(CAMPERS), [offer], [NOBODY] * USERS, ["home"] * ITEMS).picked[1]
    assert found == [ScoredOffer("x", 2.0, IDS[1])]


@pytest.mark.parametrize("cart", MONEY)
def test_bounds_of_the_cart_are_inclusive(cart: float) -> None:
    offer = Offer(id="x", items=(IDS[1],), value=1.0, min_cart_value=cart, max_cart_value=cart)
    assert picked([offer], Customer(-1, cart, {})) == ["x"]


def test_cells_of_a_profile_are_enough_for_every_affinity() -> None:
    assert len(NAMES) <= CATEGORIES
    offer = Offer(id="x", items=(IDS[1],), value=1.0, min_category_affinity={"home": 0.5})
    assert picked([offer], Customer(-1, 0.0, {"home": 1.0, "books": 1.0})) == ["x"]
    assert picked([offer], Customer(-1, 0.0, {"home": 1.0, "books": 2.0})) == []

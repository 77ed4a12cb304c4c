import hashlib
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import msgspec
import pytest

from stream.demo.shop import NAMES, Shop
from stream.demo.shop_visits import EVENTS_PER_DRIFT
from stream.events import Event
from tests.shop_profiles import visitor_of

EVENTS = 30_000


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(seed=1)


@pytest.fixture(scope="module")
def events(shop: Shop) -> list[dict[str, Any]]:
    return list(shop.events(EVENTS))


def first_items(events: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for event in events:
        for item in event.get("items", [])[:1]:
            yield visitor_of(event), item["item_id"]


def test_catalogue_has_named_products_with_distinct_ids(shop: Shop) -> None:
    catalogue = shop.catalogue()
    assert 400 <= len({record["item_id"] for record in catalogue}) == len(catalogue) <= 1_000
    assert 8 <= len({record["category"] for record in catalogue}) <= 12
    assert all(record["title"] and record["price"] > 0 for record in catalogue)


def test_events_are_valid_and_in_time_order(events: list[dict[str, Any]]) -> None:
    for event in events:
        msgspec.convert(event, Event)
    assert len({event["event_id"] for event in events}) == EVENTS
    assert all(a["event_timestamp"] <= b["event_timestamp"] for a, b in pairwise(events))
    assert {event["event_name"] for event in events} == set(NAMES)


def test_json_is_the_same_events(shop: Shop, events: list[dict[str, Any]]) -> None:
    assert [msgspec.json.decode(line) for line in shop.json_events(500)] == events[:500]


def test_a_longer_run_begins_with_the_shorter_one(shop: Shop, events: list[dict[str, Any]]) -> None:
    assert list(shop.events(5_000)) == events[:5_000]
    assert list(islice(shop.events(), 5_000)) == events[:5_000]


def test_seed_changes_the_stream() -> None:
    assert next(iter(Shop(seed=2).json_events(1))) != next(iter(Shop(seed=1).json_events(1)))


@pytest.mark.parametrize("hash_seed", ["0", "7"])
def test_same_bytes_in_every_process(shop: Shop, hash_seed: str) -> None:
    code = (
        "import hashlib; from stream.demo.shop import Shop;"
        "print(hashlib.sha256(b''.join(Shop(1).json_events(3000))).hexdigest())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == hashlib.sha256(b"".join(shop.json_events(3_000))).hexdigest()


def test_sessions_belong_to_one_visitor_and_interleave(events: list[dict[str, Any]]) -> None:
    owner: dict[str, str] = {}
    for event in events:
        assert owner.setdefault(event["session_id"], visitor_of(event)) == visitor_of(event)
    changes = sum(a["session_id"] != b["session_id"] for a, b in pairwise(events))
    assert changes > 0.8 * EVENTS


def test_a_visitor_is_never_in_two_sessions_at_once(events: list[dict[str, Any]]) -> None:
    sessions: dict[str, list[str]] = defaultdict(list)
    for event in events:
        mine = sessions[visitor_of(event)]
        if not mine or mine[-1] != event["session_id"]:
            mine.append(event["session_id"])
    assert all(len(set(mine)) == len(mine) for mine in sessions.values())


def test_purchases_contain_what_was_put_into_the_cart(events: list[dict[str, Any]]) -> None:
    carts: dict[str, set[str]] = defaultdict(set)
    bought = 0
    for event in events:
        if event["event_name"] == "add_to_cart":
            carts[event["session_id"]].add(event["items"][0]["item_id"])
        if event["event_name"] == "purchase":
            assert {item["item_id"] for item in event["items"]} <= carts[event["session_id"]]
            assert event["value"] == pytest.approx(sum(i["price"] * i["quantity"] for i in event["items"]))
            bought += 1
    assert bought > 500


def test_personas_are_visible_and_follow_their_tastes(shop: Shop, events: list[dict[str, Any]]) -> None:
    assert {"anna", "ben", "chloe", "dev", "emma", "frank"} <= {visitor_of(event) for event in events[:20]}
    looked: dict[str, Counter[str]] = defaultdict(Counter)
    for event in events:
        for item in event.get("items", []):
            looked[shop.personas[visitor_of(event)]][item["item_category"]] += 1
    favourites = {persona: counts.most_common(1)[0][0] for persona, counts in looked.items()}
    assert favourites["camper"] == "camping"
    assert len(set(favourites.values())) == 6


def test_tastes_wander_and_come_back() -> None:
    """What visitors look at differs between the two halves of each round of their tastes, more than between rounds."""
    shop = Shop(seed=1, users=60, concurrent=4)
    most_active = ("anna", "ben", "chloe", "dev", "emma", "frank")
    round_ = EVENTS_PER_DRIFT * shop.users
    looked: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for number, event in enumerate(shop.events(12 * round_)):
        half = number // (round_ // 2) % 4
        looked[visitor_of(event), half].update(item["item_category"] for item in event.get("items", []))

    def apart(some: tuple[int, int], others: tuple[int, int]) -> float:
        """How far the visitors' shares of categories in some halves are from those in others."""
        far = 0.0
        for visitor in most_active:
            one, two = (looked[visitor, first] + looked[visitor, second] for first, second in (some, others))
            far += sum(abs(one[name] / one.total() - two[name] / two.total()) for name in one | two) / 2
        return far

    assert apart((0, 2), (1, 3)) > 1.5 * apart((0, 1), (2, 3))


def test_each_rule_makes_its_consequent_the_most_frequent_next_item(shop: Shop, events: list[dict[str, Any]]) -> None:
    assert len(shop.rules) >= 10
    following: dict[str, Counter[str]] = defaultdict(Counter)
    last: dict[str, str] = {}
    for user, item in first_items(events):
        if last.get(user, item) != item:
            following[last[user]][item] += 1
        last[user] = item
    for antecedent, consequent in shop.rules:
        assert following[antecedent].most_common(1)[0][0] == consequent


def test_many_concurrent_visitors_give_mostly_distinct_users() -> None:
    users = [visitor_of(event) for event in Shop(1, users=100_000, concurrent=20_000, rate=100).events(20_000)]
    windows = [len(set(users[i : i + 2_000])) / 2_000 for i in range(0, len(users), 2_000)]
    assert sum(windows) / len(windows) >= 0.9


def test_pace_is_about_the_rate() -> None:
    events = list(Shop(1, users=2_000, concurrent=600, rate=200).events(40_000))
    seconds = (events[-1]["event_timestamp"] - events[20_000]["event_timestamp"]) / 1e6
    assert 20_000 / seconds == pytest.approx(200, rel=0.25)


def test_visitors_click_what_they_like(shop: Shop) -> None:
    liked, disliked = ["cedar-tent"] * 5, ["krypt-capture-card"] * 5
    clicks = [sum(shop.react("anna", items, nonce=n) is not None for n in range(300)) for items in (liked, disliked)]
    assert clicks[0] > 5 * clicks[1]
    assert shop.react("anna", liked, nonce=1) == shop.react("anna", liked, nonce=1)
    assert shop.react("anna", ["unknown"], nonce=1) is None


@pytest.mark.parametrize("bad", [{"users": 5}, {"concurrent": 0}, {"rate": 0.0}])
def test_impossible_shops_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a shop needs"):
        Shop(**bad)

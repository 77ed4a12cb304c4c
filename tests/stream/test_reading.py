"""The plans of the readers against a plain second version, and what is kept between them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import BadInputError
from stream.keys import Keys, Recommendations
from stream.reading import Plan, Wish, plan_list, plan_recommendations
from stream.shared_cache import Command, Shared, SharedCache, joined
from tests.reader_shop import rendered

KEYS = Keys("t")
ITEMS = list("abcdefgh")
PLACES = {
    "recs:cart": KEYS.recs("u", "cart"),
    "recs": KEYS.recs("u"),
    "trending:segment:2": KEYS.trending(segment=2),
    "trending:category:c1": KEYS.trending(category="c1"),
    "trending:category:c2": KEYS.trending(category="c2"),
    "trending:all": KEYS.trending(),
}
Shelf = dict[str, dict[str, Any]]
lists = st.lists(st.sampled_from(ITEMS), unique=True, max_size=6)
facts = st.fixed_dictionaries(
    {},
    optional={
        "hidden": st.booleans(),
        "category": st.sampled_from(["", "c1", "c2"]),
        "price": st.sampled_from([0.0, 5.0, 10.0]),
        "availability": st.sampled_from(["in_stock", "preorder", "limited"]),
    },
)
shelves: st.SearchStrategy[Shelf] = st.fixed_dictionaries({}, optional=dict.fromkeys(ITEMS, facts))
places = st.fixed_dictionaries({}, optional=dict.fromkeys(PLACES, lists))
wishes = st.builds(
    Wish,
    placement=st.sampled_from([None, "cart"]),
    k=st.integers(1, 8),
    exclude=st.sets(st.sampled_from(ITEMS), max_size=3),
    category=st.sampled_from([None, None, "c1"]),
    min_price=st.sampled_from([None, None, 0, 5]),
    max_price=st.sampled_from([None, None, 5, 7.5]),
    availability=st.sampled_from([(), (), ["in_stock", "limited"]]),
)


class Server:
    """Values by key, and how often it was asked."""

    def __init__(self, values: dict[bytes, bytes], segment: bytes | None) -> None:
        self.values = values
        self.segment = segment
        self.rounds = 0

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        self.rounds += 1
        return [self._reply(command) for command in commands]

    def _reply(self, command: Command) -> Any:
        if isinstance(command, Shared):
            return [self.values.get(key) for key in command.keys]
        if command[0] == "HGET":
            assert command[1:] == (KEYS.profile("u"), "segment")
            return self.segment
        assert command[0] == "MGET"
        return [self.values.get(bytes(key)) for key in command[1:] if isinstance(key, bytes)]


def run(plan: Plan[Recommendations], ask: Callable[[Sequence[Command]], list[Any]]) -> Recommendations:
    try:
        commands = next(plan)
        while True:
            commands = plan.send(ask(commands))
    except StopIteration as done:
        found: Recommendations = done.value
        return found


def server(found: dict[str, list[str]], shelf: Shelf, segment: bytes | None) -> Server:
    values = {PLACES[place]: rendered(items, model=place) for place, items in found.items()}
    values |= {KEYS.item(item): json.dumps({"v": 1, **known}).encode() for item, known in shelf.items()}
    return Server(values, segment)


def fits(known: dict[str, Any], wish: Wish) -> bool:
    low, high = wish.min_price, wish.max_price
    return not (
        known.get("hidden")
        or (wish.category and known.get("category") != wish.category)
        or (wish.availability and known.get("availability") not in wish.availability)
        or (low is not None and known.get("price", -1) < low)
        or (high is not None and known.get("price", 100) > high)
    )


def expected(found: dict[str, list[str]], shelf: Shelf, segment: bytes | None, wish: Wish) -> list[str]:
    """The visitor's own list and every shared one after it, everything that may be shown, the first k."""
    own = "recs:cart" if wish.placement is not None and "recs:cart" in found else "recs"
    mine = [shelf.get(item, {}).get("category") for item in found.get(own, []) if item not in wish.exclude]
    named = [category for category in mine if category]
    order = [own, "trending:category:c1"] if wish.category else [own, *["trending:segment:2"] * (segment is not None)]
    if named and not wish.category:
        order.append(f"trending:category:{max(named, key=named.count)}")
    items = [item for place in [*order, "trending:all"] for item in found.get(place, [])]
    shown = [item for item in dict.fromkeys(items) if item not in wish.exclude and fits(shelf.get(item, {}), wish)]
    return shown[: wish.k]


@given(places, shelves, st.sampled_from([None, b"2"]), wishes)
def test_a_list_is_what_going_through_all_lists_gives(
    found: dict[str, list[str]], shelf: Shelf, segment: bytes | None, wish: Wish
) -> None:
    shop = server(found, shelf, segment)
    recs = run(plan_recommendations(KEYS, "u", wish), shop.ask)
    assert recs.items == expected(found, shelf, segment, wish)
    categories = [known and known.category for known in recs.details]
    assert categories == [shelf.get(item, {}).get("category") for item in recs.items]
    assert shop.rounds <= 4


@given(
    st.lists(st.tuples(places, shelves, wishes), min_size=1, max_size=4),
    st.integers(1, 20),
)
def test_what_is_kept_changes_no_answer_while_it_is_true(rounds: list[Any], entries: int) -> None:
    """The same answers with and without a cache, of any size, if it never outlives what it holds."""
    cache = SharedCache(fresh_s=1.0, entries=entries)
    for now, (found, shelf, wish) in enumerate(rounds):
        shop = server(found, shelf, b"2")

        def ask(commands: Sequence[Command], shop: Server = shop, now: float = float(now)) -> list[Any]:
            known, stale = cache.look(commands, now)
            own = [shop.ask([command])[0] for command in commands if not isinstance(command, Shared)]
            asked = {key: shop.values.get(key) for key in stale}
            cache.keep(asked, now)
            return joined(commands, own, known | asked)

        for _ in range(2):
            recs = run(plan_recommendations(KEYS, "u", wish), ask)
            assert recs.items == expected(found, shelf, b"2", wish)


def test_a_full_list_takes_two_round_trips_and_one_without_a_catalogue() -> None:
    shop = server({"recs": ["a", "b"], "trending:all": ["c"]}, {"a": {"category": "c1"}}, b"2")
    assert run(plan_recommendations(KEYS, "u", Wish(k=2)), shop.ask).items == ["a", "b"]
    assert shop.rounds == 2
    assert run(plan_recommendations(KEYS, "u", Wish(k=2, catalogue=False)), shop.ask).items == ["a", "b"]
    assert shop.rounds == 3


def test_shared_lists_leave_out_what_is_hidden() -> None:
    shop = server({"trending:all": ["a", "b", "c"]}, {"a": {"hidden": True}}, None)
    recs = run(plan_list(KEYS, "trending", KEYS.trending(), Wish(k=2)), shop.ask)
    assert (recs.items, recs.source) == (["b", "c"], "trending")


@pytest.mark.parametrize(
    ("found", "category", "rounds"),
    [
        ({}, None, 2),  # a visitor nobody knows
        ({"trending:segment:2": ["e", "f"]}, None, 3),
        ({"recs": ["a"], "trending:segment:2": ["e"]}, None, 3),  # the segment's list is enough
        ({"recs": ["a"]}, None, 4),  # what is trending in the category of `a`, and details of that
        ({"recs": ["a"]}, "c2", 2),  # nobody asked for that
        ({"recs": ["a"], "trending:segment:2": ["a"]}, None, 4),
        ({"recs": ["gone", "a"]}, None, 4),  # as long as wished for, until its details were read
    ],
)
def test_how_many_round_trips_a_short_list_takes(
    found: dict[str, list[str]], category: str | None, rounds: int
) -> None:
    shared = {"trending:category:c1": ["g"], "trending:all": ["h"]}
    shop = server(found | shared, {"a": {"category": "c1"}, "gone": {"hidden": True}}, b"2")
    run(plan_recommendations(KEYS, "u", Wish(k=2, category=category)), shop.ask)
    assert shop.rounds == rounds


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": 0}, "at least 1"),
        ({"category": "c", "catalogue": False}, "tells"),
        ({"min_price": 0, "catalogue": False}, "tells"),
        ({"availability": ["in_stock"], "catalogue": False}, "tells"),
        ({"min_price": 5, "max_price": 4.99}, "at least 5 and at most"),
        ({"min_price": -1}, "from 0"),
        ({"max_price": math.nan}, "from 0"),
        ({"max_price": math.inf}, "from 0"),
        ({"availability": ["in stock"]}, r"\['in stock'\]; there is"),
        ({"availability": "in_stock"}, "no availability"),
    ],
)
def test_a_wish_that_cannot_be_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        Wish(**fields)


def test_values_grow_old_and_the_one_used_longest_ago_goes() -> None:
    cache = SharedCache(fresh_s=1.0, entries=2)
    cache.keep({b"a": b"1", b"b": None}, 0.0)
    assert cache.look([Shared((b"a", b"b", b"a"))], 0.9) == ({b"a": b"1", b"b": None}, [])
    assert cache.look([Shared((b"a",))], 1.0) == ({}, [b"a"])
    assert cache.look([Shared((b"a",))], 0.5)[0]  # b is now the one used longest ago
    cache.keep({b"c": b"3"}, 1.0)
    assert cache.without_redis([Shared((b"a", b"b", b"c")), ("HGETALL", b"x")]) == [[b"1", None, b"3"], {}]
    assert (cache.hits, cache.misses) == (3, 1)


def test_followed_keys_stay_fresh_for_as_long_as_changes_are_told() -> None:
    cache = SharedCache(fresh_s=0.0, followed=(b"f:",))
    both = [Shared((b"f:a", b"x"))]

    def fresh(now: float) -> set[bytes]:
        return set(cache.look(both, now)[0])

    cache.keep({b"f:a": b"0"}, 0.0)
    cache.hear(1.0, since=1.0)
    assert fresh(1.0) == set()  # it was asked for before changes were told
    cache.keep({b"f:a": b"1", b"x": b"1"}, 2.0)
    assert fresh(3.9) == {b"f:a"}
    assert fresh(4.0) == set()  # no sign of life for 3 s
    cache.hear(60.0)
    assert fresh(61.9) == {b"f:a"}
    cache.hear(62.0)
    assert fresh(62.0) == set()  # after a minute in any case
    cache.keep({b"f:a": b"2"}, 62.0)
    assert fresh(63.0) == {b"f:a"}
    cache.drop([b"f:a", b"unknown"], 63.0)
    assert fresh(63.0) == set()
    cache.keep({b"f:a": b"3"}, 62.5)  # asked for before the change was told: may be from before it
    assert fresh(63.1) == set()
    cache.keep({b"f:a": b"4"}, 63.5)
    assert fresh(63.6) == {b"f:a"}
    cache.drop(None, 63.7)
    assert fresh(63.8) == set()
    assert cache.without_redis(both) == [[b"4", b"1"]]  # still the last that is known
    cache.keep({b"f:a": b"5"}, 64.0)
    cache.unfollow()
    assert fresh(64.1) == set()

"""The plans of the readers against a plain second version, and what is kept between them."""

from __future__ import annotations

import json
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
    "trending:all": KEYS.trending(),
}
lists = st.lists(st.sampled_from(ITEMS), unique=True, max_size=6)
shelves = st.dictionaries(st.sampled_from(ITEMS), st.tuples(st.booleans(), st.sampled_from([None, "c1", "c2"])))
wishes = st.builds(
    Wish,
    placement=st.sampled_from([None, "cart"]),
    k=st.integers(1, 6),
    exclude=st.sets(st.sampled_from(ITEMS), max_size=3),
    category=st.sampled_from([None, "c1"]),
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


def server(found: dict[str, list[str]], shelf: dict[str, tuple[bool, str | None]], segment: bytes | None) -> Server:
    values = {PLACES[place]: rendered(items, model=place) for place, items in found.items()}
    for item, (hidden, category) in shelf.items():
        values[KEYS.item(item)] = json.dumps({"v": 1, "hidden": hidden, "category": category}).encode()
    return Server(values, segment)


def expected(
    found: dict[str, list[str]], shelf: dict[str, tuple[bool, str | None]], segment: bytes | None, wish: Wish
) -> list[str]:
    """The visitor's own list and every shared one after it, everything that may be shown, the first k."""
    order = ["recs:cart" if wish.placement is not None and "recs:cart" in found else "recs"]
    order += ["trending:category:c1"] if wish.category else ["trending:segment:2"] * (segment is not None)
    shown: list[str] = []
    for place in [*order, "trending:all"]:
        for item in found.get(place, []):
            hidden, category = shelf.get(item, (False, None))
            fits = wish.category is None or category == wish.category
            if not hidden and fits and item not in wish.exclude and item not in shown:
                shown.append(item)
    return shown[: wish.k]


@given(st.dictionaries(st.sampled_from(list(PLACES)), lists), shelves, st.sampled_from([None, b"2"]), wishes)
def test_a_list_is_what_going_through_all_lists_gives(
    found: dict[str, list[str]], shelf: dict[str, tuple[bool, str | None]], segment: bytes | None, wish: Wish
) -> None:
    shop = server(found, shelf, segment)
    recs = run(plan_recommendations(KEYS, "u", wish), shop.ask)
    assert recs.items == expected(found, shelf, segment, wish)
    assert [known and known.category for known in recs.details] == [
        shelf.get(item, (0, None))[1] for item in recs.items
    ]
    assert shop.rounds <= 4


@given(
    st.lists(st.tuples(st.dictionaries(st.sampled_from(list(PLACES)), lists), shelves, wishes), min_size=1, max_size=4),
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
    shop = server({"recs": ["a", "b"], "trending:all": ["c"]}, {"a": (False, "c1")}, b"2")
    assert run(plan_recommendations(KEYS, "u", Wish(k=2)), shop.ask).items == ["a", "b"]
    assert shop.rounds == 2
    assert run(plan_recommendations(KEYS, "u", Wish(k=2, catalogue=False)), shop.ask).items == ["a", "b"]
    assert shop.rounds == 3


def test_shared_lists_leave_out_what_is_hidden() -> None:
    shop = server({"trending:all": ["a", "b", "c"]}, {"a": (True, None)}, None)
    recs = run(plan_list(KEYS, "trending", KEYS.trending(), Wish(k=2)), shop.ask)
    assert (recs.items, recs.source) == (["b", "c"], "trending")


@pytest.mark.parametrize(
    ("fields", "words"), [({"k": 0}, "at least 1"), ({"category": "c", "catalogue": False}, "tells")]
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

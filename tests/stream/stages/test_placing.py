"""Placements in the user stage: their keys, their rules on live state, and the log of what was served."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from models.newcomers import BELOW
from models.placement import Placement
from stream.demo.shop import Shop
from stream.keys import RECS_TTL_S, Keys, Recommendations, parse_list
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages.global_ import decode_model
from stream.stages.serving import MOST_LISTS, ServedList, decode_served
from stream.stages.user_shard import UserRules
from tests.records import HOUR, dump, event, publish, read

KEYS = Keys()
CART = Placement("cart", k=4, exclude="seen")
HOME = Placement("home", k=5, exploration=0.4)
ITEMS = ("tent", "mat", "stove", "lamp", "mug", "rope")
START = [event(who, item, at=n) for n, (who, item) in enumerate((w, i) for w in "abcd" for i in ITEMS)]


def shop(*placements: Placement, served: bool = False, events: Iterable[dict[str, Any]] = START) -> LocalPipeline:
    rules = UserRules(placements=placements, served=served)
    pipeline = LocalPipeline(MemoryStore(), rules, partitions=1, item_partitions=1)
    publish(pipeline, events)
    return pipeline


def value(pipeline: LocalPipeline, user: str, placement: str | None = None) -> Recommendations | None:
    assert isinstance(pipeline.store, MemoryStore)
    found = read(pipeline.store, KEYS.recs(user, placement))
    return None if found is None else parse_list(found)


def listed(pipeline: LocalPipeline, user: str, placement: str | None = None) -> list[str] | None:
    found = value(pipeline, user, placement)
    return None if found is None else found.items


def told(pipeline: LocalPipeline) -> list[tuple[ServedList, list[str]]]:
    """What was logged, with the ids of the items."""
    records = [decode_served(send.value) for send in pipeline.served]
    return [(one, [record.ids[item] for item in one.items]) for record in records for one in record.lists]


def test_without_placements_nothing_is_written_or_logged_beyond_the_plain_list() -> None:
    pipeline = shop()
    assert isinstance(pipeline.store, MemoryStore)
    assert not [key for key in pipeline.store if b"}:recs:" in key]
    assert pipeline.served == []
    assert pipeline.users.shards[0].newcomers.count.size == 0
    assert "placed" not in pipeline.users.shards[0].columns()


def test_placements_do_not_change_the_plain_list() -> None:
    events = list(Shop(seed=3, users=60, concurrent=6).events(600))
    plain, more = shop(events=events), shop(CART, HOME, Placement("x", k=9, diversity=0.5), events=events)
    assert isinstance(more.store, MemoryStore)
    assert isinstance(plain.store, MemoryStore)
    others = {key: found for key, found in dump(more.store).items() if b"}:recs:" not in key}
    assert others == dump(plain.store)
    assert len(dump(more.store)) > 3 * len([key for key in others if key.endswith(b":recs")])


def test_a_placement_has_a_key_of_its_own_that_keeps_its_rules() -> None:
    pipeline = shop(CART, Placement("plain", k=20))
    assert isinstance(pipeline.store, MemoryStore)
    publish(pipeline, [event("u", "tent", at=50), event("u", "stove", at=51)])
    recs, cart = value(pipeline, "u"), value(pipeline, "u", "cart")
    assert recs is not None
    assert cart is not None
    assert "tent" in recs.items  # repeats are welcome in the plain list
    assert cart.items == [item for item in recs.items if item not in ("tent", "stove")][:4]
    assert (cart.model, cart.ts, cart.exp) == (recs.model, recs.ts, None)
    why = dict(zip(recs.items, zip(recs.scores, recs.why, strict=True), strict=True))
    assert [why[item] for item in cart.items] == list(zip(cart.scores, cart.why, strict=True))
    assert value(pipeline, "u", "plain") == recs
    assert pipeline.store.ttl(KEYS.recs("u", "cart")) == RECS_TTL_S


def test_bought_items_are_left_out_where_that_is_asked_for() -> None:
    pipeline = shop(Placement("item", exclude="bought"))
    bought = event("u", "tent", at=50, name="purchase")
    publish(pipeline, [bought, event("u", "stove", at=51), event("u", "mat", at=52)])
    found = listed(pipeline, "u", "item")
    assert found is not None
    assert "stove" in found
    assert "tent" not in found


def test_categories_are_left_out_limited_and_mixed() -> None:
    pipeline = shop(
        Placement("no-mugs", without=("cat-m", "unheard-of")), Placement("few", per_category=1), Placement("k1", k=1)
    )
    publish(pipeline, [event("u", "tent", at=50)])
    plain, no_mugs, few = (listed(pipeline, "u", name) for name in (None, "no-mugs", "few"))
    assert plain is not None
    assert {"mat", "mug"} <= set(plain)  # both of cat-m
    assert no_mugs == [item for item in plain if item[0] != "m"]
    first = next(item for item in plain if item[0] == "m")
    assert few == [item for item in plain if item[0] != "m" or item == first]
    assert listed(pipeline, "u", "k1") == plain[:1]


def test_what_the_catalogue_hides_leaves_with_the_next_touch() -> None:
    pipeline = shop(CART)
    publish(pipeline, [event("u", "tent", at=50)])
    assert "mat" in (listed(pipeline, "u", "cart") or [])
    pipeline.items.withdraw("mat", True)
    publish(pipeline, [event("u", "tent", at=51)])
    found = listed(pipeline, "u", "cart")
    assert found
    assert "mat" not in found


def test_a_list_that_the_rules_leave_empty_is_written_as_such() -> None:
    pipeline = shop(CART)
    publish(pipeline, [event("u", item, at=50 + n) for n, item in enumerate(ITEMS)])
    assert listed(pipeline, "u")
    assert listed(pipeline, "u", "cart") == []


def keys_written(pipeline: LocalPipeline, *events: dict[str, Any]) -> int:
    before = pipeline.counts["keys"]
    publish(pipeline, events)
    return pipeline.counts["keys"] - before


def test_what_has_not_changed_is_not_written() -> None:
    pipeline = shop(CART)
    publish(pipeline, [event("u", "tent", at=50)])
    assert keys_written(pipeline, event("u", at=51, name="login")) == 0
    assert keys_written(pipeline, event("u", at=51 + RECS_TTL_S // 2 + 1, name="login")) == 3  # both and the profile


def test_doubt_and_republish_write_them_again() -> None:
    pipeline = shop(CART)
    publish(pipeline, [event("u", "tent", at=50)])
    assert isinstance(pipeline.store, MemoryStore)
    before = dump(pipeline.store)
    pipeline.users.shards[0].doubt()
    assert keys_written(pipeline, event("u", at=51, name="login")) == 3
    pipeline.store = MemoryStore()
    asyncio.run(pipeline.republish())
    assert isinstance(pipeline.store, MemoryStore)
    mine = {key: found for key, found in dump(pipeline.store).items() if b"{" in key}
    assert mine.keys() == {key for key in before if b"{" in key}
    for key in mine:
        if key.endswith(b":cart"):
            assert parse_list(mine[key]).items == parse_list(before[key]).items


def test_who_takes_back_consent_finds_no_list_of_a_placement() -> None:
    pipeline = shop(CART, HOME)
    publish(pipeline, [event("u", "tent", at=50)])
    assert listed(pipeline, "u", "cart")
    publish(pipeline, [event("u", at=60, name="login", consent={"personalization_storage": "denied"})])
    assert [listed(pipeline, "u", name) for name in (None, "cart", "home")] == [None] * 3
    logged = len(pipeline.served)
    publish(pipeline, [event("u", "mat", at=70)])
    assert [listed(pipeline, "u", name) for name in (None, "cart", "home")] == [None] * 3
    assert len(pipeline.served) == logged


def control(pipeline: LocalPipeline, value: bytes) -> None:
    asyncio.run(pipeline.feed([(b"u", event("u", at=100)["event_timestamp"] // 1000, value)]))


def other_process(old: LocalPipeline, rules: UserRules, seed: int = 5) -> LocalPipeline:
    """Another process that takes over every shard from copies, with ids met in another order."""
    new = LocalPipeline(old.store, rules, partitions=1, item_partitions=1)
    ids = old.space.ids.texts(range(len(old.space.ids)))
    random.Random(seed).shuffle(ids)
    new.space.encode(["unrelated", *ids])
    new.items.open(0, old.items.copy(0).whole())
    new.users.open(0, old.users.copy(0).whole())
    new.globe.open(0, old.globe.copy(0).whole())
    for send in old.globe.publish().sends:
        new.users.set_model(decode_model(send.value))
    new.topics, new.now_ms, new.counts, new.served = old.topics, old.now_ms, old.counts, old.served
    return new


def test_the_forgotten_lose_the_lists_of_all_placements_there_ever_were() -> None:
    pipeline = shop(CART, HOME)
    publish(pipeline, [event("u", "tent", at=50)])
    pipeline = other_process(pipeline, UserRules(placements=(CART,)))
    assert isinstance(pipeline.store, MemoryStore)
    control(pipeline, b'{"control":"export","user":"u","request":"r1"}')
    answer = read(pipeline.store, KEYS.privacy("u"))
    assert answer is not None
    assert b'"placements":["cart","home"]' in answer
    control(pipeline, b'{"control":"forget","user":"u","request":"r2"}')
    assert {key for key in pipeline.store if b"{u}" in key} == {KEYS.privacy("u")}


@pytest.mark.parametrize("served", [False, True])
def test_what_is_logged_is_what_was_written(served: bool) -> None:
    pipeline = shop(CART, HOME, served=served)
    publish(pipeline, [event(f"n{n}", "new", f"new{n}", at=51 + n) for n in range(40)])
    publish(pipeline, [event(user, "tent", at=150) for user in "abcdu"])
    newest: dict[tuple[str, str | None], tuple[ServedList, list[str]]] = {}
    for one, items in told(pipeline):
        newest[one.user, one.placement] = one, items
    assert {placement for _, placement in newest} == ({None, "cart", "home"} if served else {"home"})
    assert {user for user, _ in newest} == {*"abcdu", *(f"n{n}" for n in range(40))}
    for (user, placement), (one, items) in newest.items():
        found = value(pipeline, user, placement)
        assert found is not None
        assert (one.ts, items) == (found.ts, found.items)
        assert len(one.propensity) == len(items)
        assert all(0 < p <= 1 for p in one.propensity)
        new = [model == "new" for _, model in found.why]
        assert sum(new) <= HOME.exploration * HOME.k
        if placement != "home":
            assert one.propensity == [1.0] * len(items)
    shown = [found for user in "abcdu" if (found := value(pipeline, user, "home"))]
    assert any(model == "new" for found in shown for _, model in found.why)


def test_long_logs_come_in_several_records() -> None:
    events = [event(f"u{n}", "tent", "mat", at=n) for n in range(MOST_LISTS + 100)]
    pipeline = shop(served=True, events=events)
    sizes = [len(decode_served(send.value).lists) for send in pipeline.served]
    assert sum(sizes) >= len(events)
    assert max(sizes) <= MOST_LISTS


def test_new_items_come_from_the_catalogue_if_there_is_one_until_they_have_appeared_enough() -> None:
    pipeline = shop(HOME)
    listed_ = pipeline.space.encode(["fresh", "sold-out", "rare"])
    pipeline.space.listed[listed_] = True
    pipeline.items.withdraw("sold-out", True)

    def new(at: float) -> set[str]:
        users = [f"v{at}-{n}" for n in range(30)]
        publish(pipeline, [event(user, "tent", at=at) for user in users])
        found = [value(pipeline, user, "home") for user in users]
        return {i for one in found if one for i, (_, model) in zip(one.items, one.why, strict=True) if model == "new"}

    assert new(HOUR) == {"fresh", "rare"}  # the others are touched often, sold out, or not in the catalogue
    publish(pipeline, [event(f"w{n}", "fresh", at=HOUR + 60, name="view_item_list") for n in range(BELOW)])
    assert new(2 * HOUR) == {"rare"}


@pytest.mark.parametrize(
    "change", [lambda at: [event("u", "mat", at=at)], lambda at: [event("u", at=at, name="login")]]
)
def test_the_same_event_is_explored_alike_and_another_one_anew(change: Callable[[float], list[Any]]) -> None:
    """A crash may repeat a list, so it must be the same; the next event may show something else."""
    events = [*START, *(event(f"n{n}", f"new{n}", at=30) for n in range(40))]
    pipelines = [shop(HOME, events=events) for _ in range(2)]
    for pipeline in pipelines:
        publish(pipeline, [event("u", "tent", at=50)])
    pipelines[1] = other_process(pipelines[1], pipelines[1].users.rules)
    pipelines[1].users.shards[0].doubt()
    one = listed(pipelines[0], "u", "home")
    stage = pipelines[1].users
    users = stage.shards[0].users.lookup(["u"])
    asyncio.run(pipelines[1].store.flush(stage.rank(0, users, stage.last_ms(0, users)).writes))
    assert listed(pipelines[1], "u", "home") == one
    seen = set()
    for at in range(60, 75):
        publish(pipelines[0], change(at))
        seen.add(tuple(listed(pipelines[0], "u", "home") or ()))
    assert len(seen) > 5


def test_a_restarted_process_goes_on_as_if_nothing_had_been() -> None:
    events = list(Shop(seed=3, users=60, concurrent=6).events(900))
    rules = UserRules(placements=(CART, HOME, Placement("mix", k=6, per_category=2, diversity=0.3)), served=True)
    one, two = (LocalPipeline(MemoryStore(), rules, partitions=1, item_partitions=1) for _ in range(2))
    for part in range(3):
        for pipeline in (one, two):
            publish(pipeline, events[part * 300 : part * 300 + 300])
        assert isinstance(one.store, MemoryStore)
        assert isinstance(two.store, MemoryStore)
        assert dump(one.store) == dump(two.store)
        logged = [sorted(((s.user, s.ts, i, s.propensity) for s, i in told(p)), key=str) for p in (one, two)]
        assert logged[0] == logged[1]
        two = other_process(two, rules, part)
    counts = []
    for pipeline in (one, two):
        count = pipeline.users.shards[0].newcomers.count
        met = np.flatnonzero(count).astype(np.int32)
        counts.append(dict(zip(pipeline.space.ids.texts(met), count[met].tolist(), strict=True)))
    assert counts[0] == counts[1]
    assert len(counts[0]) > 100


def test_other_placements_than_before_begin_anew_and_the_same_ones_go_on() -> None:
    pipeline = shop(CART, HOME)
    publish(pipeline, [event("u", "tent", at=50)])
    more = Placement("more", k=3)
    changed = other_process(pipeline, UserRules(placements=(more, CART)))
    assert keys_written(changed, event("u", at=51, name="login")) == 1
    assert len(listed(changed, "u", "more") or ()) == 3
    without = other_process(changed, UserRules())
    assert keys_written(without, event("u", at=52, name="login")) == 0
    assert without.users.shards[0].named == {"cart", "home", "more"}

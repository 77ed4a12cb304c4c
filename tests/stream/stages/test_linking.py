"""A visitor logs in: what was touched under the cookie becomes the customer's, exactly once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import hash_ids, partition_of
from stream.decoding import decode
from stream.events import Joined, Link, Linked, Past, PastTouch
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages.user_shard import UserRules
from stream.stages.user_snapshot import copy, restore
from tests.linked_shop import (
    ANONYMOUS,
    EARLIER,
    KEYS,
    START,
    T0_S,
    P,
    carried_out,
    forgotten,
    joins,
    linked,
    listed,
    login,
    recent,
    rows,
    shop,
    view,
)
from tests.records import HOUR, T0_US, close, cut, event, publish, read, record, stream


@pytest.mark.parametrize("at", [170, 2_500])  # within the visit, and in a later one
def test_it_is_as_if_the_customer_had_done_it_all(at: float) -> None:
    linked = shop([*START, *EARLIER, *ANONYMOUS, login(at), event("ada", "mug", at=at + 5, user_pseudo_id="cookie")])
    known = [{**each, "user_id": "ada"} for each in ANONYMOUS]
    one = shop([*START, *EARLIER, *known, event("ada", at=at, name="login"), event("ada", "mug", at=at + 5)])
    assert joins(linked) == 1
    assert recent(linked, "ada") == recent(one, "ada") == ["mug", "mat", "tent", "lamp", "stove"]
    assert recent(linked, "cookie") == []
    assert rows(linked) == close(rows(one))
    for pipeline in (linked, one):
        asyncio.run(pipeline.republish())
    assert listed(linked, "ada").items == listed(one, "ada").items
    assert listed(linked, "ada").scores == pytest.approx(listed(one, "ada").scores, abs=2e-6)
    assert [send.value for send in linked.dead] == []


def test_the_list_knows_at_once_what_was_looked_at_before() -> None:
    pipeline = shop([*START, *ANONYMOUS], ranking="blend")
    assert listed(pipeline, "cookie").items
    assert listed(pipeline, "ada") is None
    publish(pipeline, [login()])
    found = listed(pipeline, "ada")
    assert "stove" in found.items
    assert {origin for origin, _ in found.why} & {"tent", "mat"}
    assert listed(pipeline, "cookie") is None  # who sits down at the computer next does not see it


def test_to_forget_the_customer_forgets_what_came_from_the_cookie() -> None:
    pipeline = shop([*START, *EARLIER, *ANONYMOUS, login()])
    forgotten(pipeline, "ada")
    assert rows(pipeline) == close(rows(shop(START)))


def test_without_the_rule_nothing_moves() -> None:
    pipeline = shop([*START, *ANONYMOUS, login()], link=False)
    assert recent(pipeline, "cookie") == ["mat", "tent"]
    assert recent(pipeline, "ada") == []
    assert (
        pipeline.topics["events"].read
        == shop([*START, *ANONYMOUS, event("ada", at=300)], link=False).topics["events"].read
    )


@pytest.mark.parametrize(
    ("both", "moved"),
    [
        (login(consent={"analytics_storage": "denied"}), False),
        (login(user="cookie"), False),
        (login(cookie="unknown"), False),
        (login(cookie="bad\tid"), False),
        (login(cookie="x" * 256), False),
        (event("ada", "mug", at=300, user_pseudo_id="cookie"), True),
        (event("ada", at=300, name="anything", user_pseudo_id="cookie"), True),
    ],
)
def test_any_learned_event_that_names_both_will_do(both: dict[str, Any], moved: bool) -> None:
    pipeline = shop([*START, *ANONYMOUS, both])
    assert (joins(pipeline), recent(pipeline, "cookie")) == ((1, []) if moved else (0, ["mat", "tent"]))


PLACEHOLDERS = ["undefined", "NULL", " null", "(not set)", "00000000-0000-0000-0000-000000000000", "[object Object]"]


@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_is_nobodys_cookie_and_no_customer(placeholder: str) -> None:
    seen = view(placeholder, "tent", at=100)
    pipeline = shop([*START, seen, *ANONYMOUS, login(cookie=placeholder), login(at=400, user=placeholder)])
    assert joins(pipeline) == 0
    assert recent(pipeline, "cookie") == ["mat", "tent"]
    assert recent(pipeline, "ada") == []


@pytest.mark.parametrize("grant", ["analytics_storage", "personalization_storage"])
def test_a_cookie_that_refuses_keeps_what_was_learned_before(grant: str) -> None:
    refusal = view("cookie", "mug", at=250) | {"consent": {grant: "denied"}}
    pipeline = shop([*START, *ANONYMOUS, refusal, login()])
    assert joins(pipeline) == 0
    assert recent(pipeline, "cookie")[-2:] == ["mat", "tent"]


def test_a_full_history_learns_of_older_touches_only_what_can_be_taken_back() -> None:
    own = [event("ada", item, at=5 * HOUR + n) for n, item in enumerate(("a", "b", "c", "d", "e", "f"))]
    pipeline = shop([*START, *ANONYMOUS, *own, login(at=6 * HOUR)], history=4)
    assert recent(pipeline, "ada") == ["f", "e", "d", "c"]
    assert rows(pipeline) == close(rows(shop([*START, *own], history=4)))


def test_a_visit_whose_first_touches_are_gone_does_not_go_on_another() -> None:
    own = [event("ada", item, at=5 * HOUR + n) for n, item in enumerate(("a", "b", "c", "d", "e"))]
    late = [view("cookie", "mug", at=5 * HOUR - 2 * HOUR)]
    pipeline = shop([*START, *late, *own, login(at=6 * HOUR)], history=5)
    assert recent(pipeline, "ada") == ["e", "d", "c", "b", "a"]
    assert "mug" not in rows(pipeline)


def test_who_refuses_meanwhile_is_taught_nothing() -> None:
    """The refusal comes behind the event with both ids, and before the history."""
    pipeline = shop([*START, *ANONYMOUS])
    events = [login(), event("ada", at=301, name="x", consent={"analytics_storage": "denied"})]
    home = partition_of(b"ada", P)
    for each in events:
        pipeline.topics["events"].append(home, each["event_timestamp"] // 1000, b"ada", msgspec.json.encode(each))
    asyncio.run(pipeline.drain())
    assert (joins(pipeline), recent(pipeline, "ada"), recent(pipeline, "cookie")) == (0, [], [])


def sent(pipeline: LocalPipeline, partition: int, records: Iterable[Any]) -> list[tuple[int | None, Link]]:
    """Links that a stage sends for some records, each with the partition it goes to."""
    sends = pipeline.users.learn(partition, list(records)).sends
    controls = [
        (send.partition, decode([record(0, send.value)]).controls[0][1]) for send in sends if send.role == "events"
    ]
    return [(home, link) for home, control in controls if isinstance(control, Linked) for link in control.moving]


def test_the_same_two_are_linked_once_an_hour_whatever_is_between_them() -> None:
    """Two browsers that take turns are linked once each."""
    pipeline = shop([])
    turns = [login(at=10 + n, cookie=cookie, name="x") for n, cookie in enumerate(("cookie", "phone") * 50)]
    events = [*(login(at=n) for n in range(3)), *turns, login(at=HOUR * 1.2), login(at=HOUR * 1.3, user="bob")]
    found = sent(pipeline, partition_of(b"ada", P), stream(events[:-1]))
    assert [(link.user, link.second - T0_S) for _, link in found] == [("cookie", 0), ("phone", 11), ("cookie", 4320)]
    assert {(where, link.to) for where, link in found if link.user == "cookie"} == {(partition_of(b"cookie", P), "ada")}
    found = sent(pipeline, partition_of(b"bob", P), stream(events[-1:], start=1_000))
    assert [(link.user, link.to) for _, link in found] == [("cookie", "bob")]


def test_logins_link_once_a_minute_and_what_follows_them_does_not() -> None:
    """Somebody else may have been there within the hour."""
    names = [(0, "x"), (10, "login"), (15, "login"), (80, "sign_up"), (90, "x"), (200, "login")]
    found = sent(shop([]), partition_of(b"ada", P), stream([login(at=at, name=name) for at, name in names]))
    assert [link.second - T0_S for _, link in found] == [0, 10, 80, 200]


EVENTS = [login(at=n * 400, cookie=f"c{n % 3}", user="ada" if n % 4 else "bob") for n in range(40)]


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(1, len(EVENTS) - 1), max_size=8))
def test_what_is_asked_for_does_not_depend_on_where_a_fetch_ends(cuts: set[int]) -> None:
    one, many = (LocalPipeline(MemoryStore(), UserRules(link=True), partitions=1, item_partitions=1) for _ in range(2))
    whole = sent(one, 0, stream(EVENTS))
    parts = [sent(many, 0, part) for part in cut(stream(EVENTS), cuts)]
    assert [link for part in parts for link in part] == whole
    assert [link.place for _, link in whole] == sorted({link.place for _, link in whole})
    assert len(whole) > 10


def test_the_links_of_a_fetch_share_a_record_per_partition() -> None:
    logins = [login(at=n, cookie=f"c{n}", user=f"u{n}") for n in range(20)]
    for events, records in ((logins, 1), ([login(at=n, cookie=f"c{n}", user=f"u{n}") for n in range(60)], 4)):
        pipeline = LocalPipeline(MemoryStore(), UserRules(link=True), partitions=1, item_partitions=1)
        sends = [send for send in pipeline.users.learn(0, stream(events)).sends if send.role == "events"]
        assert len(sends) == records
        batch = decode([record(n, send.value) for n, send in enumerate(sends)])
        moving = [link for _, control in batch.controls if isinstance(control, Linked) for link in control.moving]
        assert [link.user for link in moving] == [f"c{n}" for n in range(len(events))]


def test_histories_too_large_for_a_record_go_in_several() -> None:
    long = [f"{n:03}" + '"' * 253 for n in range(127)]  # escaped, nearly twice as long in JSON
    anonymous = [view(f"c{who}", item, at=n) for who in range(26) for n, item in enumerate(long)]
    logins = [login(at=300, cookie=f"c{who}", user=f"u{who}") for who in range(26)]
    rules = UserRules(history=127, ranking="covisit", link=True)
    pipeline = LocalPipeline(MemoryStore(), rules, partitions=1, item_partitions=1)
    publish(pipeline, [*anonymous, *logins])
    assert joins(pipeline) == 26
    assert pipeline.dead == []
    shard = pipeline.users.shards[0]
    assert shard.histories.arrays.count[shard.users.lookup([f"u{who}" for who in range(26)])].tolist() == [127] * 26


def everything(pipeline: LocalPipeline) -> Any:
    return rows(pipeline), recent(pipeline, "ada"), recent(pipeline, "cookie"), joins(pipeline)


def test_a_crash_repeats_each_step_and_changes_nothing() -> None:
    """Whoever crashes after a send: its record comes twice, the second time after more has happened."""
    pipeline = shop([*START, *EARLIER, *ANONYMOUS, event("ada", at=90, name="login")], dedup=1)
    home, target = partition_of(b"cookie", P), partition_of(b"ada", P)
    assert home != target
    before = pipeline.users.copy(home).whole()
    carried_out(pipeline, home, linked(("cookie", "ada", 300, 5)), 1_000)
    asyncio.run(pipeline.drain())
    assert joins(pipeline) == 1
    later = view("cookie", "rope", at=299)
    publish(pipeline, [later, event("ada", "mug", at=310)])
    once = everything(pipeline)
    assert once[1:] == (["mug", "mat", "tent", "lamp", "stove"], ["rope"], 1)
    for place in (5, 4, 5):  # the customer's worker says it again, or something before it
        assert not carried_out(pipeline, home, linked(("cookie", "ada", 300, place)), 1_001)
    pipeline.users.open(home, before)  # the cookie's worker starts again from before the link
    sends = carried_out(pipeline, home, linked(("cookie", "ada", 300, 5)), 1_000)
    assert [send.role for send in sends].count("events") == 1
    carried_out(pipeline, home, linked(("cookie", "ada", 300, 5)), 1_001)
    publish(pipeline, [later])
    assert everything(pipeline)[1:] == once[1:]  # the item stage skips deltas by offset, which are not those of before


def test_what_was_heard_of_each_source_is_in_the_snapshot() -> None:
    pipeline = shop([*START, *ANONYMOUS, login(), *(login(at=400 + n, cookie=f"c{n}") for n in range(30))])
    for shard in pipeline.users.shards.values():
        arrays = {name: array.copy() for name, array in copy(shard, pipeline.space).whole().items()}
        found = restore(shard.rules, pipeline.space, arrays)
        assert (found.heard, len(found.linked)) == (shard.heard, len(shard.linked))
        assert found.profiles.arrays.flags.tolist() == shard.profiles.arrays.flags[: shard.users.size].tolist()
    assert any(shard.heard for shard in pipeline.users.shards.values())
    home = partition_of(b"ada", P)
    pipeline.users.open(home, pipeline.users.copy(home).whole())
    assert (
        sent(pipeline, home, stream([login(at=500, name="x")], start=10_000)) == []
    )  # within the hour of the one before


def test_links_that_come_in_one_record_are_judged_one_after_another() -> None:
    """Two customers at the same browser: each gets what was looked at before his login."""
    pipeline = shop([*START, event("ada", at=90, name="x"), event("bob", at=90, name="x"), *ANONYMOUS])
    publish(pipeline, [event("unknown", at=170, name="x")])
    home = partition_of(b"cookie", P)
    both = linked(
        ("cookie", "ada", 110, 1), ("nobody", "ada", 110, 2), ("cookie", "bob", 130, 3), ("cookie", "bob", 160, 4)
    )
    carried_out(pipeline, home, both, 1_000)
    asyncio.run(pipeline.drain())
    assert (recent(pipeline, "ada"), recent(pipeline, "bob"), recent(pipeline, "cookie")) == (["tent"], ["mat"], [])


def test_what_was_touched_after_the_link_stays_with_the_cookie() -> None:
    """However late the link comes: who uses the browser next is somebody else."""
    after = [view("cookie", item, at=400 + n) for n, item in enumerate(("rope", "lamp"))]
    pipeline = shop([*START, event("ada", at=90, name="x"), *ANONYMOUS, *after])
    carried_out(pipeline, partition_of(b"cookie", P), linked(("cookie", "ada", 300, 1)), 1_000)
    asyncio.run(pipeline.drain())
    assert (recent(pipeline, "ada"), recent(pipeline, "cookie")) == (["mat", "tent"], ["lamp", "rope"])
    known = [{**each, "user_id": "ada"} for each in ANONYMOUS]
    assert rows(pipeline) == close(rows(shop([*START, event("ada", at=90, name="x"), *known, *after])))


@pytest.mark.parametrize("when", [0, 1, 2])
def test_the_history_of_a_customer_is_never_handed_over(when: int) -> None:
    """Whoever names another customer as his cookie learns nothing of him, and takes nothing from him."""
    victim = [event("victim", item, at=100 + n) for n, item in enumerate(("tent", "mat"))]
    if when:  # once is enough; also an event that is not learned tells who is a customer
        said = {} if when == 1 else {"consent": {"analytics_storage": "denied"}}
        anonymous = [view("victim", item, at=100 + n) for n, item in enumerate(("tent", "mat"))]
        victim = [*anonymous, event("victim", at=150, name="login", **said)]
    pipeline = shop([*START, *victim, login(cookie="victim", user="attacker")])
    assert recent(pipeline, "victim") == ["mat", "tent"]
    assert (recent(pipeline, "attacker"), joins(pipeline)) == ([], 0)
    assert sum(shard.counts["not_cookies"] for shard in pipeline.users.shards.values()) == 1


def test_of_whom_a_snapshot_does_not_say_it_counts_as_a_customer() -> None:
    pipeline = shop([*START, *ANONYMOUS])
    home = partition_of(b"cookie", P)
    arrays = pipeline.users.copy(home).whole()
    facts = msgspec.json.decode(arrays["facts"].tobytes())
    del facts["heard"]  # of before customers were noted
    old = {name: array for name, array in arrays.items() if not name.startswith("linked.")}
    pipeline.users.open(home, old | {"facts": np.frombuffer(msgspec.json.encode(facts), dtype=np.uint8)})
    publish(pipeline, [login()])
    assert (joins(pipeline), recent(pipeline, "cookie")) == (0, ["mat", "tent"])


def test_an_export_of_the_customer_tells_what_came_from_the_cookie_and_one_of_the_cookie_does_not() -> None:
    pipeline = shop([*START, *EARLIER, *ANONYMOUS, login()])
    publish(
        pipeline,
        [
            {"control": "export", "user": user, "user_id": user, "event_timestamp": T0_US + 10**9}
            for user in ("ada", "cookie")
        ],
    )
    ada, cookie = (msgspec.json.decode(read(pipeline.store, KEYS.privacy(user)) or b"") for user in ("ada", "cookie"))  # type: ignore[arg-type]
    assert [touch["item_id"] for touch in ada["history"]] == ["stove", "lamp", "tent", "mat"]
    assert cookie["history"] == []


def test_to_forget_the_cookie_forgets_what_has_not_moved() -> None:
    after = view("cookie", "rope", at=400)
    pipeline = shop([*START, *EARLIER, *ANONYMOUS, login(), after])
    forgotten(pipeline, "cookie")
    assert (recent(pipeline, "cookie"), recent(pipeline, "ada")) == ([], ["mat", "tent", "lamp", "stove"])
    forgotten(pipeline, "ada")
    assert rows(pipeline) == close(rows(shop(START)))


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_history_that_comes_after_its_owner_was_forgotten_is_not_learned(forgotten: bool) -> None:
    pipeline = shop([*START, event("ada", "stove", at=90)])
    shard = pipeline.users.shards[partition_of(b"ada", P)]
    if forgotten:
        shard.tombstones.put(hash_ids(["ada"]).tolist()[0], until=2**31, asked=1)
    touches = [PastTouch("tent", "view_item", 1_700_000_000, True)]
    joined = Joined(source=0, moving=[Past("ada", 5, touches), Past("nobody", 6, touches)])
    carried_out(pipeline, partition_of(b"ada", P), joined, 1_000)
    assert recent(pipeline, "ada") == (["stove"] if forgotten else ["stove", "tent"])


def test_a_link_that_is_sent_on_does_not_overtake_a_history_of_its_record() -> None:
    names = [f"cookie{n}" for n in range(50)]
    home = next(p for p in range(P) if p != partition_of(b"ada", P))
    here = next(name for name in names if partition_of(name.encode(), P) == home)
    there = next(name for name in names if partition_of(name.encode(), P) == partition_of(b"ada", P))
    pipeline = shop([*START, view(here, "tent", at=100), view(there, "mat", at=160), event("ada", at=90, name="login")])
    carried_out(pipeline, home, linked((here, "ada", 300, 5), (there, "ada", 300, 6)), 1_000)
    asyncio.run(pipeline.drain())
    assert (joins(pipeline), recent(pipeline, "ada")) == (2, ["mat", "tent"])


def test_a_link_is_not_carried_out_without_the_rule_and_a_history_on_its_way_is_taken() -> None:
    pipeline = shop([*START, *ANONYMOUS, event("ada", at=90, name="login")], link=False)
    carried_out(pipeline, partition_of(b"cookie", P), linked(("cookie", "ada", 300, 5)), 1_000)
    assert recent(pipeline, "cookie") == ["mat", "tent"]
    touches = [PastTouch("rope", "view_item", T0_S + 200, True)]
    carried_out(pipeline, partition_of(b"ada", P), Joined(source=9, moving=[Past("ada", 5, touches)]), 1_001)
    assert recent(pipeline, "ada") == ["rope"]


def test_what_lands_in_a_foreign_partition_goes_home() -> None:
    pipeline = shop([*START, *ANONYMOUS, event("ada", at=90, name="login")])
    wrong = (partition_of(b"cookie", P) + 1) % P
    for place in (5, 5, 4):  # what comes twice goes on once
        carried_out(pipeline, wrong, linked(("cookie", "ada", 300, place)), 1_000)
    asyncio.run(pipeline.drain())
    assert (joins(pipeline), recent(pipeline, "ada")) == (1, ["mat", "tent"])
    touches = [PastTouch("rope", "view_item", T0_S + 200, True)]
    wrong = (partition_of(b"ada", P) + 1) % P
    for place in (5, 5, 4):
        carried_out(pipeline, wrong, Joined(source=9, moving=[Past("ada", place, touches)]), 2_000)
    asyncio.run(pipeline.drain())
    assert (joins(pipeline), recent(pipeline, "ada")) == (2, ["rope", "mat", "tent"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"control": "link", "user": "c", "to": "a"},  # of before they were packed
        {"control": "link", "source": -1, "moving": []},
        {"control": "link", "source": 0, "moving": [["c", "a", 1_700_000_000, -1]]},
        {"control": "link", "source": 0, "moving": [["c", "a\u0001", 1_700_000_000, 1]]},
        {"control": "link", "source": 0, "moving": [["c\n", "a", 1_700_000_000, 1]]},
        {"control": "link", "source": 0, "moving": [["c", "a", 1_700_000_000, 1]] * 27},
        {"control": "joined", "source": 0, "moving": [["a", 1, [["i", "view_item", 5, True]]]]},
        {"control": "joined", "source": 0, "moving": [["a\n", 1, []]]},
        {"control": "returned", "source": 0, "moving": [["ada", 1, []]]},
        {"control": "returned", "source": 0, "moving": [["0" * 16, 1, [["i\n", "view_item", 1_700_000_000, True]]]]},
        {"control": "joined", "source": 0, "moving": [["a", 1, [["i\n", "view_item", 1_700_000_000, True]]]]},
    ],
)
def test_what_no_worker_would_write_is_a_dead_letter(wrong: dict[str, Any]) -> None:
    batch = decode([record(0, wrong)])
    assert not batch.controls
    assert len(batch.dead) == 1

"""A visitor logs in: what was touched under the cookie becomes the customer's, exactly once, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import hash_ids, partition_of
from stream.decoding import decode
from stream.events import Joined, Link, Past
from stream.keys import Keys, parse_list
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages.user_shard import UserRules
from tests.records import HOUR, cells, close, cut, event, publish, read, record, stream

KEYS = Keys()
P = 3
START = [event(who, item, at=n) for n, (who, item) in enumerate((w, i) for w in "ab" for i in ("tent", "mat", "stove"))]
ANONYMOUS = [event("cookie", item, at=100 + 60 * n) for n, item in enumerate(("tent", "mat"))]
EARLIER = [event("ada", item, at=20 + n) for n, item in enumerate(("stove", "lamp"))]


def login(at: float = 300, cookie: str = "cookie", user: str = "ada", **fields: Any) -> dict[str, Any]:
    return event(user, at=at, user_pseudo_id=cookie, **({"name": "login"} | fields))


def shop(events: Iterable[dict[str, Any]], **rules: Any) -> LocalPipeline:
    given: dict[str, Any] = {"ranking": "covisit", "lateness_s": 10**9} | rules
    made = UserRules(**({"link": True} | given))
    pipeline = LocalPipeline(MemoryStore(), made, partitions=P, item_partitions=2)
    publish(pipeline, events)
    return pipeline


def rows(pipeline: LocalPipeline) -> dict[str, Any]:
    """Neighbour rows by id; what was taken back leaves nothing, not even an epoch."""
    space = pipeline.space
    found = cells(space.rows, space.ids.texts(range(space.ids.size)))
    for row in found.values():
        for part in ("near", "steps"):
            row[part] = {item: value for item, value in row[part].items() if abs(value) > 1e-9}
    return {item: row for item, row in found.items() if row["sums"]["total"] > 1e-9}


def recent(pipeline: LocalPipeline, user: str) -> list[str]:
    """Items of a user's history, newest first."""
    shard = pipeline.users.shards[partition_of(user.encode(), P)]
    (index,) = shard.users.lookup([user]).tolist()
    return [] if index < 0 else pipeline.space.ids.texts(shard.histories.recent(index))  # type: ignore[arg-type]


def listed(pipeline: LocalPipeline, user: str) -> Any:
    value = read(pipeline.store, KEYS.recs(user))  # type: ignore[arg-type]  # made as a MemoryStore above
    return None if value is None else parse_list(value)


def joins(pipeline: LocalPipeline) -> int:
    return sum(shard.counts["joined"] for shard in pipeline.users.shards.values())


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


def forgotten(pipeline: LocalPipeline, user: str) -> None:
    """Forget a user, after everything."""
    request = {"control": "forget", "user": user, "user_id": user, "event_timestamp": 2 * 10**15, "request": "r"}
    publish(pipeline, [request])


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


def test_who_refuses_meanwhile_is_taught_nothing() -> None:
    """The refusal comes behind the event with both ids, and before the history."""
    pipeline = shop([*START, *ANONYMOUS])
    events = [login(), event("ada", at=301, name="x", consent={"analytics_storage": "denied"})]
    home = partition_of(b"ada", P)
    for each in events:
        pipeline.topics["events"].append(home, each["event_timestamp"] // 1000, b"ada", msgspec.json.encode(each))
    asyncio.run(pipeline.drain())
    assert (joins(pipeline), recent(pipeline, "ada"), recent(pipeline, "cookie")) == (0, [], [])


def sent(pipeline: LocalPipeline, partition: int, records: Iterable[Any]) -> list[Any]:
    """Controls that a stage sends for some records."""
    sends = pipeline.users.learn(partition, list(records)).sends
    return [(send.partition, decode([record(0, send.value)]).controls[0][1]) for send in sends if send.role == "events"]


def test_the_same_is_asked_for_once_an_hour() -> None:
    pipeline = shop([])
    events = [
        *(login(at=n) for n in range(3)),
        login(at=10, cookie="phone"),
        login(at=11),
        login(at=12),
        login(at=HOUR * 1.2),
    ]
    found = sent(pipeline, partition_of(b"ada", P), stream(events))
    assert [link.user for _, link in found] == ["cookie", "phone", "cookie", "cookie"]
    assert {(where, link.to) for where, link in found if link.user == "cookie"} == {(partition_of(b"cookie", P), "ada")}


EVENTS = [login(at=n * 400, cookie=f"c{n % 3}", user="ada" if n % 4 else "bob") for n in range(40)]


@settings(deadline=None, max_examples=20)
@given(st.sets(st.integers(1, len(EVENTS) - 1), max_size=8))
def test_what_is_asked_for_does_not_depend_on_where_a_fetch_ends(cuts: set[int]) -> None:
    rules = UserRules(link=True)
    one, many = (LocalPipeline(MemoryStore(), rules, partitions=1, item_partitions=1) for _ in range(2))
    whole = sent(one, 0, stream(EVENTS))
    parts = [sent(many, 0, part) for part in cut(stream(EVENTS), cuts)]
    assert [link for part in parts for link in part] == whole
    assert len(whole) > 10


def carried_out(pipeline: LocalPipeline, control: Link | Joined, at: int) -> None:
    """A control record at an offset of its user's partition."""
    partition = partition_of(control.user.encode(), P)
    learned = pipeline.users.learn(partition, [record(at, msgspec.json.encode(control), at=at)])
    for send in learned.sends:
        pipeline._send(send)


def test_a_crash_repeats_each_step_and_changes_nothing() -> None:
    """The cookie's shard comes back as it was before the link, and the customer's gets the same history twice."""
    pipeline = shop([*START, *EARLIER, *ANONYMOUS, event("ada", at=90, name="login")])
    home = partition_of(b"cookie", P)
    before = pipeline.users.copy(home).whole() if home != partition_of(b"ada", P) else None
    assert before is not None
    carried_out(pipeline, Link(user="cookie", to="ada"), 1_000)
    asyncio.run(pipeline.drain())
    once = rows(pipeline), recent(pipeline, "ada"), joins(pipeline)
    assert once[2] == 1
    carried_out(pipeline, Link(user="cookie", to="ada"), 1_001)  # asked for again: there is nothing left
    asyncio.run(pipeline.drain())
    assert (rows(pipeline), recent(pipeline, "ada"), joins(pipeline)) == once
    pipeline.users.open(home, before)
    learned = pipeline.users.learn(home, [record(1_000, msgspec.json.encode(Link(user="cookie", to="ada")), at=1_000)])
    (again,) = (send for send in learned.sends if send.role == "events")  # the item stage skips the deltas by offset
    pipeline._send(again)
    asyncio.run(pipeline.drain())
    assert (rows(pipeline), recent(pipeline, "ada"), joins(pipeline)) == once


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_history_that_comes_after_its_owner_was_forgotten_is_not_learned(forgotten: bool) -> None:
    pipeline = shop([*START, event("ada", "stove", at=90)])
    shard = pipeline.users.shards[partition_of(b"ada", P)]
    if forgotten:
        shard.tombstones.put(hash_ids(["ada"]).tolist()[0], until=2**31, asked=1)
    carried_out(
        pipeline, Joined(user="ada", id="link-0-1", past=[Past("tent", "view_item", 1_700_000_000, True)]), 1_000
    )
    assert recent(pipeline, "ada") == (["stove"] if forgotten else ["stove", "tent"])


def test_what_lands_in_a_foreign_partition_goes_home() -> None:
    pipeline = shop([*START, *ANONYMOUS, event("ada", at=90, name="login")])
    wrong = (partition_of(b"cookie", P) + 1) % P
    pipeline.topics["events"].append(wrong, 0, None, msgspec.json.encode(Link(user="cookie", to="ada")))
    asyncio.run(pipeline.drain())
    assert (joins(pipeline), recent(pipeline, "ada")) == (1, ["mat", "tent"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"control": "link", "user": "c"},
        {"control": "link", "user": "c", "to": "a\u0001"},
        {"control": "joined", "user": "a", "id": "x", "past": [["i", "view_item", 5, True]]},
        {"control": "joined", "user": "a", "id": "x", "past": [["i\n", "view_item", 1_700_000_000, True]]},
    ],
)
def test_what_no_worker_would_write_is_a_dead_letter(wrong: dict[str, Any]) -> None:
    batch = decode([record(0, wrong)])
    assert not batch.controls
    assert len(batch.dead) == 1

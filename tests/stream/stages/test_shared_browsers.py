"""Customers at one browser, whose partitions lag: what was touched belongs to whoever logged in next, by event time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import hash_ids, partition_of
from stream.decoding import decode
from stream.events import Returned
from stream.local import LocalPipeline
from tests.linked_shop import (
    ANONYMOUS,
    START,
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
from tests.records import HOUR, close, event, publish, record, user_of

HOME = partition_of(b"cookie", P)
KNOWN = [event(who, at=90, name="x") for who in ("ada", "ben")]
ADAS = ANONYMOUS
BENS = [view("cookie", item, at=400 + 60 * n) for n, item in enumerate(("rope", "lamp"))]
ADA, BEN = ("cookie", "ada", 300), ("cookie", "ben", 600)


def heard(*links: tuple[str, str, float], **rules: Any) -> LocalPipeline:
    """A shop that hears of links at a browser that two customers use, one after another."""
    pipeline = shop([*START, *KNOWN, *ADAS, *BENS], **rules)
    for place, link in enumerate(links):
        tell(pipeline, (*link, place))
    return pipeline


def tell(pipeline: LocalPipeline, *links: tuple[str, str, float, int]) -> None:
    """A record of links at the end of the browser's partition, and all that comes of it."""
    pipeline.topics["events"].append(HOME, pipeline.now_ms, None, msgspec.json.encode(linked(*links)))
    asyncio.run(pipeline.drain())


def everything(pipeline: LocalPipeline) -> Any:
    return [recent(pipeline, user) for user in ("ada", "ben", "cookie")]


def returned(pipeline: LocalPipeline) -> int:
    return sum(shard.counts["returned"] for shard in pipeline.users.shards.values())


def test_who_logged_in_before_gets_what_is_his_however_late_it_is_heard() -> None:
    late, in_time = heard(BEN, ADA), heard(ADA, BEN)
    assert everything(late) == everything(in_time) == [["mat", "tent"], ["lamp", "rope"], []]
    assert (returned(late), returned(in_time)) == (1, 0)
    assert (joins(late), joins(in_time)) == (2, 2)
    theirs = zip([*ADAS, *BENS], ["ada", "ada", "ben", "ben"], strict=True)
    known = [{**each, "user_id": user} for each, user in theirs]
    for pipeline in (late, in_time):
        assert rows(pipeline) == close(rows(shop([*START, *KNOWN, *known])))
        asyncio.run(pipeline.republish())
    for user in ("ada", "ben"):
        assert listed(late, user).items == listed(in_time, user).items
    assert late.dead == []


def test_both_in_one_record_in_whatever_order() -> None:
    pipeline = heard()
    tell(pipeline, (*BEN, 1), (*ADA, 2))
    assert (everything(pipeline), returned(pipeline)) == ([["mat", "tent"], ["lamp", "rope"], []], 0)


def test_what_came_late_from_before_anothers_login_is_not_taken() -> None:
    pipeline = heard(ADA)
    publish(pipeline, [view("cookie", "mug", at=290)])
    tell(pipeline, (*BEN, 9))
    assert everything(pipeline) == [["mat", "tent"], ["lamp", "rope"], ["mug"]]


def test_a_crash_repeats_what_is_given_back_and_changes_nothing() -> None:
    pipeline = heard(BEN)
    before = pipeline.users.copy(HOME).whole()
    carried_out(pipeline, HOME, linked((*ADA, 5)), 1_005)
    asyncio.run(pipeline.drain())
    publish(pipeline, [event("ben", "mug", at=700)])
    once = everything(pipeline)
    assert once == [["mat", "tent"], ["mug", "lamp", "rope"], []]
    pipeline.users.open(HOME, before)  # starts again from before Ada's login was heard
    controls = [
        decode([record(0, send.value)]).controls[0][1]
        for send in carried_out(pipeline, HOME, linked((*ADA, 5)), 1_005)
        if send.role == "events"
    ]
    assert [type(control).__name__ for control in controls] == ["Joined", "Returned"]
    asyncio.run(pipeline.drain())
    assert (everything(pipeline), returned(pipeline)) == (once, 1)
    back = next(control for control in controls if isinstance(control, Returned))
    assert back.moving[0].person == f"{hash_ids(['ben']).tolist()[0]:016x}"  # not the id: it may be forgotten by then


def test_what_a_forgotten_customer_took_goes_to_nobody_any_more() -> None:
    """Whoever names an earlier time at that browser would else bring back what was to be forgotten."""
    pipeline = heard(BEN)
    forgotten(pipeline, "ben")
    assert [len(shard.claims) for shard in pipeline.users.shards.values()] == [0] * P
    tell(pipeline, (*ADA, 5))
    assert everything(pipeline) == [[], [], []]
    assert rows(pipeline) == close(rows(shop(START)))
    assert pipeline.dead == []


def test_to_forget_the_cookie_forgets_who_took_what() -> None:
    pipeline = heard(BEN)
    assert len(pipeline.users.shards[HOME].claims) == 1
    forgotten(pipeline, "cookie")
    assert len(pipeline.users.shards[HOME].claims) == 0


@pytest.mark.parametrize(("later", "kept"), [(HOUR, 2), (3 * HOUR, 1)])
def test_a_login_is_remembered_as_long_as_another_may_be_late(later: int, kept: int) -> None:
    pipeline = heard(BEN, lateness_s=2 * HOUR)
    publish(pipeline, [view("cookie", "mug", at=600 + later)])
    tell(pipeline, (*ADA, 5))
    assert len(pipeline.users.shards[HOME].claims) == kept
    assert (recent(pipeline, "ada") == []) == (kept == 1)


def test_who_took_what_is_in_the_snapshot_unless_nothing_is_linked_any_more() -> None:
    pipeline = heard(BEN)
    arrays = pipeline.users.copy(HOME).whole()
    pipeline.users.open(HOME, arrays)
    tell(pipeline, (*ADA, 5))
    assert everything(pipeline) == [["mat", "tent"], ["lamp", "rope"], []]
    for rules, kept in (({"link": False}, 0), ({}, 1)):
        other = shop([], **rules)
        other.users.open(HOME, {name: array.copy() for name, array in arrays.items()})
        assert len(other.users.shards[HOME].claims) == kept
    old = {name: array for name, array in arrays.items() if not name.startswith("claims.")}
    pipeline.users.open(HOME, old)
    assert len(pipeline.users.shards[HOME].claims) == 0


class Visits(NamedTuple):
    """What happened: touches of (cookie, or customer, item, second) and logins of (cookie, customer, second)."""

    touches: list[tuple[str, str, int]]
    logins: list[tuple[str, str, int]]


def plainly(visits: Visits) -> list[tuple[str, str, int]]:
    """Touches with their owners in order of time: whoever logs in next at a browser, else the browser."""
    found = []
    for who, item, at in visits.touches:
        after = [(second, to) for cookie, to, second in visits.logins if cookie == who and second >= at]
        found.append((min(after, default=(0, who))[1], item, at))
    return sorted(found, key=lambda touch: touch[2])


def lagging(pipeline: LocalPipeline, events: Sequence[dict[str, Any]], turns: Sequence[tuple[int, int]]) -> None:
    """Events are all written; partitions take turns with so many records each, then all is drained."""
    topic = pipeline.topics["events"]
    for each in events:
        home = partition_of(user_of(each).encode(), P)
        topic.append(home, each["event_timestamp"] // 1000, None, msgspec.json.encode(each))
    for partition, pipeline.batch in turns:
        asyncio.run(pipeline.step_user(partition))
    pipeline.batch = 2_000
    asyncio.run(pipeline.drain())


@st.composite
def days(draw: st.DrawFn) -> Visits:
    """Two browsers, four customers; an item and a moment for each touch, a moment of its own for each login."""
    moments = draw(st.lists(st.integers(0, 90), unique=True, max_size=24))
    whose = st.sampled_from(["cookie", "phone", "cookie", "phone", "ada", "ben"])
    logs = st.tuples(st.sampled_from(["cookie", "phone"]), st.sampled_from(["ada", "ben", "cyd", "dan"]))
    made = Visits([], [])
    for moment in moments:
        if draw(st.booleans()):
            made.touches.append((draw(whose), f"item{moment}", 200 + 70 * moment))
        else:
            made.logins.append((*draw(logs), 200 + 70 * moment))
    made.touches.sort(key=lambda touch: touch[2])
    return made


@settings(deadline=None, max_examples=60)
@given(days(), st.lists(st.tuples(st.integers(0, P - 1), st.integers(1, 3)), max_size=30), st.randoms())
def test_each_touch_belongs_to_the_next_login_however_partitions_lag(
    visits: Visits, turns: list[tuple[int, int]], random: Any
) -> None:
    known = [event(who, at=90, name="x") for who in ("ada", "ben", "cyd", "dan")]
    linked_ = shop([*START, *known])
    touched = [
        event(who, item, at=at) if who in ("ada", "ben") else view(who, item, at=at) for who, item, at in visits.touches
    ]
    publish(linked_, touched)
    logins = [login(at, cookie, to) for cookie, to, at in visits.logins]
    random.shuffle(logins)
    lagging(linked_, logins, turns)
    owned = plainly(visits)
    expected = shop([*START, *known, *(event(who, item, at=at) for who, item, at in owned)])
    for who in ("ada", "ben", "cyd", "dan", "cookie", "phone"):
        assert recent(linked_, who) == [item for owner, item, _ in reversed(owned) if owner == who]
    assert rows(linked_) == close(rows(expected))
    assert linked_.dead == []

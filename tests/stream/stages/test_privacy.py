"""Forgetting and export: what was learned without a person is what is left of it, and nothing tells of the person."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import partition_of
from models.neighbour_rows import NeighbourRows
from stream.answers import Exported, Forgotten, parse_answer
from stream.decoding import Record
from stream.keys import Keys
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.recordings import open_recording
from stream.stages.door import Door
from stream.stages.sends import Send
from stream.stages.user_shard import UserRules
from stream.stages.user_snapshot import copy
from tests.learned import users_of
from tests.records import T0_US, cut, event, publish, read, read_hash, record, user_of
from tests.worker_process import ROOM, balance

KEYS = Keys()
HISTORY = 127
Event = dict[str, Any]
Sums = dict[tuple[str, ...], tuple[float, int]]


def pipeline_of(rules: UserRules | None = None, partitions: int = 2) -> LocalPipeline:
    """A pipeline whose bounds drop nothing."""
    rules = rules or UserRules(history=HISTORY, lateness_s=10**9)
    pipeline = LocalPipeline(MemoryStore(), rules, partitions=partitions, item_partitions=2)
    pipeline.space.rows = NeighbourRows(ROOM, ROOM)
    return pipeline


def request(user: str, kind: str = "forget", at: float = 1e6, **fields: Any) -> Event:
    """A request as a record of topic ``events``, made `at` seconds after T0."""
    return {"control": kind, "user": user, "request": "r1", "asked_ms": T0_US // 1000 + int(at * 1000), **fields}


def ask(pipeline: LocalPipeline, user: str, kind: str = "forget", **fields: Any) -> Forgotten | Exported:
    """Carry out a request; its answer."""
    asked = {"event_timestamp": T0_US + 2 * 10**12, "user_id": user, **request(user, kind, **fields)}
    publish(pipeline, [asked])
    value = read(pipeline.store, KEYS.privacy(user))  # type: ignore[arg-type]
    assert value is not None
    return parse_answer(value)


def forget(pipeline: LocalPipeline, user: str, **fields: Any) -> Forgotten:
    report = ask(pipeline, user, **fields)
    assert isinstance(report, Forgotten)
    return report


def people(pipeline: LocalPipeline) -> dict[str, dict[str, Any]]:
    """What was learned of users."""
    found: dict[str, dict[str, Any]] = {}
    for shard in pipeline.users.shards.values():
        found |= users_of(shard, pipeline.space)
    return found


def sums(pipeline: LocalPipeline) -> Sums:
    """Every sum over users, with its epoch, by name; zeros left out."""
    space = pipeline.space
    rows, found = space.rows.arrays, Sums()
    names = space.ids.texts(range(space.ids.size))
    for n, name in enumerate(names):
        found[name, "trend"] = float(space.trend[n]), int(space.trend_epoch[n])
        if (row := int(rows.row[n])) >= 0:
            epoch = int(rows.epoch[row])
            found[name, "total"] = float(rows.total[row]), epoch
            cells = ((rows.item, rows.value, rows.size, "near"), (rows.step_item, rows.step_value, rows.steps, "step"))
            for items, values, size, kind in cells:
                for item, value in zip(items[row, : size[row]], values[row, : size[row]], strict=True):
                    found[name, kind, names[item]] = float(value), epoch
    return {key: (value, epoch) for key, (value, epoch) in found.items() if value != 0}


def different(mine: Sums, theirs: Sums, before: Sums, full: Collection[str] = ()) -> list[tuple[str, ...]]:
    """Sums that differ by more than 1e-9 of what they were before something was subtracted.

    Cells of full rows are left out: which of them were dropped depends on all that ever came.
    """

    def at(sums: Sums, key: tuple[str, ...], epoch: int) -> float:
        value, own = sums.get(key, (0.0, epoch))
        return math.ldexp(value, own - epoch)

    wrong = [key for key in mine.keys() | theirs.keys() if key not in before]
    for key, (value, epoch) in before.items():
        if abs(at(mine, key, epoch) - at(theirs, key, epoch)) > 1e-9 * value:
            wrong.append(key)
    return [key for key in wrong if key[0] not in full or key[1] in {"total", "trend"}]


def visits(pipeline: LocalPipeline) -> int:
    return sum(shard.counts["visits"] for shard in pipeline.items.shards.values())


def without(events: Iterable[Event], gone: Collection[str]) -> list[Event]:
    return [each for each in events if user_of(each) not in gone]


def check_equal(
    events: Sequence[Event], gone: Sequence[str], most_full: int = 0, *, again: bool = False
) -> list[Forgotten]:
    """learn(A + B), then forget(A), is learn(B), also when A comes again; so many rows may be full."""
    one, other = pipeline_of(), pipeline_of()
    publish(one, events)
    publish(other, without(events, gone))
    before = sums(one)
    rows = one.space.rows.arrays
    full = {
        one.space.ids.text(item)
        for item in range(one.space.ids.size)
        if (row := rows.row[item]) >= 0 and max(rows.size[row], rows.steps[row]) == ROOM
    }
    assert len(full) <= most_full
    reports = [forget(one, user) for user in gone]
    if again:
        theirs = [each | {"event_id": f"again{n}"} for n, each in enumerate(events) if user_of(each) in gone]
        publish(one, theirs)
        assert sum(shard.counts["forgotten"] for shard in one.users.shards.values()) == len(theirs)
    assert people(one) == people(other)
    assert different(sums(one), sums(other), before, full) == []
    assert visits(one) == visits(other)
    return reports


VISITS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from(["tent", "mat", "pan", "lid", "cup"]),
        st.sampled_from(["view_item", "add_to_cart", "purchase", "search"]),
        st.integers(0, 40_000),
    ),
    max_size=40,
)


def walk(steps: Iterable[tuple[str, str, str, int]]) -> list[Event]:
    """Events by rising time."""
    at, found = 0, []
    for user, item, name, gap in steps:
        at += gap
        found.append(event(user, item, at=at, name=name))
    return found


@settings(deadline=None, max_examples=25)
@given(VISITS, st.sets(st.sampled_from(["a", "b", "c"])))
def test_what_is_left_is_what_would_be_learned_without_them(
    steps: list[tuple[str, str, str, int]], gone: set[str]
) -> None:
    events = walk(steps)
    for report, user in zip(check_equal(events, sorted(gone)), sorted(gone), strict=True):
        assert report.known == any(user_of(each) == user for each in events)
        assert not report.cut


def test_visitors_of_a_real_shop_are_forgotten_without_a_trace(data: Path) -> None:
    events = list(map(dict, open_recording(str(data / "yoochoose100k.csv.gz"))))
    gone = random.Random(50).sample(sorted({user_of(each) for each in events}), 500)
    reports = check_equal(events, gone, most_full=60, again=True)  # of 2,933
    assert all(report.known and not report.cut for report in reports)
    assert sum(report.touches for report in reports) > 100


# one record among others


EVENTS = walk([(user, item, "view_item", 60) for item in ("tent", "mat", "pan", "lid") for user in ("a", "b")])
MIDDLE = 5
STREAM = [
    *(msgspec.json.encode(each) for each in EVENTS[:MIDDLE]),
    msgspec.json.encode(request("a", at=60 * (MIDDLE + 0.5))),
    *(msgspec.json.encode(each) for each in EVENTS[MIDDLE:]),
]
RECORDS = [
    LocalRecord(offset, T0_US // 1000 + 60_000 * (offset + 1), b"k", value) for offset, value in enumerate(STREAM)
]


def outcome(batches: Iterable[Sequence[Record]], *, restart: bool = False) -> tuple[Any, ...]:
    """What a user stage sends and knows after some batches, and what it answered."""
    pipeline = pipeline_of(partitions=1)
    stage, sends, answers = pipeline.users, list[Send](), list[str]()
    for batch in batches:
        learned = stage.learn(0, batch)
        sends += learned.sends
        answers += [answer.user for answer in learned.answers]
        for send in learned.sends:
            pipeline._send(send)
        if restart:
            stage.open(0, stage.copy(0).whole())
    for partition in pipeline.items.shards:
        pipeline.items.learn(partition, pipeline.topics["covisits"].take(partition, 1000))
    return people(pipeline), sums(pipeline), visits(pipeline), answers, dict(stage.shards[0].counts)


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(1, len(RECORDS) - 1)), st.booleans())
def test_it_makes_no_difference_where_a_fetch_ends(cuts: set[int], restart: bool) -> None:
    users, found, touched, answers, counts = outcome(cut(RECORDS, cuts), restart=restart)
    whole = outcome([RECORDS])
    assert (users, touched, answers, counts) == (whole[0], whole[2], whole[3], whole[4])
    assert different(found, whole[1], whole[1]) == []
    assert answers == ["a"]
    # events before the request were learned and are gone, events behind it began a new user
    assert [item for item, _, _ in users["a"]["history"]] == [
        each["items"][0]["item_id"] for each in reversed(EVENTS[MIDDLE:]) if user_of(each) == "a"
    ]
    assert len(users["b"]["history"]) == 4
    assert counts["learned"] == len(EVENTS)


# afterwards


def test_a_replay_does_not_bring_the_person_back_and_the_books_add_up() -> None:
    events = [each | {"event_id": f"e{n}"} for n, each in enumerate(EVENTS)]
    pipeline = pipeline_of()
    publish(pipeline, events)
    assert forget(pipeline, "a", at=3600).known
    before, knew = sums(pipeline), people(pipeline)
    fresh = [each | {"event_id": f"again{n}"} for n, each in enumerate(events) if user_of(each) == "a"]
    publish(pipeline, [*events, *fresh])
    assert (people(pipeline), sums(pipeline)) == (knew, before)
    counts = sum((shard.counts for shard in pipeline.users.shards.values()), start=Counter[str]())
    assert balance(counts) == 2 * len(events) + len(fresh)
    assert counts["forgotten"] == 2 * len(fresh)
    assert counts["duplicates"] == len(events) - len(fresh)

    publish(pipeline, [event("a", "tent", at=3600.5), event("a", "cup", at=3601)])
    assert [item for item, _, _ in people(pipeline)["a"]["history"]] == ["cup"]  # to the second


@pytest.mark.parametrize("ranking", ["covisit", "blend"])
def test_no_byte_of_the_person_is_left_in_a_snapshot(ranking: str) -> None:
    name = "ada.lovelace@example.org"
    events = [event(name, item, at=n) for n, item in enumerate(("only-hers-1", "only-hers-2"))]
    pipeline = pipeline_of(UserRules(history=HISTORY, lateness_s=10**9, ranking=ranking))
    publish(pipeline, [*EVENTS, *events])
    forget(pipeline, name)
    publish(pipeline, [each | {"event_id": "replayed"} for each in events])
    if ranking == "blend":
        asyncio.run(pipeline.republish())  # others were shown the items as popular ones
    for shard in pipeline.users.shards.values():
        arrays = copy(shard, pipeline.space).whole()
        whole = b"".join(array.tobytes() for array in arrays.values())
        assert name[8:].encode() not in whole
        assert b"only-hers" not in whole
    assert [key for key in pipeline.store if name.encode() in key] == [KEYS.privacy(name)]  # type: ignore[attr-defined]


def test_everything_that_only_the_person_did_disappears_from_the_lists() -> None:
    pipeline = pipeline_of()
    publish(pipeline, [*EVENTS, event("eve", "veil", at=500), event("eve", "mask", at=560)])
    store: MemoryStore = pipeline.store  # type: ignore[assignment]
    trending = KEYS.trending()
    assert b"veil" in (read(store, trending) or b"")
    assert b"mask" in (read(store, KEYS.similar("veil")) or b"")
    assert read_hash(store, KEYS.profile("eve"))
    report = forget(pipeline, "eve")
    assert (report.touches, report.pairs, report.keys) == (2, 1, 3)
    assert b"veil" not in (read(store, trending) or b"")
    assert read(store, KEYS.similar("veil")) is read(store, KEYS.similar("mask")) is None
    assert {read(store, key) for key in KEYS.user_keys("eve")[:2]} == {None}
    assert read_hash(store, KEYS.profile("eve")) == {}


def test_a_full_history_is_told_and_what_it_still_holds_is_subtracted() -> None:
    pipeline = pipeline_of(UserRules(history=3))
    publish(pipeline, EVENTS)
    report = forget(pipeline, "a")
    assert (report.cut, report.touches, report.pairs) == (True, 3, 3)
    assert visits(pipeline) == len(EVENTS) - 3


def test_a_request_that_comes_again_does_nothing_and_a_new_one_does() -> None:
    pipeline = pipeline_of()
    publish(pipeline, EVENTS)
    first = forget(pipeline, "a", at=3600)
    assert (first.known, first.already, first.until_ms) == (True, False, T0_US // 1000 + 3_600_000)
    publish(pipeline, [event("a", "cup", at=4000)])
    again = forget(pipeline, "a", at=3600)
    assert (again.known, again.already, again.until_ms, again.keys) == (False, True, first.until_ms, 0)
    assert "a" in people(pipeline)
    assert forget(pipeline, "a", at=4100).known
    assert "a" not in people(pipeline)
    assert not forget(pipeline, "nobody", at=4100).known


def test_events_ahead_of_the_request_are_forgotten_too() -> None:
    pipeline = pipeline_of(partitions=1)
    publish(pipeline, [event("a", "tent", at=100), event("b", "mat", at=200)])
    report = forget(pipeline, "a", at=50)
    assert report.until_ms == T0_US // 1000 + 200_000  # the partition's watermark


def test_lists_that_a_predecessor_wrote_too_late_are_deleted_again() -> None:
    pipeline = pipeline_of(partitions=1)
    publish(pipeline, EVENTS)
    forget(pipeline, "a")
    again = pipeline.users.learn(0, [record(99, {"control": "rank", "users": ["a", "b", "never-seen"]})])
    (answer,) = again.answers
    assert answer.user == "a"
    assert len(answer.writes) == 3
    assert pipeline.users.shards[0].users.texts(again.users) == ["b"]


def test_a_request_in_the_wrong_partition_is_sent_on() -> None:
    pipeline = pipeline_of()
    home = partition_of(b"a", 2)
    learned = pipeline.users.learn(1 - home, [record(0, request("a"))])
    (send,) = learned.sends
    assert (send.role, send.partition, send.key) == ("events", home, b"a")
    assert learned.answers == []
    assert len(pipeline.users.shards[1 - home].tombstones) == 0
    found = pipeline.users.learn(home, [record(0, send.value, at=1e6)])
    assert [answer.user for answer in found.answers] == ["a"]


def test_an_export_tells_all_that_is_kept() -> None:
    pipeline = pipeline_of()
    consent = {"analytics_storage": "granted", "ad_personalization": "denied"}
    publish(
        pipeline,
        [
            event("a", "tent", at=10, consent=consent),
            event("a", "mat", at=20, name="purchase"),
            event("b", "tent", at=30),
        ],
    )
    told = ask(pipeline, "a", "export")
    assert isinstance(told, Exported)
    assert told.known
    assert [(touch.item_id, touch.event_name) for touch in told.history] == [("tent", "view_item"), ("mat", "purchase")]
    assert [touch.event_timestamp - T0_US for touch in told.history] == [10_000_000, 20_000_000]
    assert told.profile["events"] == 2
    assert told.affinity.keys() == {"cat-t", "cat-m"}
    assert told.consent == consent
    assert told.segment == -1
    assert ask(pipeline, "nobody", "export") == Exported(request="r1", known=False)
    assert people(pipeline).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"control":"forget"}', "unknown_shape"),
        (b'{"control":"forget","user":""}', "unknown_shape"),
        (b'{"control":"export","user":"a\\u0000b"}', "id_invalid"),
        (b'{"control":"rank","users":["a\\u0000b"]}', "id_invalid"),
    ],
)
def test_a_request_about_nobody_is_a_dead_letter(value: bytes, reason: str) -> None:
    pipeline = pipeline_of(partitions=1)
    (send,) = pipeline.users.learn(0, [record(0, value)]).sends
    assert send.role == "dlq"
    assert dict(send.headers)["reason"] == reason.encode()


# the door


def passed(value: bytes, age_s: float = 0.0) -> Send:
    (send,) = Door("privacy", 4).pass_on(0, [record(7, value)], T0_US // 1000 + int(age_s * 1000))
    return send


def test_the_door_passes_requests_on_into_the_partition_of_their_user() -> None:
    send = passed(b'{"control":"forget","user":"a","request":"r9"}', age_s=10**6)
    assert (send.role, send.key, send.partition) == ("events", b"a", partition_of(b"a", 4))
    asked = {"control": "forget", "user": "a", "request": "r9", "asked_ms": T0_US // 1000}
    assert msgspec.json.decode(send.value) == asked


@pytest.mark.parametrize("value", [b"", b"{", b'{"control":"rank_all"}', b'{"event_name":"login","user_id":"u"}'])
def test_what_is_no_request_becomes_a_dead_letter_of_the_door(value: bytes) -> None:
    send = passed(value)
    headers = dict(send.headers)
    assert (send.role, send.value, headers["topic"], headers["offset"]) == ("dlq", value, b"privacy", b"7")


def test_an_export_that_nobody_waits_for_any_more_is_not_passed_on() -> None:
    value = b'{"control":"export","user":"a","request":"r9"}'
    assert passed(value, age_s=599).role == "events"
    assert Door("privacy", 4).pass_on(0, [record(7, value)], T0_US // 1000 + 600_000) == []


def test_a_snapshot_of_the_door_is_an_offset() -> None:
    door = Door("privacy", 4)
    door.open(0, door.copy(0).whole())
    assert door.copy(0).whole() == {}

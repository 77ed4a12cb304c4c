from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import partition_of
from stream.decoding import decode
from stream.keys import Keys
from stream.local import LocalRecord
from stream.memory_store import MemoryStore
from stream.stages.admission import admit
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules, UserShard
from stream.stages.user_snapshot import copy, restore
from tests.records import HOUR, T0_US, cut, event, read_hash, record, stream, written

DAY = 24 * HOUR
DENIED = {"analytics_storage": "denied"}
GRANTED = {"analytics_storage": "granted"}


def judged(
    records: list[LocalRecord], *, cuts: Iterable[int] = (), rules: UserRules | None = None, restart: bool = False
) -> tuple[list[bool], Counter[str]]:
    """Verdicts over a stream of one partition, cut into batches, perhaps with a restart after each of them."""
    shard, verdicts = UserShard(rules or UserRules(), 1), list[bool]()
    space = ItemSpace(1)
    for batch in cut(records, cuts):
        verdicts += admit(shard, decode(batch), 0, 1).keep.tolist()
        if restart:
            shard = restore(shard.rules, space, copy(shard, space).whole())
    return verdicts, +shard.counts


def test_repeats_are_known_across_batches_and_restarts() -> None:
    events = [event("u", "tent", event_id=name) for name in ["a", "b", "a", "a", "c", "b"]]
    for cuts in ([], [1, 2, 3, 4, 5], [3]):
        for restart in (False, True):
            verdicts, counts = judged(stream(events), cuts=cuts, restart=restart)
            assert verdicts == [True, True, False, False, True, False]
            assert counts == {"learned": 3, "duplicates": 3}


def test_the_window_of_repeats_has_an_end() -> None:
    events = [event("u", event_id=name) for name in ["a", "b", "c", "a", "c"]]
    verdicts, _ = judged(stream(events), rules=UserRules(dedup=2))
    assert verdicts == [True, True, True, True, False]


def test_events_without_an_id_are_told_apart_by_their_place() -> None:
    verdicts, counts = judged([record(0, [event("u"), event("u")]), record(1, event("u"))])
    assert verdicts == [True] * 3
    assert counts == {"learned": 3, "without_id": 3}


def test_late_is_older_than_the_watermark_by_more_than_allowed() -> None:
    times = [0, DAY + 1, 1, 0.5, DAY - 5]
    for cuts in ([], [1, 2, 3, 4]):
        for restart in (False, True):
            verdicts, counts = judged(stream(event("u", at=at) for at in times), cuts=cuts, restart=restart)
            assert verdicts == [True, True, True, False, True]
            assert counts["late"] == 1
    assert judged(stream(event("u", at=at) for at in times), rules=UserRules(lateness_s=2 * DAY))[1]["late"] == 0


def test_a_fast_clock_moves_the_watermark_by_five_minutes_at_most() -> None:
    rules = UserRules(lateness_s=600)
    ahead = record(0, event("u", at=3_000), at=0)  # within the hour that is not absurd
    for at, kept in ((-299, True), (-301, False)):
        verdicts, _ = judged([ahead, record(1, event("v", at=at), at=0)], rules=rules)
        assert verdicts == [True, kept]


@pytest.mark.parametrize("restart", [False, True])
def test_consent_holds_from_the_event_that_says_so(restart: bool) -> None:
    said: list[dict[str, str] | None] = [None, DENIED, None, {"ad_personalization": "granted"}, GRANTED, None]
    events = [event("u", consent=consent) for consent in said] + [event("v")]
    for cuts in ([], [1, 2, 3, 4, 5, 6], [2, 5]):
        verdicts, counts = judged(stream(events), cuts=cuts, restart=restart)
        assert verdicts == [True, False, False, False, True, True, True]
        assert counts["denied"] == 3


def test_where_the_default_is_no_only_the_granted_are_learned() -> None:
    events = [event("u"), event("v", consent=GRANTED), event("u"), event("v"), event("u", consent=DENIED)]
    for cuts in ([], [1, 2, 3, 4]):
        verdicts, counts = judged(stream(events), cuts=cuts, rules=UserRules(consent=False))
        assert verdicts == [False, True, False, True, False]
        assert counts["denied"] == 3


def test_a_refused_event_changes_no_consent() -> None:
    """A repeat says nothing new, and what comes too late may have been taken back since."""
    events = [event("u", event_id="a", consent=GRANTED), event("u", at=DAY + 9, event_id="b", consent=DENIED)]
    events += [event("u", event_id="a", consent=GRANTED), event("u", event_id="c", at=1, consent=GRANTED)]
    verdicts, counts = judged(stream([*events, event("u", at=DAY + 10)]))
    assert verdicts == [True, False, False, False, False]
    assert counts == {"learned": 1, "denied": 2, "duplicates": 1, "late": 1, "without_id": 1}


def test_a_refusal_holds_however_late_it_comes() -> None:
    """Counted as late and not as denied, and learned from no more than other late events."""
    late = event("u", at=1, consent=DENIED, event_id="late")
    for cuts in ([], [1, 2, 3, 4]):
        events = [event("u", consent=GRANTED), event("v", at=DAY + 9), late, event("u", at=DAY + 10), event("v", at=9)]
        verdicts, counts = judged(stream(events), cuts=cuts)
        assert verdicts == [True, True, False, False, False]
        assert (counts["late"], counts["denied"], counts["learned"]) == (2, 1, 2)


def test_whoever_refuses_late_loses_the_keys_at_once() -> None:
    stage = UserStage(ItemSpace(1), Keys(), UserRules(), 1)
    stage.open(0, None)
    stage.learn(0, stream([event("u", "tent"), event("v", "mat", at=DAY + 9)]))
    refusal = {"personalization_storage": "denied"}
    learned = stage.learn(0, stream([event("u", at=1, consent=refusal), event("w", at=1, consent=GRANTED)], 2))
    assert stage.shards[0].users.texts(learned.users) == ["u"]
    assert len(stage.rank(0, learned.users, learned.ts_ms, force=True).writes)


def user_of(partition: int, partitions: int = 4) -> str:
    return next(f"u{n}" for n in range(1_000) if partition_of(f"u{n}".encode(), partitions) == partition)


def test_foreign_events_go_where_they_belong_and_are_learned_there_once() -> None:
    here, there = user_of(1), user_of(2)
    stage = UserStage(ItemSpace(1), Keys(), UserRules(), 4)
    stage.open(1, None)
    stage.open(2, None)
    told = b' { "event_name":"view_item", "user_id":"%s", "event_id":null, "item_id":"mat" } \n' % there.encode()
    batch = [event(here, "tent"), event(there, "tent", at=3, event_id="own"), msgspec.Raw(told)]
    sent = stage.learn(1, [record(7, batch, at=5)]).sends
    moved = [send for send in sent if send.role == "events"]
    assert [(send.key, send.partition, send.timestamp_ms) for send in moved] == [
        (there.encode(), 2, record(0, b"", at=5).timestamp)
    ] * 2
    assert +stage.shards[1].counts == {"learned": 1, "rekeyed": 2, "without_id": 2}
    events = decode([record(n, send.value, at=5) for n, send in enumerate(moved)])
    assert events.dead == []
    assert (events.event_id, events.user) == (["own", "rekeyed-1-7-2"], [there] * 2)
    later = decode([record(n, send.value, at=9 * HOUR) for n, send in enumerate(moved)])
    assert later.ts == events.ts == [T0_US + 3_000_000, T0_US + 5_000_000]  # the broker gives records its own time
    again = stage.learn(1, [record(7, batch, at=5)]).sends  # a zombie's and its successor's are identical
    assert [send for send in again if send.role == "events"] == moved

    arrived = [record(n, send.value, at=5) for n, send in enumerate([*moved, *moved])]
    stage.learn(2, arrived)
    assert stage.shards[2].counts["learned"] == 2
    assert stage.shards[2].counts["duplicates"] == 2


def test_foreign_events_move_no_watermark_and_mark_no_id() -> None:
    here, there = user_of(1), user_of(2)
    shard = UserShard(UserRules(), 1)
    events = [event(there, event_id="a", at=3 * DAY), event(here, event_id="a"), event(here, at=1)]
    assert admit(shard, decode(stream(events)), 1, 4).keep.tolist() == [False, True, True]


def test_who_changes_consent_has_a_profile_that_says_so() -> None:
    store, stage = MemoryStore(), UserStage(ItemSpace(1), Keys(), UserRules(), 1)
    stage.open(0, None)
    refusal = {"ad_personalization": "denied"}
    told = []
    for n, said in enumerate([None, refusal, refusal, GRANTED]):
        learned = stage.learn(0, [record(n, event("u", "tent", at=n, consent=said), at=n)])
        written(stage.rank(0, learned.users, learned.ts_ms).writes, into=store)
        profile = read_hash(store, Keys().profile("u"))
        told.append((profile[b"events"], profile[b"consent"]))
    assert told[0] == (b"1", b"0")
    assert told[1] == told[2] == (b"2", b"32")
    assert told[3][0] == b"4"


def test_a_profile_tells_money() -> None:
    store, stage = MemoryStore(), UserStage(ItemSpace(1), Keys(), UserRules(), 1)
    stage.open(0, None)
    bought = event("u", "tent", name="purchase", value=99.5)
    learned = stage.learn(0, stream([bought, event("u", "mat", at=14 * DAY)]))
    written(stage.rank(0, learned.users, learned.ts_ms).writes, into=store)
    assert read_hash(store, Keys().profile("u"))[b"value"] == b"49.75"


USERS = st.sampled_from([f"u{n}" for n in range(6)])
CONSENTS = st.sampled_from([None, None, None, DENIED, GRANTED, {"personalization_storage": "denied"}])
TIMES = st.sampled_from([0, 1, 60, HOUR, DAY, DAY + 1, 2 * DAY, 2 * DAY + 7])
EVENTS = st.builds(
    lambda user, name, at, consent: event(user, "tent", at=at, event_id=name, consent=consent),
    USERS,
    st.sampled_from("abcdefghij") | st.none(),
    TIMES,
    CONSENTS,
)
VALUES = EVENTS | st.lists(EVENTS | st.just({"bad": 1}), min_size=1, max_size=4) | st.just(b"{")


class Plain:
    """Admission written from the architecture page, one event at a time."""

    def __init__(self, partition: int, partitions: int, default: bool) -> None:
        self.partition, self.partitions, self.default = partition, partitions, default
        self.seen: set[str] = set()
        self.watermark = 0
        self.grants: dict[str, str] = {}
        self.counts: Counter[str] = Counter()

    def verdict(self, event: dict[str, Any], recorded: int) -> str:
        user = event["user_id"]
        if partition_of(user.encode(), self.partitions) != self.partition:
            return "rekeyed"
        self.watermark = max(self.watermark, min(event["event_timestamp"], recorded + 300_000_000))
        if event["event_id"] is not None:
            if event["event_id"] in self.seen:
                return "duplicates"
            self.seen.add(event["event_id"])
        if event["event_timestamp"] < self.watermark - DAY * 1_000_000:
            return "late"
        said = (event["consent"] or {}).get("analytics_storage")
        if said:
            self.grants[user] = said
        granted = self.grants.get(user, "granted" if self.default else "denied") == "granted"
        return "learned" if granted else "denied"


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=20), st.sets(st.integers(1, 19)), st.booleans(), st.booleans())
def test_verdicts_are_those_of_one_event_at_a_time(
    values: list[Any], cuts: set[int], default: bool, restart: bool
) -> None:
    plain = Plain(1, 2, default)
    expected: Counter[str] = Counter()
    for value in values:
        for one in value if isinstance(value, list) else [value]:
            is_event = isinstance(one, dict) and "user_id" in one
            expected[plain.verdict(one, record(0, b"", at=3 * DAY).timestamp * 1000) if is_event else "dead"] += 1
    stage = UserStage(ItemSpace(1), Keys(), UserRules(consent=default), 2)
    stage.open(1, None)
    dead = rekeyed = 0
    for batch in cut([record(n, value, at=3 * DAY) for n, value in enumerate(values)], cuts):
        sends = stage.learn(1, batch).sends
        dead += sum(send.role == "dlq" for send in sends)
        rekeyed += sum(send.role == "events" for send in sends)
        if restart:
            stage.open(1, stage.copy(1).whole())
    counts = stage.shards[1].counts
    names = ("learned", "duplicates", "late", "denied", "rekeyed")
    assert {name: counts[name] for name in names} == {name: expected[name] for name in names}
    assert dead == expected["dead"] == sum(n for name, n in counts.items() if name.startswith("dead:"))
    assert rekeyed == expected["rekeyed"]
    assert expected.total() == dead + sum(counts[name] for name in names)  # nothing is lost


def test_dead_letters_say_where_they_were() -> None:
    stage = UserStage(ItemSpace(1), Keys(), UserRules(), 1)
    stage.open(0, None)
    (send,) = stage.learn(0, [record(9, [event("u"), {"bad": 1}])]).sends[:1]
    headers = {name: value.decode() for name, value in send.headers}
    assert (send.role, send.key, send.value) == ("dlq", b"key", b'{"bad":1}')
    assert headers.pop("detail")
    ms = str(T0_US // 1000)
    assert headers == {
        "reason": "schema",
        "topic": "events",
        "partition": "0",
        "offset": "9",
        "index": "1",
        "timestamp": ms,
    }

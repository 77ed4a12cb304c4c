from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decay import YEAR_2000_S
from models.hashing import partition_of
from models.trending import Trending
from stream.demo.shop import Shop
from stream.keys import Keys, parse_list
from stream.local import LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.row_wire import insert_rows
from stream.stages.item import SLICE, HoleError, ItemStage
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from stream.wire import DOUBT, FLUSH, Popular, decode_global
from tests.records import T0_US, cells, close, cut, event, read, record, stream, written

TARGETS = 2
KEYS = Keys()
EVENTS = list(Shop(seed=5, users=40, concurrent=6).events(600))


def sources() -> UserStage:
    stage = UserStage(ItemSpace(TARGETS), KEYS, UserRules(), 1)
    stage.open(0, None)
    return stage


def sent(stage: UserStage, batches: Iterable[Sequence[LocalRecord]]) -> list[list[bytes]]:
    """What a user stage publishes for each item partition."""
    values: list[list[bytes]] = [[] for _ in range(TARGETS)]
    for batch in batches:
        for send in stage.learn(0, batch).sends:
            if send.role == "covisits":
                values[send.partition or 0].append(send.value)
    return values


def deltas(events: Sequence[dict[str, Any]] = EVENTS, cuts: Iterable[int] = (100, 250, 400)) -> list[list[bytes]]:
    return sent(sources(), cut(stream(events), cuts))


def items_of(*owned: int, before: Iterable[str] = ()) -> ItemStage:
    space = ItemSpace(TARGETS)
    space.encode(list(before))
    stage = ItemStage(space, KEYS, 1)
    for partition in owned or range(TARGETS):
        stage.open(partition, None)
    return stage


def feed(stage: ItemStage, values: Sequence[Sequence[bytes]]) -> ItemStage:
    """Give a stage the next records of each partition that it owns."""
    for partition, some in enumerate(values):
        if partition in stage.shards and some:
            start = stage.shards[partition].applied + 1
            stage.learn(partition, [LocalRecord(start + n, 0, None, value) for n, value in enumerate(some)])
    return stage


def rows(stage: ItemStage) -> dict[str, dict[str, Any]]:
    space = stage.space
    return cells(space.rows, space.ids.texts(range(len(space.ids))))


def trends(stage: ItemStage) -> dict[str, tuple[float, int]]:
    space = stage.space
    names = space.ids.texts(range(len(space.ids)))
    found = zip(names, space.trend.tolist(), space.trend_epoch.tolist(), strict=False)
    return {name: (value, epoch) for name, value, epoch in found if value > 0}


def published(stage: ItemStage, into: MemoryStore | None = None) -> MemoryStore:
    store = into or MemoryStore()
    for partition in stage.shards:
        more = True
        while more:
            flush = stage.publish(partition, 0)
            written(flush.writes, into=store)
            more = flush.more
    return store


def test_partitions_share_the_rows_and_the_popularity() -> None:
    one, whole = deltas(), feed(items_of(), deltas())
    parts = [feed(items_of(partition), one) for partition in range(TARGETS)]
    assert [rows(part) for part in parts] == [
        {name: row for name, row in rows(whole).items() if partition_of(name.encode(), TARGETS) == partition}
        for partition in range(TARGETS)
    ]
    assert trends(parts[0]) | trends(parts[1]) == trends(whole)
    assert not trends(parts[0]).keys() & trends(parts[1]).keys()
    assert sum(shard.counts["visits"] for shard in whole.shards.values()) == sum(
        shard.counts["visits"] for part in parts for shard in part.shards.values()
    )


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(1, 599), max_size=6))
def test_rows_do_not_depend_on_batches(cuts: set[int]) -> None:
    stage = feed(items_of(), deltas(cuts=cuts))
    assert rows(stage) == rows(feed(items_of(), deltas()))  # each row sums in the order of the events
    assert trends(stage) == trends(feed(items_of(), deltas()))


@given(cuts=st.sets(st.integers(1, 599), max_size=12), together=st.integers(1, 400))
@settings(max_examples=15, deadline=None)
def test_records_of_a_fetch_teach_what_they_teach_one_by_one(cuts: set[int], together: int) -> None:
    values = deltas(cuts=cuts)
    alone, whole = items_of(), items_of()
    for partition, some in enumerate(values):
        for value in some:
            feed(alone, [[value] if p == partition else [] for p in range(TARGETS)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.stages.item.TOGETHER", together)
        feed(whole, values)
    assert rows(whole) == rows(alone)
    assert trends(whole) == trends(alone)
    for partition in range(TARGETS):
        assert whole.shards[partition].counts == alone.shards[partition].counts
        assert whole.shards[partition].newest == alone.shards[partition].newest
        assert whole.shards[partition].marks.tolist() == alone.shards[partition].marks.tolist()
    items = len(alone.space.ids)
    assert whole.space.category[:items].tolist() == alone.space.category[:items].tolist()


def test_a_repeated_record_changes_nothing() -> None:
    values = deltas()
    stage = feed(items_of(), values)
    before = rows(stage)
    published(stage)
    feed(stage, values)
    feed(stage, [some[1:] for some in values])
    assert rows(stage) == before
    assert [shard.counts["repeated"] for shard in stage.shards.values()] == [2 * len(some) - 1 for some in values]
    for partition in stage.shards:
        assert not stage.publish(partition, 0).writes.frames


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 500), st.integers(1, 99), st.sets(st.integers(1, 599), max_size=5))
def test_a_source_restarted_from_an_earlier_snapshot_adds_nothing_twice(
    snapshot: int, ahead: int, cuts: set[int]
) -> None:
    """It learns what lies behind its snapshot again, in other batches; the marks cut off what was applied."""
    records = stream(EVENTS)
    source = sources()
    first = sent(source, cut(records[:snapshot], cuts))
    arrays = source.copy(0).whole()
    lost = sent(source, cut(records[snapshot : snapshot + ahead], [ahead // 2]))
    successor = UserStage(ItemSpace(TARGETS), KEYS, UserRules(), 1)
    successor.space.encode(["unrelated"])
    successor.open(0, arrays)
    rest = sent(successor, cut(records[snapshot:], [end - snapshot for end in cuts]))
    stage = feed(feed(feed(items_of(), first), lost), rest)
    assert rows(stage) == close(rows(feed(items_of(), deltas())))


def test_a_hole_is_an_error() -> None:
    values = deltas()
    stage = feed(items_of(), [some[:1] for some in values])
    mark = stage.shards[0].marks[0]
    with pytest.raises(HoleError, match=rf"covisits-0: deltas of events-0 between offsets {mark} and \d+ are missing"):
        feed(stage, [values[0][2:], []])
    before = rows(feed(items_of(), [some[:1] for some in values]))
    assert rows(stage) == before  # nothing of what came behind the hole was applied
    feed(stage, [some[1:] for some in values])  # and what was missing may still come
    assert rows(stage) == rows(feed(items_of(), values))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_shard_moves_to_a_process_that_numbers_items_differently(seed: int) -> None:
    values = deltas()
    whole = feed(items_of(), values)
    names = whole.space.ids.texts(range(len(whole.space.ids)))
    random.Random(seed).shuffle(names)
    old, new = items_of(), items_of(before=["unrelated", *names[:20]])
    new.space.encode_categories(["unrelated"])
    feed(old, [some[:2] for some in values])
    store = published(old)
    for partition in range(TARGETS):
        new.open(partition, old.copy(partition).whole())
    feed(new, [some[2:] for some in values])
    assert rows(new) == rows(whole)
    assert trends(new) == trends(whole)
    assert [shard.counts for shard in new.shards.values()] == [shard.counts for shard in whole.shards.values()]
    found, expected = published(new, store), published(whole)
    assert {key: listed(found, key) for key in found} == {key: listed(expected, key) for key in expected}
    filed = new.space.categories.texts(new.space.category[new.space.encode(["cedar-tent", "cedar-sleeping-bag"])])
    assert filed == ["camping", "camping"]


def test_what_was_not_published_before_the_snapshot_is_published_after_it() -> None:
    old = feed(items_of(), deltas())
    expected = published(feed(items_of(), deltas()))
    new = items_of()
    for partition in range(TARGETS):
        new.open(partition, old.copy(partition).whole())
    found = published(new)
    assert {key: read(found, key) for key in found} == {key: read(expected, key) for key in expected}


def test_taking_up_an_older_snapshot_forgets_what_came_behind_it() -> None:
    values = deltas()
    stage = feed(items_of(), [some[:2] for some in values])
    arrays = [stage.copy(partition).whole() for partition in range(TARGETS)]
    feed(stage, [some[2:] for some in values])
    before, popular = rows(stage), trends(stage)
    stage.close(0)
    assert not any(partition_of(name.encode(), TARGETS) == 0 for name in rows(stage) | trends(stage))
    for partition in range(TARGETS):
        stage.open(partition, arrays[partition])
        assert stage.shards[partition].applied == 1
    feed(stage, [some[2:] for some in values])
    assert rows(stage) == before
    assert trends(stage) == popular


def test_shards_come_and_go_whatever_room_was_made() -> None:
    stage = items_of()
    for size in range(1, 4_000, 61):
        stage.space.encode([f"i{n}" for n in range(size)])
        stage.close(0)
        stage.open(0, None)
    assert rows(stage) == {}


def test_a_list_is_written_once_per_change() -> None:
    events = [event("a", item, at=n) for n, item in enumerate(["tent", "mat", "mug"])]
    stage, source = items_of(), sources()
    feed(stage, sent(source, [stream(events)]))
    store = published(stage)
    assert {name: similar(store, name) for name in ("tent", "mat", "mug")} == {
        "tent": ["mat", "mug"],
        "mat": ["mug", "tent"],
        "mug": ["mat", "tent"],
    }
    assert not any(stage.publish(partition, 0).writes.frames for partition in stage.shards)
    feed(stage, sent(source, [stream([event("b", item, at=9) for item in ("mug", "tent")], start=9)]))
    assert sorted(published(stage)) == [KEYS.similar("mug"), KEYS.similar("tent")]


def test_a_shard_publishes_only_what_it_has_learned_itself() -> None:
    values = deltas()
    stage = feed(items_of(), [some[:1] for some in values])
    published(stage)
    feed(stage, [values[0][1:], []])
    assert not stage.publish(1, 0).writes.frames
    assert stage.publish(0, 0).writes.frames


def similar(store: MemoryStore, item: str) -> list[str]:
    return listed(store, KEYS.similar(item))[0]


def listed(store: MemoryStore, key: bytes) -> tuple[list[str], list[float]]:
    """A list without its time, which is the shard's when it was written."""
    value = read(store, key)
    assert value is not None
    found = parse_list(value)
    return found.items, found.scores


def test_publishing_goes_by_slices() -> None:
    names = [f"i{n}" for n in range(2 * SLICE + 9)]
    stage = feed(items_of(), deltas([event(f"u{n // 3}", name, at=n) for n, name in enumerate(names)]))
    for partition in stage.shards:
        mine = sum(partition_of(name.encode(), TARGETS) == partition for name in names)
        while mine:
            flush = stage.publish(partition, 0)
            assert len(flush.writes) == min(mine, SLICE)
            mine -= len(flush.writes)
            assert flush.more == (mine > 0)


def test_popularity_is_told_once_per_change_in_absolute_values() -> None:
    stage = feed(items_of(0), deltas())
    (send,) = stage.publish(0, 0).sends
    popular = decode_global(send.value)
    assert isinstance(popular, Popular)
    assert (send.role, send.partition, popular.source) == ("global", 0, 0)
    told = dict(zip(popular.items, zip(popular.values, popular.epochs, strict=True), strict=True))
    assert told == trends(stage)
    shelf = {product["item_id"]: product["category"] for product in Shop(seed=5, users=40).catalogue()}
    assert dict(zip(popular.items, popular.categories, strict=True)) == {name: shelf[name] for name in told}
    assert stage.publish(0, 0).sends == []


SHELVES = [f"{letter}{n}" for letter in "abc" for n in range(5)]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from("uvwxyz"), st.sampled_from(SHELVES)), min_size=1, max_size=60),
    st.sets(st.integers(1, 59), max_size=6),
    st.sets(st.sampled_from(SHELVES), max_size=3),
    st.sets(st.sampled_from("uvwxyz"), max_size=2),
)
def test_what_is_told_is_enough_for_every_trending_list(
    touches: list[tuple[str, str]], cuts: set[int], withdrawn: set[str], forgotten: set[str]
) -> None:
    """However strong those of other categories are that were touched meanwhile."""
    source, space = sources(), ItemSpace(TARGETS)
    stage, told = ItemStage(space, KEYS, 1, k=2), Trending()
    for partition in range(TARGETS):
        stage.open(partition, None)
    for item in withdrawn:
        stage.withdraw(item)
    events = [event(user, item, at=n**3) for n, (user, item) in enumerate(touches)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.stages.item.STRONGEST", 3)
        for batch in cut(stream(events), cuts):
            tell(feed(stage, sent(source, [batch])), told)
            assert told.top(2, withdrawn) == every_trend(stage).top(2, withdrawn)
        for item in withdrawn:
            stage.withdraw(item, withdrawn=False)
        tell(feed(stage, sent(source, [[forget(user, 99 + n)] for n, user in enumerate(sorted(forgotten))])), told)
        for partition in range(TARGETS):
            stage.touch_all(partition)
        tell(stage, told)
        assert told.top(2) == every_trend(stage).top(2)


def forget(user: str, offset: int) -> LocalRecord:
    asked = T0_US // 1000 + 10**9
    return record(offset, {"control": "forget", "user": user, "request": f"{offset}", "asked_ms": asked})


def tell(stage: ItemStage, trending: Trending) -> None:
    for partition in stage.shards:
        for send in stage.publish(partition, 0).sends:
            popular = decode_global(send.value)
            assert isinstance(popular, Popular)
            trending.replace(popular.items, popular.values, popular.epochs, popular.categories)


def every_trend(stage: ItemStage) -> Trending:
    space, trending = stage.space, Trending()
    items = np.flatnonzero(space.trend[: space.ids.size]).astype(np.int32)
    names = space.categories.texts(space.category[items])
    trending.replace(space.ids.texts(items), space.trend[items].tolist(), space.trend_epoch[items].tolist(), names)
    return trending


def test_popularity_that_fell_is_told_however_weak_it_is_and_until_it_arrives() -> None:
    source, stage = sources(), items_of(0, 1)
    weak = [event("me", item, at=n) for n, item in enumerate(("a0", "a1", "a2"))]
    weak.append(event("else", "a1", at=9))
    strong = [event(f"u{n}", f"a{item}", at=20 + n) for n, item in enumerate([*range(3, 60)] * 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stream.stages.item.STRONGEST", 3)
        stage.k, told = 1, Trending()
        tell(feed(stage, sent(source, [stream(weak)])), told)
        assert set(told.top(9)["all", ""][0]) == {"a0", "a1", "a2"}
        feed(stage, sent(source, [stream(strong, start=9), [forget("me", 999)]]))
        for partition in stage.shards:
            stage.publish_again(stage.publish(partition, 0))  # which nobody hears
        tell(stage, told)
        assert {"a0", "a2"}.isdisjoint(told.top(99)["all", ""][0])
        now = {"ts": T0_US // 1_000_000 - YEAR_2000_S}
        assert told.overall.predict_one(None, "a1", now) == every_trend(stage).overall.predict_one(None, "a1", now) > 0


@pytest.mark.parametrize(("request_", "at_once"), [(FLUSH, True), (DOUBT, False)])
def test_a_request_publishes_every_row_again(request_: bytes, at_once: bool) -> None:
    stage = feed(items_of(), deltas())
    store = published(stage)
    assert stage.learn(0, [LocalRecord(99, 0, None, request_)]) == at_once
    assert not stage.learn(1, [LocalRecord(99, 0, None, deltas()[1][0])])
    again = published(stage)
    mine = [key for key in store if partition_of(key.rpartition(b":")[2], TARGETS) == 0]
    assert sorted(again) == sorted(mine)
    assert {key: read(again, key) for key in again} == {key: read(store, key) for key in mine}


def test_neighbours_are_shared_only_where_another_worker_needs_them() -> None:
    values = deltas()
    assert not any(key.startswith(b"rv:nb:") for key in published(feed(items_of(), values)))
    stage = feed(items_of(0), values)
    store = published(stage)
    reader = ItemSpace(TARGETS)
    names = sorted(rows(stage))
    values_read = [read(store, KEYS.neighbours(name)) for name in names]
    insert_rows(reader, reader.encode(names), [value for value in values_read if value is not None])
    assert cells(reader.rows, reader.ids.texts(range(reader.ids.size))) == rows(stage)


def test_an_empty_stage_publishes_nothing() -> None:
    flush = items_of().publish(0, 0)
    assert isinstance(flush.writes, WriteBatch)
    assert (len(flush.writes), flush.sends, flush.more) == (0, [], False)
    assert items_of().copy(0).whole()["mine"].dtype == np.int32


def every_similar(store: MemoryStore) -> dict[str, list[str]]:
    found = {key.decode(): read(store, key) for key in store if b":similar:" in key}
    return {key.partition(":similar:")[2]: parse_list(value).items for key, value in found.items() if value}


def test_a_withdrawn_item_leaves_every_neighbour_list_and_comes_back() -> None:
    stage = feed(items_of(), deltas())
    store = published(stage)
    before = every_similar(store)
    item = max(before, key=lambda name: sum(name in items for items in before.values()))
    stage.withdraw(item)
    after = every_similar(published(stage, into=store))
    assert not any(item in items for items in after.values())
    untouched = [name for name, items in before.items() if item not in items]
    assert untouched
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    stage.withdraw(item, withdrawn=False)
    assert every_similar(published(stage, into=store)) == before


def test_only_lists_that_could_name_a_withdrawn_item_are_written_again() -> None:
    stage = feed(items_of(), deltas())
    before = every_similar(published(stage))
    stage.withdraw("never seen")
    assert before
    assert every_similar(published(stage)) == {}


def test_a_list_is_deleted_when_all_of_it_is_withdrawn() -> None:
    stage = feed(items_of(), deltas())
    store = published(stage)
    name, items = min(every_similar(store).items(), key=lambda cell: len(rows(stage)[cell[0]]["near"]))
    for item in rows(stage)[name]["near"]:
        stage.withdraw(item)
    assert items
    assert name not in every_similar(published(stage, into=store))

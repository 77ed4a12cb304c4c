"""Full shards: what goes, what stays, and that neither fetches nor restarts nor other shards have a say in it."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.decay import YEAR_2000_S
from models.hashing import hash_ids, partition_of
from stream.demo.shop import Shop
from stream.keys import Keys
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.stages import reclaiming
from stream.stages.item import ItemStage
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules, UserShard
from stream.wire import unpack_covisits
from tests.records import T0_US, cells, cut, dump, event, publish, stream, told, user_of

KEYS = Keys()
TARGETS = 2
T0_S = T0_US // 1_000_000 - YEAR_2000_S
USERS, ITEMS = 12, 9
SHOP = list(Shop(seed=3, users=80, concurrent=6).events(700))
CUTS = st.sets(st.integers(1, 699), max_size=6)


def stage_of(users: int, arrays: dict[str, Any] | None = None, met: Iterable[str] = ()) -> UserStage:
    space = ItemSpace(TARGETS)
    space.encode(list(met))
    stage = UserStage(space, KEYS, UserRules(users=users), 1)
    stage.open(0, arrays)
    return stage


def restarted(stage: UserStage, seed: int) -> UserStage:
    """The same shard in a process that met the items in another order."""
    met = stage.space.ids.texts(stage.space.ids.indices())
    random.Random(seed).shuffle(met)
    return stage_of(stage.rules.users, stage.copy(0).whole(), ["unrelated", *met])


def learned(stage: UserStage) -> dict[str, Any]:
    """Learned state by id."""
    shard, names = stage.shards[0], stage.space.ids
    users = shard.users.indices()
    profiles = shard.profiles.arrays
    people = {
        user: (
            names.texts(np.array(shard.histories.recent(index), dtype=np.int32)),
            int(shard.touched[index]),
            *(column[index].tolist() for column in profiles if column is not profiles.category),
        )
        for index, user in zip(users.tolist(), shard.users.texts(users), strict=True)
    }
    return {"people": people, "watermark": shard.watermark, "hand": shard.hand, "counts": dict(shard.counts)}


def run(batches: Iterable[Sequence[LocalRecord]], users: int = USERS, *, restart: bool = False) -> tuple[Any, Any]:
    """Learned state, and all deltas as other processes read them."""
    stage = stage_of(users)
    deltas: list[list[dict[str, Any]]] = [[] for _ in range(TARGETS)]
    for number, batch in enumerate(batches):
        for send in stage.learn(0, batch).sends:
            if send.role == "covisits":
                deltas[send.partition or 0] += told(unpack_covisits(send.value))
        if restart:
            stage = restarted(stage, number)
    return learned(stage), deltas


@settings(deadline=None, max_examples=15)
@given(CUTS, st.booleans(), st.sampled_from([1, 2, 12, 40]))
def test_the_same_users_go_however_the_log_is_read(cuts: set[int], restart: bool, users: int) -> None:
    state, deltas = run([stream(SHOP)], users)
    assert len(state["people"]) <= users
    assert state["counts"]["evicted"] > 0
    assert run(cut(stream(SHOP), cuts), users, restart=restart) == (state, deltas)


def test_bounds_that_drop_nobody_change_nothing() -> None:
    people = {user_of(event) for event in SHOP}
    assert run([stream(SHOP)], len(people) + 1) == run([stream(SHOP)], 10**7)


class Plain:
    """Users in places, each with the last three items; the first place from the hand on with the oldest touch goes."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.places: list[str | None] = []
        self.free: list[int] = []
        self.hand = 0
        self.touched: dict[str, float] = {}
        self.items: dict[str, deque[str]] = {}

    def learn(self, user: str, item: str, at: float) -> None:
        if len(self.touched) >= self.bound:
            self.drop()
        if user not in self.touched:
            self.items[user] = deque(maxlen=3)
            if self.free:
                self.places[self.free.pop()] = user
            else:
                self.places.append(user)
        self.touched[user] = at
        if list(self.items[user])[:1] != [item]:
            self.items[user].appendleft(item)

    def drop(self) -> None:
        oldest = min(self.touched.values())
        while (user := self.places[self.hand % len(self.places)]) is None or self.touched[user] != oldest:
            self.hand += 1
        place = self.hand % len(self.places)
        self.hand = (place + 1) % len(self.places)
        self.places[place] = None
        self.free.append(place)
        del self.touched[user], self.items[user]


VISITS = st.tuples(st.integers(0, 9), st.sampled_from(["tent", "mat", "mug", "pan"]), st.integers(0, 20))


@settings(deadline=None, max_examples=40)
@given(st.lists(VISITS, min_size=1, max_size=60), st.integers(1, 8), st.sets(st.integers(1, 59), max_size=5))
def test_histories_are_those_of_a_plain_list_of_users(
    visits: list[tuple[int, str, int]], bound: int, cuts: set[int]
) -> None:
    plain = Plain(bound)
    stage = UserStage(ItemSpace(1), KEYS, UserRules(users=bound, history=3), 1)
    stage.open(0, None)
    for user, item, at in visits:
        plain.learn(f"u{user}", item, at)
    for batch in cut(stream(event(f"u{user}", item, at=at) for user, item, at in visits), cuts):
        stage.learn(0, batch)
    shard = stage.shards[0]
    users = shard.users.indices()
    found = {
        user: stage.space.ids.texts(np.array(shard.histories.recent(index), dtype=np.int32))
        for index, user in zip(users.tolist(), shard.users.texts(users), strict=True)
    }
    assert found == {user: list(items) for user, items in plain.items.items()}
    assert {user: int(shard.touched[index]) for index, user in zip(users, found, strict=True)} == {
        user: T0_S + at for user, at in plain.touched.items()
    }


def test_a_user_who_comes_back_is_new() -> None:
    stage = stage_of(2)
    lists = [stage.learn(0, [record]) for record in stream(event(u, "tent", at=n) for n, u in enumerate("abca"))]
    shard = stage.shards[0]
    assert sorted(shard.users.texts(shard.users.indices())) == ["a", "c"]
    (again,) = lists[-1].users
    assert shard.users.text(again) == "a"
    assert shard.profiles.arrays.events[again] == 1
    assert shard.last[again].tolist() == [-1] * 20
    assert (shard.pushed_ms[again], shard.profiled_ms[again], shard.offers[again], shard.segment[again]) == (
        0,
        0,
        0,
        -1,
    )


def test_dropped_users_of_a_batch_are_not_ranked_as_those_who_got_their_place() -> None:
    stage = stage_of(2)
    events = [event(user, "tent", at=at) for user, at in [("a", 500), ("b", 1), ("c", 2), ("d", 3), ("d", 4)]]
    learned = stage.learn(0, stream(events))
    shard = stage.shards[0]
    assert sorted(shard.users.texts(shard.users.indices())) == ["a", "d"]
    assert sorted(shard.users.texts(learned.users)) == ["a", "d"]
    seconds = dict(zip(shard.users.texts(learned.users), learned.ts_ms // 1000 - T0_US // 1_000_000, strict=True))
    assert seconds == {"a": 500, "d": 4}
    assert len(learned.event_ms) == 5


def test_a_rank_all_in_the_middle_of_evictions_reaches_everyone_who_is_left() -> None:
    records = stream(event(f"u{n}", "tent", at=n) for n in range(7))
    records.insert(4, LocalRecord(4, records[4].timestamp, None, b'{"control":"rank_all"}'))
    records = [LocalRecord(n, r.timestamp, r.key, r.value) for n, r in enumerate(records)]
    stage = stage_of(3)
    learned = stage.learn(0, records)
    shard = stage.shards[0]
    assert learned.everyone
    assert sorted(shard.users.texts(learned.users)) == sorted(shard.users.texts(shard.users.indices()))


def test_users_of_other_partitions_take_no_place() -> None:
    shard = UserShard(UserRules(), 1)
    stage = UserStage(ItemSpace(1), KEYS, UserRules(), 2)
    stage.shards[0] = shard
    names = [f"u{n}" for n in range(50)]
    sends = stage.learn(0, stream(event(name, "tent") for name in names)).sends
    mine = [name for name in names if partition_of(name.encode(), 2) == 0]
    assert shard.users.texts(shard.users.indices()) == mine
    assert sum(send.role == "events" for send in sends) == 50 - len(mine)


def test_who_refuses_is_remembered_like_anybody_else() -> None:
    denied = {"analytics_storage": "denied"}
    said: list[tuple[str, dict[str, str] | None]] = [("a", denied), ("b", None), ("a", None), ("c", None), ("a", None)]
    stage = stage_of(3)
    stage.learn(0, stream(event(user, "tent", at=n, consent=consent) for n, (user, consent) in enumerate(said)))
    assert stage.shards[0].counts["denied"] == 3


# items


def deltas(cuts: Iterable[int] = range(0, 700, 40)) -> list[list[LocalRecord]]:
    """Records of topic ``covisits``, by partition."""
    stage, values = stage_of(10**6), [list[bytes]() for _ in range(TARGETS)]
    for batch in cut(stream(SHOP), cuts):
        for send in stage.learn(0, batch).sends:
            if send.role == "covisits":
                values[send.partition or 0].append(send.value)
    return [[LocalRecord(n, 0, None, value) for n, value in enumerate(some)] for some in values]


def item_stage(items: int, arrays: dict[str, Any] | None = None, met: Iterable[str] = ()) -> ItemStage:
    space = ItemSpace(TARGETS)
    space.encode(list(met))
    stage = ItemStage(space, KEYS, 1, items=items)
    stage.open(0, arrays)
    return stage


def item_state(stage: ItemStage) -> dict[str, Any]:
    """Learned state by id."""
    space, shard = stage.space, stage.shards[0]
    names = space.ids.texts(range(space.ids.size))
    rows = cells(space.rows, names)
    assert shard.rows == len(rows) == space.rows.used
    trend = {name: (space.trend[n], space.trend_epoch[n]) for n, name in enumerate(names) if space.trend[n] > 0}
    return {"rows": rows, "trend": trend, "counts": dict(shard.counts)}


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(1, 17), max_size=6), st.booleans(), st.sampled_from([1, ITEMS, 100]))
def test_the_same_items_go_however_the_log_is_read(cuts: set[int], restart: bool, items: int) -> None:
    records = deltas()[0]
    whole, stage = item_stage(items), item_stage(items)
    whole.learn(0, records)
    for number, batch in enumerate(cut(records, cuts)):
        stage.learn(0, batch)
        if restart:
            met = stage.space.ids.texts(stage.space.ids.indices())
            random.Random(number).shuffle(met)
            stage = item_stage(items, stage.copy(0).whole(), ["unrelated", *met])
    assert item_state(stage) == item_state(whole)
    assert len(item_state(whole)["rows"]) <= items
    assert item_state(whole)["counts"]["evicted"] > 0


def test_items_visited_longest_ago_go() -> None:
    records = deltas([400])[0]
    bounded, free = item_stage(ITEMS), item_stage(10**6)
    bounded.learn(0, records[:1])
    free.learn(0, records[:1])
    rows, trend = item_state(free)["rows"], item_state(free)["trend"]
    last: dict[str, int] = {}
    for visit in told(unpack_covisits(records[0].value or b"")):
        last[visit["item"]] = max(last.get(visit["item"], 0), visit["ts"])
    names = sorted(rows, key=lambda name: (last.get(name, 0), hash_ids([name])[0]))
    left = set(names[-ITEMS:])
    assert len(names) > 2 * ITEMS
    assert item_state(bounded)["rows"] == {name: row for name, row in rows.items() if name in left}
    assert item_state(bounded)["trend"] == {name: trend[name] for name in trend if name in left}
    assert set(bounded.space.ids.texts(np.flatnonzero(bounded.space.untold).astype(np.int32))) <= left


# indices


def pipeline(*, users: int, items: int, batch: int) -> LocalPipeline:
    rules = UserRules(users=users, ranking="covisit")  # the blend forgets how popular an item was whose index is freed
    made = LocalPipeline(MemoryStore(), rules, partitions=2, item_partitions=TARGETS, batch=batch, items=items)
    publish(made, SHOP)
    return made


def everything(made: LocalPipeline) -> tuple[Any, ...]:
    stored = dump(made.store) if isinstance(made.store, MemoryStore) else {}
    space = made.space
    histories = [
        {
            shard.users.text(user): space.ids.texts(np.array(shard.histories.recent(user), dtype=np.int32))
            for user in shard.users.indices().tolist()
        }
        for shard in made.users.shards.values()
    ]
    return stored, histories, cells(space.rows, space.ids.texts(range(space.ids.size)))


@pytest.mark.parametrize("batch", [7, 20])
def test_reclaiming_indices_is_seen_by_nobody(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collections without end, in slices of a few users and rows each, between batches of a few events."""
    plain = pipeline(users=8, items=6, batch=batch)
    assert plain.space.dropped == 0
    for name, value in {"LEAST": 1, "GROWTH": 0.0, "ROWS": 2, "USERS": 3, "IDS": 16}.items():
        monkeypatch.setattr(reclaiming, name, value)
    monkeypatch.setattr("stream.stages.user.USERS", 3)
    reclaimed = pipeline(users=8, items=6, batch=batch)
    assert reclaimed.space.dropped > 50
    assert everything(reclaimed) == everything(plain)


def collected(space: ItemSpace) -> set[str]:
    """Items that are left after a whole collection."""
    space.reclaimer.restart()
    space.reclaimer.step()
    while space.reclaimer.running:
        space.reclaimer.step()
    return set(space.ids.texts(space.ids.indices()))


def test_what_anybody_refers_to_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaiming, "LEAST", 1)
    monkeypatch.setattr(reclaiming, "GROWTH", 0.0)
    made = LocalPipeline(MemoryStore(), UserRules(history=2, ranking="covisit"), partitions=1, item_partitions=1)
    publish(made, [event("u", item, at=n) for n, item in enumerate(["tent", "mat", "mug"])])
    asyncio.run(made.republish())
    space = made.space
    listed, withdrawn, _ = space.encode(["listed", "withdrawn", "noise"])
    space.listed[listed] = True
    space.hidden[withdrawn] = True
    assert collected(space) == {"tent", "mat", "mug", "listed"}
    made.items.close(0)
    assert collected(space) == {"tent", "mat", "mug", "listed"}  # mat and mug are in the history, tent was pushed
    made.users.shards[0].last[:] = -1
    assert collected(space) == {"mat", "mug", "listed"}
    (again,) = space.encode(["withdrawn"])
    assert not space.hidden[again]  # what was withdrawn and forgotten is a new item
    with space.reclaimer.paused():
        space.encode(["held"])
        space.reclaimer.restart()
        space.reclaimer.step()
        assert not space.reclaimer.running
    assert "held" not in collected(space)

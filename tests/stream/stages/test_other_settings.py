"""Snapshots that were made under other settings: converted where that can be done, else refused; never a crash."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from stream.demo.shop import Shop
from stream.errors import ConfigurationError
from stream.events import Forget
from stream.keys import Keys
from stream.local import LocalRecord
from stream.stages.item import ItemStage
from stream.stages.privacy import forget
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from tests.records import cells, close, event, read, stream, written
from tests.stream.stages.test_item import TARGETS, deltas, feed

KEYS = Keys()
SHOP = stream(Shop(seed=3, users=60, concurrent=6).events(600))
DELTAS = deltas(cuts=(100, 250))
FIRST, REST = SHOP[:400], SHOP[400:]
DAY_S = 86_400.0


def users(rules: UserRules, arrays: Any = None, records: Sequence[LocalRecord] = ()) -> UserStage:
    stage = UserStage(ItemSpace(TARGETS), KEYS, rules, 1)
    stage.open(0, arrays)
    for start in range(0, len(records), 100):  # each batch is ranked, so that lists have been pushed
        learned = stage.learn(0, records[start : start + 100])
        stage.rank(0, learned.users, learned.ts_ms)
    return stage


def saved(stage: UserStage) -> dict[str, Any]:
    return stage.copy(0).whole()


def histories(stage: UserStage, most: int = 127) -> dict[str, list[str]]:
    shard = stage.shards[0]
    found = shard.users.indices()
    recent = (shard.histories.recent(index)[:most] for index in found.tolist())
    items = (stage.space.ids.texts(np.array(each, dtype=np.int32)) for each in recent)
    return dict(zip(shard.users.texts(found), items, strict=True))


@pytest.mark.parametrize(("before", "after"), [(20, 10), (10, 20), (20, 1)])
def test_lists_get_another_length(before: int, after: int) -> None:
    stage = users(UserRules(k=after), saved(users(UserRules(k=before), records=FIRST)))
    assert stage.shards[0].last.shape[1] == after
    learned = stage.learn(0, REST)  # scores the lists that were pushed
    stage.rank(0, learned.users, learned.ts_ms)
    assert stage.shards[0].last.shape[1] == after
    assert saved(stage)["last"].shape[1] == after


@pytest.mark.parametrize(("before", "after"), [(20, 5), (5, 20), (20, 1)])
def test_histories_get_another_length(before: int, after: int) -> None:
    old = users(UserRules(history=before), records=FIRST)
    new = users(UserRules(history=after), saved(old))
    assert histories(new) == histories(old, after)
    new = users(UserRules(history=after), saved(old), REST)
    longest = max(map(len, histories(new).values()))
    assert longest == after
    assert saved(new)["histories.item"].shape[1] == after


@pytest.mark.parametrize("history", [50, 5, 3])
def test_a_history_that_was_once_shorter_may_lack_older_touches(history: int) -> None:
    views = stream([event("u", f"i{n}", at=n) for n in range(8)])
    stage = users(UserRules(history=50), saved(users(UserRules(history=history), records=views)))
    stage = users(UserRules(history=60), saved(stage))
    removed = forget(stage.shards[0], KEYS, stage.weights, Forget(user="u", asked_ms=2 * 10**12))
    report = msgspec.json.decode(read(written(removed.answer.writes), KEYS.privacy("u")) or b"")
    assert report["cut"] is (history < 8)


@pytest.mark.parametrize(("before", "after"), [(300, 50), (50, 300)])
def test_the_window_of_ids_gets_another_length(before: int, after: int) -> None:
    old = users(UserRules(dedup=before), records=FIRST)
    new = users(UserRules(dedup=after), saved(old))
    assert (new.shards[0].seen.capacity, len(new.shards[0].seen)) == (after, min(len(old.shards[0].seen), after))
    new.learn(0, [LocalRecord(1000 + n, r.timestamp, r.key, r.value) for n, r in enumerate(FIRST[-40:])])
    assert new.shards[0].counts["duplicates"] == 40


def items(arrays: Any = None, **settings: Any) -> ItemStage:
    stage = ItemStage(ItemSpace(TARGETS, **settings), KEYS, 1)
    for partition in range(TARGETS):
        stage.open(partition, None if arrays is None else arrays[partition])
    return stage


def rows(stage: ItemStage) -> dict[str, dict[str, Any]]:
    names = stage.space.ids.texts(range(len(stage.space.ids)))
    return cells(stage.space.rows, names)


def strongest(part: dict[str, float], most: int) -> dict[str, float]:
    return dict(sorted(part.items(), key=lambda cell: -cell[1])[:most])


def kept(stage: ItemStage) -> list[dict[str, Any]]:
    return [stage.copy(partition).whole() for partition in range(TARGETS)]


@pytest.mark.parametrize(("before", "after"), [((100, 20), (4, 2)), ((4, 2), (100, 20)), ((100, 20), (4, 255))])
def test_rows_get_another_width(before: tuple[int, int], after: tuple[int, int]) -> None:
    old = feed(items(neighbours=before[0], transitions=before[1]), [values[:2] for values in DELTAS])
    new = items(kept(old), neighbours=after[0], transitions=after[1])
    was, now = rows(old), rows(new)
    assert now.keys() == was.keys()
    for name, row in now.items():
        assert row["sums"] == was[name]["sums"]
        assert sorted(row["near"].values()) == sorted(strongest(was[name]["near"], after[0]).values())
        assert sorted(row["steps"].values()) == sorted(strongest(was[name]["steps"], after[1]).values())
    feed(new, [values[2:] for values in DELTAS])  # goes on learning
    widest = (max(len(row[part]) for row in rows(new).values()) for part in ("near", "steps"))
    assert tuple(widest) <= after
    assert rows(items(kept(new), neighbours=after[0], transitions=after[1])) == rows(new)


@pytest.mark.parametrize("after", [3.0, 90.0])
def test_another_half_life_holds_from_the_newest_event_on(after: float) -> None:
    """What was learned weighs at the newest event what it did; then both decay by the new half-life."""
    old = feed(items(half_life_s=30 * DAY_S), DELTAS)
    new = items(kept(old), half_life_s=after * DAY_S)
    was, now = rows(old), rows(new)
    assert now.keys() == was.keys()
    for name, row in now.items():
        partition = int(new.space.partition[new.space.encode([name])[0]])
        at = new.shards[partition].newest
        factor = 2.0 ** (row["sums"]["epoch"] - at / (after * DAY_S))
        factor /= 2.0 ** (was[name]["sums"]["epoch"] - at / (30 * DAY_S))
        assert row["sums"]["total"] * factor == pytest.approx(was[name]["sums"]["total"], rel=1e-9)
        for part in ("near", "steps"):
            scaled = {other: value * factor for other, value in row[part].items()}
            assert scaled == pytest.approx(was[name][part], rel=1e-9)
    assert rows(items(kept(new), half_life_s=after * DAY_S)) == close(now)


def test_other_partitions_are_refused_by_name_and_number() -> None:
    arrays = saved(users(UserRules(), records=FIRST))
    stage = UserStage(ItemSpace(TARGETS + 1), KEYS, UserRules(), 1)
    with pytest.raises(ConfigurationError, match="RIVULET_COVISITS_PARTITIONS=3, but the snapshot was made with 2"):
        stage.open(0, arrays)
    arrays = kept(items())[0]
    other = ItemStage(ItemSpace(TARGETS), KEYS, 4)
    with pytest.raises(ConfigurationError, match="RIVULET_EVENTS_PARTITIONS=4, but the snapshot was made with 1"):
        other.open(0, arrays)

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.copying import SLICE_BYTES, Changes, Copying, Piece, Rows, texts_of
from stream.demo.shop import Shop
from stream.keys import Keys
from stream.stages.item import ItemStage
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules, UserShard
from stream.stages.user_snapshot import restore
from tests.records import cells, record, stream

EVENTS = list(Shop(seed=5, users=200, concurrent=40).events(1_200))
RECORDS = stream(EVENTS)
TARGETS = 1


def joined(pieces: list[Piece]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, list[NDArray[Any]]] = {}
    for name, piece in pieces:
        arrays.setdefault(name, []).append(piece)
    return {name: np.concatenate(parts) for name, parts in arrays.items()}


def learning(stage: UserStage, items: ItemStage, start: int, end: int) -> None:
    """Let both stages learn some events in one batch."""
    learned = stage.learn(0, RECORDS[start:end])
    deltas = [send.value for send in learned.sends if send.role == "covisits"]
    if deltas:
        items.learn(0, [record(start + n, value) for n, value in enumerate(deltas)])
    stage.rank(0, learned.users, learned.ts_ms)


def copied(copying: Copying, between: Iterator[None]) -> dict[str, NDArray[Any]]:
    """A copy while learning goes on between its pieces."""
    pieces = []
    for piece in copying.bulk():
        pieces.append(piece)
        next(between, None)
    for _ in between:
        pass
    return joined(pieces + list(copying.rest()))


def users_of(shard: UserShard, space: ItemSpace) -> dict[str, Any]:
    """Everything a user shard has learned, by ids."""
    columns, found = shard.columns(), {}
    names = {name for name in columns if name not in {"pushed_ms", "profiled_ms", "offers", "segment", "last"}}
    for user, text in enumerate(shard.users.texts(range(len(shard.users)))):
        row: dict[str, Any] = {name: columns[name][user].tolist() for name in names}
        row["histories.item"] = space.ids.texts(columns["histories.item"][user][: row["histories.count"]])
        weights = columns["profiles.affinity"][user]
        chosen = columns["profiles.category"][user][weights > 0]
        row["profiles.category"] = space.categories.texts(chosen)
        found[text] = row
    return {
        "users": found,
        "seen": np.roll(shard.seen.arrays()["hashes"], -shard.seen.arrays()["oldest"][0]).tolist(),
        "sent": shard.sent.tolist(),
        "facts": (shard.watermark, dict(shard.counts)),
    }


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 600), st.lists(st.integers(1, 40), max_size=30))
def test_copy_of_a_learning_shard_is_its_state_at_the_standstill(before: int, batches: list[int]) -> None:
    space = ItemSpace(TARGETS)
    space.encode(["first"])  # its index stands in cells that are not in use
    users, items = UserStage(space, Keys(), UserRules(dedup=500), 1), ItemStage(space, Keys(), 1)
    users.open(0, None)
    items.open(0, None)
    if before:
        learning(users, items, 0, before)

    cached: list[int] = []  # rows of other workers' items come and go, and move the shard's own ones

    def forget() -> None:
        space.rows.drop(np.array(cached, dtype=np.int32))
        cached.clear()

    def going_on() -> Iterator[None]:
        at = before
        for size in batches:
            some = space.encode([f"unrelated-{at}-{n}" for n in range(4)])
            foreign = some[space.partition[some] != 0]
            cached.extend(set(foreign.tolist()) - set(cached))
            space.rows.open(foreign)
            learning(users, items, at, min(at + size, len(RECORDS)))
            at = min(at + size, len(RECORDS))
            if size % 7 == 0:
                forget()
            yield

    both = going_on()
    of_items = items.copy(0)
    large = of_items.bulk()
    early = list(itertools.islice(large, 4))  # half of the arrays before what comes now, half behind it
    of_users = copied(users.copy(0), both)
    taken = joined([*early, *large, *of_items.rest()])
    forget()
    other = ItemSpace(TARGETS)
    other.encode(["elsewhere", "tent"])
    shard = restore(UserRules(dedup=500), other, of_users)
    assert users_of(shard, other) == users_of(users.shards[0], space)
    again = ItemStage(other, Keys(), 1)
    again.open(0, taken)
    assert cells(other.rows, other.ids.texts(range(len(other.ids)))) == cells(
        space.rows, space.ids.texts(range(len(space.ids)))
    )
    assert again.shards[0].marks.tolist() == items.shards[0].marks.tolist()
    assert "unrelated-0" not in texts_of(of_users["items.texts"])  # the item shard keeps all of its partition


@given(st.integers(0, 300_000), st.integers(1, 40))
@settings(deadline=None, max_examples=20)
def test_slices_are_small_and_lose_nothing(rows: int, width: int) -> None:
    array = np.arange(rows * width, dtype=np.int16).reshape(rows, width)
    array.flags.writeable = False
    chosen = np.arange(0, rows, 3, dtype=np.int32)
    for source, expected in ((Rows(array), array), (Rows(array, chosen), array[chosen])):
        slices = list(source.slices())
        assert max(piece.nbytes for piece in slices) <= SLICE_BYTES
        assert np.array_equal(np.concatenate(slices), expected)
        assert not any(np.shares_memory(piece, array) for piece in slices if piece.size)


def test_changed_rows_are_noted_only_while_somebody_watches() -> None:
    changes = Changes()
    changes.add(np.array([1]))
    changes.watch()
    changes.add(np.array([9, 3]))
    changes.add(np.zeros(0, dtype=np.int32))
    assert changes.take().tolist() == [3, 9]
    changes.add(np.array([4]))
    assert changes.take().tolist() == []

"""A joined history teaches what one history would have taught from the beginning."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.covisitation import Deltas, emit, retract, weighting
from models.histories import Histories, Touches
from models.joined_histories import joined, newest, rewrite, without
from tests.plain import bounded

WEIGHTS = weighting(np.array([1.0, 0.0, 2.0], dtype=np.float32))
history = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 2]), st.integers(0, 40)), max_size=6)


def touches(rows: list[tuple[int, int, int]], *, user: int = 0) -> Touches:
    """Items, kinds and quarters of an hour; a visit begins with a history, and after more than two quarters."""
    rows = sorted(rows, key=lambda row: row[2])
    ts = np.array([row[2] * 900 for row in rows], dtype=np.uint32)
    starts = np.diff(ts.astype(np.int64), prepend=-10_000) > 1_800
    return Touches(
        np.full(len(rows), user, dtype=np.int32),
        np.array([row[0] for row in rows], dtype=np.int32),
        np.array([row[1] for row in rows], dtype=np.uint8),
        ts,
        starts,
    )


def sums(*parts: Deltas) -> dict[tuple[object, ...], float]:
    """What deltas add up to: per visit, pair and step, each with its time."""
    found: defaultdict[tuple[object, ...], float] = defaultdict(float)
    for deltas in parts:
        for v in range(len(deltas.item)):
            at = (int(deltas.item[v]), int(deltas.ts[v]))
            found[at] += float(deltas.weight[v])
            for p in range(deltas.start[v], deltas.start[v + 1]):
                found[(*at, int(deltas.other[p]), bool(deltas.step[p]))] += float(deltas.pull[p])
    return {key: value for key, value in found.items() if abs(value) > 1e-6}


@given(history, history)
@bounded
def test_it_is_as_if_there_had_been_one_visitor(
    one: list[tuple[int, int, int]], two: list[tuple[int, int, int]]
) -> None:
    taken = {row[2] for row in one}
    two = [row for row in two if row[2] not in taken]  # of touches at one moment the order is free
    apart, whole = Histories(20), Histories(20)
    apart.reserve(2)
    whole.reserve(1)
    taught = [emit(apart.arrays, touches(rows, user=user), WEIGHTS) for user, rows in enumerate((one, two))]
    moved = apart.recall(np.array([1], dtype=np.int32))
    taught.append(retract(apart, np.array([1], dtype=np.int32), WEIGHTS))
    mine = np.array([0], dtype=np.int32)
    taught.append(rewrite(apart, mine, joined(apart.recall(mine), moved), WEIGHTS))
    expected = emit(whole.arrays, joined(apart_of(one), apart_of(two)), WEIGHTS)
    assert apart.recent(0) == whole.recent(0)
    assert sums(*taught) == pytest.approx(sums(expected), abs=1e-5)
    assert taught[-1].source.tolist() == sorted(taught[-1].source.tolist())


def apart_of(rows: list[tuple[int, int, int]]) -> Touches:
    """What a history of its own keeps of touches."""
    alone = Histories(20)
    alone.reserve(1)
    emit(alone.arrays, touches(rows), WEIGHTS)
    return alone.recall(np.array([0], dtype=np.int32))


@given(history, history)
@bounded
def test_touches_are_in_order_and_none_is_lost(
    one: list[tuple[int, int, int]], two: list[tuple[int, int, int]]
) -> None:
    found = joined(touches(one), touches(two))
    assert sorted(zip(found.item, found.kind, found.ts, strict=True)) == sorted(
        (item, kind, quarter * 900) for item, kind, quarter in one + two
    )
    assert (np.diff(found.ts.astype(np.int64)) >= 0).all()
    assert found.starts.tolist() == touches(one + two).starts.tolist()  # visits that touch become one


@given(st.lists(st.tuples(history, history), min_size=1, max_size=3))
@bounded
def test_several_users_are_joined_as_each_one_alone(
    pairs: list[tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]],
) -> None:
    one, two = (
        Touches._make(map(np.concatenate, zip(*(touches(rows, user=n) for n, rows in enumerate(side)), strict=True)))
        for side in zip(*pairs, strict=True)
    )
    alone = [joined(touches(mine, user=n), touches(theirs, user=n)) for n, (mine, theirs) in enumerate(pairs)]
    expected = Touches._make(map(np.concatenate, zip(*alone, strict=True)))
    assert [column.tolist() for column in joined(one, two)] == [column.tolist() for column in expected]


def test_a_visit_that_its_own_side_began_stays_one() -> None:
    """A session id may change within half an hour; only from one side to the other does a visit go on."""
    starts = np.array([True, True])
    one = touches([(1, 0, 1), (2, 0, 2)])._replace(starts=starts)
    assert joined(one, touches([])).starts.tolist() == [True, True]
    assert joined(one, touches([(3, 0, 0)])).starts.tolist() == [True, False, True]
    assert joined(one, touches([(3, 0, 3)])).starts.tolist() == [True, True, False]


def test_after_a_long_pause_a_visit_begins_though_its_first_touches_are_gone() -> None:
    going_on = touches([(3, 0, 9)])._replace(starts=np.array([False]))
    assert joined(touches([(1, 0, 1)]), going_on).starts.tolist() == [True, True]
    assert joined(touches([(1, 0, 8)]), going_on).starts.tolist() == [True, False]


@given(st.lists(history, max_size=4), st.integers(1, 5))
@bounded
def test_the_newest_of_each_user_remain(sides: list[list[tuple[int, int, int]]], most: int) -> None:
    parts = [touches(rows, user=n) for n, rows in enumerate(sides)] or [touches([])]
    kept = newest(Touches._make(map(np.concatenate, zip(*parts, strict=True))), most)
    expected = [item for part in parts for item in part.item[-most:].tolist()]
    assert kept.item.tolist() == expected


@given(history, history)
@bounded
def test_what_was_joined_comes_out_again(one: list[tuple[int, int, int]], two: list[tuple[int, int, int]]) -> None:
    both = joined(touches([(item, 0, ts) for item, _, ts in one]), touches([(item, 2, ts) for item, _, ts in two]))
    found = without(both, both.kind == 2)
    assert [column.tolist() for column in found] == [
        column.tolist() for column in touches([(item, 0, ts) for item, _, ts in one])
    ]


def test_each_users_first_touch_that_is_left_begins_a_visit() -> None:
    sides = [touches([(1, 0, 1), (2, 2, 2)]), touches([(3, 2, 2), (4, 0, 3)], user=1)]
    both = Touches._make(map(np.concatenate, zip(*sides, strict=True)))
    found = without(both, both.kind == 2)
    assert (found.item.tolist(), found.starts.tolist()) == ([1, 4], [True, True])
    assert len(without(both, both.kind >= 0).item) == 0

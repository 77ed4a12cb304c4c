"""State of other settings: what is cut is what a smaller bound would have kept, what grows goes on learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.conversion import SLICE, redecayed_rows, resized_lists, resized_rings, resized_rows
from models.histories import Histories
from models.neighbour_rows import NeighbourRows, RowArrays
from tests.plain import Touch, bounded, streams
from tests.small_world import HALF_LIFE_S, ITEMS, USERS, World

SIZES = st.integers(1, 7)
few = streams(USERS, ITEMS, 8, most=30)


def recent(histories: Histories) -> list[list[tuple[int, ...]]]:
    """Each user's touches, newest first."""
    a = histories.arrays
    return [
        [
            tuple(int(column[user, (int(a.head[user]) - n) % histories.size]) for column in (a.item, a.ts, a.kind))
            for n in range(int(a.count[user]))
        ]
        for user in range(USERS)
    ]


@bounded
@given(few, few, SIZES, SIZES)
def test_rings_keep_their_newest_touches_and_go_on(before: list[Touch], after: list[Touch], old: int, new: int) -> None:
    was, fresh = Histories(old), Histories(new)
    for histories in (was, fresh):
        histories.reserve(USERS)
    for touch in before:
        was.append(touch.user, touch.item, touch.kind, touch.ts, starts=touch.starts)
    now = Histories.restore(resized_rings(was.snapshot(USERS), new))
    assert recent(now) == [touches[:new] for touches in recent(was)]
    for user, touches in enumerate(recent(now)):  # the same touches in rings that were never another size
        for item, ts, kind in reversed(touches):
            fresh.append(user, item, kind & 0x7F, ts, starts=kind >= 0x80)
    for touch in after:
        for histories in (now, fresh):
            histories.append(touch.user, touch.item, touch.kind, touch.ts, starts=touch.starts)
    assert recent(now) == recent(fresh)


def cells(rows: dict[str, NDArray[Any]], names: tuple[str, str, str], row: int) -> list[tuple[int, float]]:
    item, value, size = names
    size_ = int(rows[size][row])
    return list(zip(rows[item][row, :size_].tolist(), rows[value][row, :size_].tolist(), strict=True))


@bounded
@given(few, SIZES, SIZES, SIZES, SIZES)
def test_rows_keep_their_strongest_cells(stream: list[Touch], near: int, steps: int, new: int, new_steps: int) -> None:
    rows = World(stream, neighbours=near, transitions=steps).rows
    items = np.flatnonzero(rows.arrays.row[:ITEMS] >= 0).astype(np.int32)
    was = rows.extract(items)
    now = resized_rows(was, new, new_steps)
    for names, width in ((("item", "value", "size"), new), (("step_item", "step_value", "steps"), new_steps)):
        for row in range(len(items)):
            old = cells(was, names, row)
            best = sorted(range(len(old)), key=lambda n: (-old[n][1], n))[:width]
            assert cells(now, names, row) == [old[n] for n in sorted(best)]
    again = NeighbourRows(new, new_steps, HALF_LIFE_S)
    again.insert(items, now)
    for name in RowArrays._fields[1:]:
        assert np.array_equal(getattr(again.arrays, name)[again.arrays.row[items]], now[name])


def test_more_rows_than_a_slice_are_cut() -> None:
    size = SLICE + 3
    values = np.tile(np.array([[1.0, 3.0, 2.0]]), (size, 1))
    rows = {
        "item": np.tile(np.array([[5, 6, 7]], dtype=np.int32), (size, 1)),
        "value": values,
        "size": np.full(size, 3, dtype=np.uint8),
        "step_item": np.zeros((size, 1), dtype=np.int32),
        "step_value": np.zeros((size, 1)),
        "steps": np.zeros(size, dtype=np.uint8),
    }
    assert (resized_rows(rows, 2, 1)["item"] == [6, 7]).all()


@bounded
@given(few, st.floats(0.2, 5.0), st.integers(0, 50))
def test_another_half_life_changes_nothing_at_the_moment_it_begins(
    stream: list[Touch], factor: float, later: int
) -> None:
    rows = World(stream).rows
    items = np.flatnonzero(rows.arrays.row[:ITEMS] >= 0).astype(np.int32)
    was = rows.extract(items)
    newest = max((touch.ts for touch in stream), default=0) * HALF_LIFE_S
    after_s = HALF_LIFE_S * factor
    now = redecayed_rows(was, HALF_LIFE_S, after_s, newest)

    def weights(columns: dict[str, NDArray[Any]], name: str, half_life_s: float, at: float) -> NDArray[Any]:
        age = columns["epoch"] - at / half_life_s
        return columns[name] * np.exp2(age if columns[name].ndim == 1 else age[:, None])

    for name in ("total", "value", "step_value"):
        before = weights(was, name, HALF_LIFE_S, newest)
        assert weights(now, name, after_s, newest) == pytest.approx(before, rel=1e-9)
        faded = before * 0.5 ** (later * 3_600 / after_s)
        assert weights(now, name, after_s, newest + later * 3_600) == pytest.approx(faded, rel=1e-9)
    assert (now["epoch"] <= newest / after_s).all()


def test_lists_are_cut_or_padded() -> None:
    lists = np.array([[1, 2, 3], [4, -1, -1]], dtype=np.int32)
    assert resized_lists(lists, 3) is lists
    assert resized_lists(lists, 1).tolist() == [[1], [4]]
    assert resized_lists(lists, 4).tolist() == [[1, 2, 3, -1], [4, -1, -1, -1]]

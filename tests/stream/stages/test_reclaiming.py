"""What marking says is still referred to equals the same said with sets: an index freed too early gets another item."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.histories import Histories
from stream.stages.reclaiming import items_in_rings, mark_cells, mark_histories, mark_lists
from tests.plain import PlainHistories, Touch, bounded, streams

USERS, ITEMS, WIDTH = 3, 50, 4  # so many items that hardly any is in two rings
SPANS = st.tuples(st.integers(0, USERS), st.integers(0, USERS)).map(sorted)
BEFORE = st.sets(st.integers(0, ITEMS - 1), max_size=2)  # marked already, and to stay so
ASKED = st.lists(st.integers(0, USERS - 1), min_size=1)
TABLES = st.lists(
    st.tuples(st.lists(st.integers(0, 9), min_size=WIDTH, max_size=WIDTH), st.integers(0, WIDTH)),
    min_size=USERS,
    max_size=USERS,
)


def marks(items: Iterable[int]) -> NDArray[np.bool_]:
    """A flag per item, set for these."""
    marked = np.zeros(ITEMS, dtype=np.bool_)
    marked[list(items)] = True
    return marked


def marked_in(marked: NDArray[np.bool_]) -> set[int]:
    return set(np.flatnonzero(marked).tolist())


@bounded
@given(TABLES, SPANS, BEFORE)
def test_cells_of_rows_are_marked_as_far_as_they_are_used(
    table: list[tuple[list[int], int]], span: list[int], before: set[int]
) -> None:
    start, end = span
    marked = marks(before)
    items = np.array([cells for cells, _ in table], dtype=np.int32)
    mark_cells(marked, items, np.array([used for _, used in table], dtype=np.uint8), start, end)
    assert marked_in(marked) == before.union(*(cells[:used] for cells, used in table[start:end]))


@bounded
@given(TABLES, SPANS, BEFORE)
@example([([0] * WIDTH, 1)] * USERS, [0, USERS], set())  # 0 is an item, too
def test_lists_are_marked_but_for_their_empty_places(
    table: list[tuple[list[int], int]], span: list[int], before: set[int]
) -> None:
    start, end = span
    marked = marks(before)
    lists = [cells[:shown] + [-1] * (WIDTH - shown) for cells, shown in table]
    mark_lists(marked, np.array(lists, dtype=np.int32), start, end)
    assert marked_in(marked) == before.union(*(cells[:shown] for cells, shown in table[start:end]))


@bounded
@given(streams(USERS, ITEMS, least=15, most=25), st.sampled_from([1, 2, 3, 4, 127]), SPANS, BEFORE, ASKED)
def test_rings_hold_what_plain_histories_hold(
    stream: list[Touch], size: int, span: list[int], before: set[int], asked: list[int]
) -> None:
    """Also rings that have gone round: what was overwritten is no reference any more."""
    histories, plain = Histories(size), PlainHistories(size)
    histories.reserve(USERS)
    for touch in stream:
        histories.append(touch.user, touch.item, touch.kind, touch.ts)
        plain.append(touch)
    held = [[touch.item for touch in plain.recent.get(user, [])] for user in range(USERS)]

    start, end = span
    marked = marks(before)
    mark_histories(marked, histories.arrays, start, end)
    assert marked_in(marked) == before.union(*held[start:end])

    found = items_in_rings(histories.arrays, np.array(asked, dtype=np.int32))
    assert found.tolist() == [item for user in asked for item in held[user]]

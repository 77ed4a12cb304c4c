from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream.row_wire import insert_rows, pack_rows
from stream.stages.space import ItemSpace
from tests.records import cells

IDS = ["tent", "mat", "stove", "höhle", "日本", "a b", "x" * 256, "mug", ""]
ID = st.sampled_from(IDS)
CELLS = st.dictionaries(ID, st.floats(0, 1e300), max_size=6)

Cells = dict[str, float]
Table = dict[str, tuple[int, float, Cells, Cells]]

TABLES: st.SearchStrategy[Table] = st.dictionaries(
    ID, st.tuples(st.integers(-(2**31), 2**31 - 1), st.floats(0, 1e300), CELLS, CELLS), min_size=1
)


def space_of(table: Table) -> tuple[ItemSpace, NDArray[np.int32]]:
    """A process that has these rows, cell by cell, and the items that have one."""
    space = ItemSpace(1, neighbours=6, transitions=6)
    items = space.encode(list(table))
    space.rows.open(items)
    for item, (epoch, total, near, steps) in zip(items, table.values(), strict=True):
        near_codes, step_codes = space.encode(list(near)), space.encode(list(steps))
        a, row = space.rows.arrays, space.rows.arrays.row[item]
        a.epoch[row], a.total[row], a.size[row], a.steps[row] = epoch, total, len(near), len(steps)
        a.item[row, : len(near)], a.value[row, : len(near)] = near_codes, list(near.values())
        a.step_item[row, : len(steps)], a.step_value[row, : len(steps)] = step_codes, list(steps.values())
    return space, items


def rows(space: ItemSpace) -> dict[str, dict[str, Any]]:
    return cells(space.rows, space.ids.texts(range(space.ids.size)))


def expected(table: Table) -> dict[str, dict[str, Any]]:
    return {
        name: {"sums": {"epoch": epoch, "total": total}, "near": near, "steps": steps}
        for name, (epoch, total, near, steps) in table.items()
    }


@settings(deadline=None)
@given(TABLES, st.permutations(IDS))
def test_rows_travel_to_another_process(table: Table, order: list[str]) -> None:
    """A worker reads rows of another and ranks with the same numbers, under its own indices."""
    theirs, items = space_of(table)
    ours = ItemSpace(1, neighbours=6, transitions=6)
    ours.encode(order[:4])
    taken = insert_rows(ours, ours.encode(list(table)), pack_rows(theirs.rows, items, theirs.ids))
    assert taken.all()
    assert rows(ours) == rows(theirs) == expected(table)


@settings(deadline=None)
@given(TABLES, st.data())
def test_what_is_damaged_or_of_another_version_is_left_and_the_others_are_taken(
    table: Table, data: st.DataObject
) -> None:
    theirs, items = space_of(table)
    values = pack_rows(theirs.rows, items, theirs.ids)
    broken = data.draw(st.integers(0, len(values) - 1))
    value = values[broken]
    at = data.draw(st.integers(0, len(value) - 1))
    spoilt = (value[:at], value + b"x", value + bytes(8), b"", b"\x96\xcb" + value, b"XVN1" + value[4:])
    values[broken] = data.draw(st.sampled_from(spoilt))
    ours = ItemSpace(1, neighbours=6, transitions=6)
    taken = insert_rows(ours, ours.encode(list(table)), values)
    assert taken.tolist() == [n != broken for n in range(len(values))]
    names = [name for n, name in enumerate(table) if n != broken]
    assert rows(ours) == {name: row for name, row in expected(table).items() if name in names}


@settings(deadline=None)
@given(TABLES)
def test_a_process_that_keeps_fewer_cells_takes_the_first(table: Table) -> None:
    theirs, items = space_of(table)
    ours = ItemSpace(1, neighbours=3, transitions=1)
    insert_rows(ours, ours.encode(list(table)), pack_rows(theirs.rows, items, theirs.ids))
    for name, row in rows(ours).items():
        assert list(row["near"].items()) == list(table[name][2].items())[:3]
        assert list(row["steps"].items()) == list(table[name][3].items())[:1]


@settings(deadline=None)
@given(TABLES, TABLES)
def test_a_newer_row_replaces_an_older_one(before: Table, after: Table) -> None:
    ours = ItemSpace(1, neighbours=6, transitions=6)
    for table in (before, after):
        theirs, items = space_of(table)
        insert_rows(ours, ours.encode(list(table)), pack_rows(theirs.rows, items, theirs.ids))
    assert rows(ours) == expected(before | after)

"""Decayed co-visitation counts: per item a bounded row of neighbours and one of next items, summed from deltas.

Decay is by event time and exact: every row stores its cells relative to an integer number of half-lives (its *epoch*),
``cell = sum w 2^(t/H - epoch)``; raising the epoch multiplies by a power of two, which rounds nothing. Sums are thus
independent of the order in which deltas arrive, and a score, being a ratio of two cells of one row, needs no clock.

References
----------
Cormode, Shkapenyuk, Srivastava, Xu (2009), "Forward decay: a practical time decay model for streaming systems".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.covisitation import Deltas
from models.decay import summed
from models.kernel import lean_kernel
from models.vocabulary import grown

NO_ROW = -1
LEAST_ROOM = 4_096
COUNTED = -2  # only while missing rows are counted


class RowArrays(NamedTuple):
    """The arrays of `NeighbourRows`. `row` maps an item to its row or -1; all others are indexed by row."""

    row: NDArray[np.int32]
    epoch: NDArray[np.int32]
    total: NDArray[np.float64]
    size: NDArray[np.uint8]
    item: NDArray[np.int32]
    value: NDArray[np.float64]
    steps: NDArray[np.uint8]
    step_item: NDArray[np.int32]
    step_value: NDArray[np.float64]


class NeighbourRows:
    """Decayed co-visitation counts: per item a bounded row of neighbours and one of next items.

    Parameters
    ----------
    neighbours
        Cells kept per row, 1 to 255 (K). When a row is full, the weakest cell makes room.
    transitions
        Next items kept per row, 1 to 255.
    half_life_s
        Event time, in seconds, in which a count loses half of its weight.
    backward
        Weight of the backward direction, 0 to 1.

    Notes
    -----
    Memory: ``12 * (neighbours + transitions) + 14`` bytes per row and 4 per item index: 1.46 kB with the defaults.

    Examples
    --------
    >>> rows = NeighbourRows(neighbours=4, transitions=2)
    >>> rows.reserve(items=3)
    >>> rows.neighbours(0)
    []
    """

    def __init__(
        self, neighbours: int = 100, transitions: int = 20, half_life_s: float = 30 * 86_400.0, backward: float = 1.0
    ) -> None:
        if not (1 <= neighbours <= 255 and 1 <= transitions <= 255 and half_life_s > 0):
            raise ValueError(
                f"neighbours and transitions must be 1 to 255, half_life_s above 0; got {neighbours}, {transitions},"
                f" {half_life_s}"
            )
        self.half_life_s = half_life_s
        self.backward = backward
        self.used = 0
        self.arrays = RowArrays(
            np.zeros(0, dtype=np.int32),
            np.zeros(0, dtype=np.int32),
            np.zeros(0, dtype=np.float64),
            np.zeros(0, dtype=np.uint8),
            np.zeros((0, neighbours), dtype=np.int32),
            np.zeros((0, neighbours), dtype=np.float64),
            np.zeros(0, dtype=np.uint8),
            np.zeros((0, transitions), dtype=np.int32),
            np.zeros((0, transitions), dtype=np.float64),
        )

    def reserve(self, items: int) -> None:
        """Make room for items ``0 .. items - 1`` (rows are allocated when an item is first learned)."""
        known = len(self.arrays.row)
        if items > known:
            row = grown(self.arrays.row, max(items, 1024))
            row[known:] = NO_ROW
            self.arrays = self.arrays._replace(row=row)

    def reserve_rows(self, more: int) -> None:
        """Make room for `more` further rows."""
        needed = self.used + more
        if needed > len(self.arrays.epoch):
            room = max(needed, 256)
            self.arrays = RowArrays(self.arrays.row, *(grown(a, room) for a in self.arrays[1:]))

    def learn(self, deltas: Deltas, partition: NDArray[np.int32], target: int = 0) -> None:
        """Add deltas to the rows of one partition's items.

        Parameters
        ----------
        deltas
            What `emit` returned, here or in another process. Negative weights subtract.
        partition, target
            The partition of each item index, and the one whose rows are meant.

        Notes
        -----
        About 30-60 ns per pair and direction (one random row each).
        """
        if len(deltas.item) == 0:
            return
        highest = max(int(deltas.item.max()), int(deltas.other.max()) if len(deltas.other) else 0)
        self.reserve(highest + 1)
        self.reserve_rows(int(_missing(self.arrays.row, deltas, partition, target)))
        self.used = apply_deltas(self.arrays, self.used, deltas, partition, target, self.half_life_s, self.backward)

    def neighbours(self, item: int) -> list[tuple[int, float]]:
        """Cells of an item's row as (item, share of the row's total), best first, ties by index."""
        row = int(self.arrays.row[item]) if 0 <= item < len(self.arrays.row) else NO_ROW
        if row == NO_ROW or self.arrays.total[row] <= 0:
            return []
        size = int(self.arrays.size[row])
        shares = self.arrays.value[row, :size] / self.arrays.total[row]
        items = self.arrays.item[row, :size].tolist()
        cells = sorted(zip(shares.tolist(), items, strict=True), key=lambda c: (-c[0], c[1]))
        return [(int(i), float(s)) for s, i in cells]

    def extract(self, items: NDArray[np.int32]) -> dict[str, NDArray[Any]]:
        """Copies of the rows of some items, aligned with `items` (all of which must have rows)."""
        rows = self.arrays.row[items]
        return {name: getattr(self.arrays, name)[rows] for name in RowArrays._fields[1:]}

    def open(self, items: NDArray[np.int32]) -> None:
        """Give a row to each item that has none; what stands in it is for the caller to write."""
        self.reserve(int(items.max()) + 1 if len(items) else 0)
        self.reserve_rows(len(items))
        self.used = _allocate(self.arrays.row, items, self.used)

    def insert(self, items: NDArray[np.int32], arrays: dict[str, NDArray[Any]]) -> None:
        """Put rows, as `extract` gave them, in place for items; existing rows of those items are replaced."""
        self.open(items)
        rows = self.arrays.row[items]
        for name in RowArrays._fields[1:]:
            getattr(self.arrays, name)[rows] = arrays[name]

    def drop(self, items: NDArray[np.int32]) -> None:
        """Forget the rows of distinct items, all of which must have one; the last rows move into the gaps.

        About 1 us per row. The room is used again, not given back.
        """
        row = self.arrays.row
        gaps = row[items]
        row[items] = NO_ROW
        self.used -= len(items)
        moving = np.flatnonzero(row >= self.used)
        gaps = gaps[gaps < self.used]
        for name in RowArrays._fields[1:]:
            column = getattr(self.arrays, name)
            column[gaps] = column[row[moving]]
        row[moving] = gaps

    def forget(self, items: NDArray[np.int32]) -> None:
        """Drop the rows of distinct items, if they have any, and the cells that name them; about 1 ns per cell."""
        self.drop(items[self.arrays.row[items] != NO_ROW])
        gone = np.zeros(len(self.arrays.row), dtype=np.bool_)
        gone[items] = True
        a = self.arrays
        _drop_cells(a.item, a.value, a.size, self.used, gone)
        _drop_cells(a.step_item, a.step_value, a.steps, self.used, gone)

    def shrink(self) -> None:
        """Give memory back if most of the room is empty; costs a copy of what is left, at most a fourth of it."""
        room = len(self.arrays.epoch)
        if room > LEAST_ROOM and self.used < room // 4:
            left = {name: getattr(self.arrays, name)[: self.used].copy() for name in RowArrays._fields[1:]}
            self.arrays = self.arrays._replace(**left)


@lean_kernel
def _allocate(row: NDArray[np.int32], items: NDArray[np.int32], used: int) -> int:
    for item in items:
        if row[item] == NO_ROW:
            row[item] = used
            used += 1
    return used


@lean_kernel
def _drop_cells(
    items: NDArray[np.int32], values: NDArray[np.float64], sizes: NDArray[np.uint8], used: int, gone: NDArray[np.bool_]
) -> None:
    for row in range(used):
        kept = 0
        for cell in range(sizes[row]):
            if not gone[items[row, cell]]:
                items[row, kept] = items[row, cell]
                values[row, kept] = values[row, cell]
                kept += 1
        sizes[row] = kept


@lean_kernel
def _missing(row: NDArray[np.int32], deltas: Deltas, partition: NDArray[np.int32], target: int) -> int:
    """Count exactly the rows that `apply_deltas` will allocate: room in store costs memory once it is copied."""
    missing = _turn(row, deltas.item, partition, target, NO_ROW, COUNTED)
    missing += _turn(row, deltas.other, partition, target, NO_ROW, COUNTED)
    _turn(row, deltas.item, partition, target, COUNTED, NO_ROW)
    _turn(row, deltas.other, partition, target, COUNTED, NO_ROW)
    return missing


@lean_kernel
def _turn(
    row: NDArray[np.int32], items: NDArray[np.int32], partition: NDArray[np.int32], target: int, old: int, new: int
) -> int:
    """Replace a mark of the target's items by another; returns how many were replaced."""
    turned = 0
    for item in items:
        if row[item] == old and partition[item] == target:
            row[item] = new
            turned += 1
    return turned


@lean_kernel
def apply_deltas(
    rows: RowArrays,
    used: int,
    deltas: Deltas,
    partition: NDArray[np.int32],
    target: int,
    half_life_s: float,
    backward: float,
) -> int:
    """Add deltas to the rows of the target partition's items; returns how many rows are in use."""
    for v in range(len(deltas.item)):
        item = deltas.item[v]
        ages = deltas.ts[v] / half_life_s
        epoch = int(np.floor(ages))
        fresh = 2.0 ** (ages - epoch)  # factor of a row whose epoch is this one, as nearly every row's is
        row = NO_ROW
        factor = fresh
        if partition[item] == target:
            if rows.row[item] == NO_ROW:
                rows.row[item] = open_row(rows, used)
                used += 1
            row = rows.row[item]
            catch_up(rows, row, epoch)
            if rows.epoch[row] != epoch:
                factor = 2.0 ** (ages - rows.epoch[row])
            rows.total[row] = summed(rows.total[row], deltas.weight[v] * factor)
        for p in range(deltas.start[v], deltas.start[v + 1]):
            other = deltas.other[p]
            pull = deltas.pull[p]
            if row != NO_ROW and backward > 0:
                amount = pull * backward * factor
                rows.size[row] = add_cell(rows.item[row], rows.value[row], rows.size[row], other, amount)
            if partition[other] == target:
                if rows.row[other] == NO_ROW:
                    rows.row[other] = open_row(rows, used)
                    used += 1
                r = rows.row[other]
                catch_up(rows, r, epoch)
                amount = pull * (fresh if rows.epoch[r] == epoch else 2.0 ** (ages - rows.epoch[r]))
                rows.size[r] = add_cell(rows.item[r], rows.value[r], rows.size[r], item, amount)
                if deltas.step[p]:
                    rows.steps[r] = add_cell(rows.step_item[r], rows.step_value[r], rows.steps[r], item, amount)
    return used


@lean_kernel
def open_row(rows: RowArrays, row: int) -> int:
    """Clear a row for a new item; its epoch is set by the first contribution."""
    rows.epoch[row] = 0
    rows.total[row] = 0.0
    rows.size[row] = 0
    rows.steps[row] = 0
    return row


@lean_kernel
def catch_up(rows: RowArrays, row: int, epoch: int) -> None:
    """Raise a row's epoch, in half-lives since 2000, when time has moved on: all it holds halves with each."""
    behind = epoch - rows.epoch[row]
    if behind > 0:
        shrink = np.ldexp(1.0, -behind) if behind < 1024 else 0.0
        rows.total[row] *= shrink
        for i in range(rows.size[row]):
            rows.value[row, i] *= shrink
        for i in range(rows.steps[row]):
            rows.step_value[row, i] *= shrink
        rows.epoch[row] = epoch


@lean_kernel
def add_cell(items: NDArray[np.int32], values: NDArray[np.float64], size: int, item: int, amount: float) -> int:
    """Add to an item's cell in a bounded row; returns the row's size.

    A full row gives the place of its weakest cell (ties: the first) to the newcomer: what keeps coming back stays.
    A subtraction clamps at 0 and never opens a cell.
    """
    at = -1
    for i in range(np.int64(size)):  # to the end: without a way out the compiler compares eight cells at a time
        at = i if items[i] == item else at
    if at >= 0:
        values[at] = summed(values[at], amount)
        return size
    if amount <= 0:
        return size
    if size < len(items):
        items[size] = item
        values[size] = amount
        return size + 1
    weakest = 0
    for i in range(1, size):
        if values[i] < values[weakest]:
            weakest = i
    items[weakest] = item
    values[weakest] = amount
    return size

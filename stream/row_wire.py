"""Neighbour rows as workers exchange them: value of ``rv:nb:<item>``, packed and taken over many at a time.

A worker reads a row again every few seconds for each foreign item that its visitors touch. With one row at a time in
Python that took 60 us to take a row over and 17 to pack it, three times as long.

Layout, little-endian: magic, cells of the row and of next items (1 byte each), 2 bytes nothing, epoch (4), bytes of the
ids (4), total (8), the cells' values (8 each), their ids (UTF-8, each followed by a NUL), zeros to a multiple of eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from models.arena import end_of, length_of, start_of
from models.kernel import kernel
from models.neighbour_rows import NeighbourRows, RowArrays
from models.vocabulary import Vocabulary
from stream.packing import aligned
from stream.text import Texts

MAGIC: Final = b"RVN1"
_MAGIC: Final = int.from_bytes(MAGIC, "little")
HEAD: Final = 24
CELL: Final = 8


class ItemTable(Protocol):
    """What `insert_rows` needs of an item space."""

    rows: NeighbourRows

    def encode_joined(self, data: NDArray[np.uint8], count: int) -> NDArray[np.int32]:
        """Indices of items whose ids are separated by NULs; unseen ones are added."""


def pack_rows(rows: NeighbourRows, items: NDArray[np.int32], ids: Vocabulary) -> list[bytes]:
    """Rows of some items, all of which must have one.

    Notes
    -----
    About 5 us per row of 100.
    """
    bounds = _bounds(rows.arrays, items, ids.spans)
    out = np.zeros(int(bounds[-1]), dtype=np.uint8)
    _pack(rows.arrays, items, Texts.of(ids), bounds, out)
    packed, ends = out.tobytes(), bounds.tolist()
    return [packed[start:end] for start, end in pairwise(ends)]


def insert_rows(space: ItemTable, items: NDArray[np.int32], values: Sequence[bytes]) -> NDArray[np.bool_]:
    """Put rows that were packed by whatever process in place for distinct items.

    A row that has more cells than this process keeps gives its first ones.

    Returns
    -------
    NDArray[np.bool_]
        Which of them were taken: values of another version, or damaged ones, are left.

    Notes
    -----
    About 18 us per row of 100 and 20, most of it to look its ids up.
    """
    whole = [b"" if len(value) % CELL else value for value in values]  # no row, and all behind it would lie askew
    data = np.frombuffer(b"".join(whole), dtype=np.uint8)
    bounds = np.cumsum([0, *map(len, whole)])
    sound, texts, count = _read_ids(data, bounds)
    if not sound.any():
        return sound
    codes = space.encode_joined(texts[:-1], count) if count else np.zeros(0, dtype=np.int32)
    space.rows.open(items[sound])
    _insert(data, bounds, sound, items, codes, space.rows.arrays)
    return sound


@kernel
def _bounds(rows: RowArrays, items: NDArray[np.int32], spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each packed row begins, and where the last one ends."""
    bounds = np.zeros(len(items) + 1, dtype=np.int64)
    for n in range(len(items)):
        row = rows.row[items[n]]
        cells = np.int64(rows.size[row]) + rows.steps[row]
        size = _ids_size(rows.item[row, : rows.size[row]], spans) + _ids_size(
            rows.step_item[row, : rows.steps[row]], spans
        )
        bounds[n + 1] = bounds[n] + aligned(HEAD + CELL * cells + size)
    return bounds


@kernel
def _ids_size(items: NDArray[np.int32], spans: NDArray[np.int64]) -> int:
    size = 0
    for item in items:
        size += length_of(spans[item]) + 1
    return size


@kernel
def _pack(
    rows: RowArrays, items: NDArray[np.int32], ids: Texts, bounds: NDArray[np.int64], out: NDArray[np.uint8]
) -> None:
    for n in range(len(items)):
        at, row = bounds[n], rows.row[items[n]]
        size, steps = np.int64(rows.size[row]), np.int64(rows.steps[row])
        end = at + HEAD + CELL * (size + steps)
        numbers = out[at + 16 : end].view(np.float64)
        numbers[0] = rows.total[row]
        for cell in range(size):
            numbers[1 + cell] = rows.value[row, cell]
        for cell in range(steps):
            numbers[1 + size + cell] = rows.step_value[row, cell]
        texts = _put_ids(ids, rows.step_item[row, :steps], out, _put_ids(ids, rows.item[row, :size], out, end))
        head = out[at : at + 16].view(np.int32)
        head[0], head[2], head[3] = _MAGIC, rows.epoch[row], texts - end
        out[at + 4], out[at + 5] = size, steps


@kernel
def _put_ids(ids: Texts, items: NDArray[np.int32], out: NDArray[np.uint8], at: int) -> int:
    """Write ids, each with a NUL behind it; the buffer is zero."""
    for item in items:
        span = ids.spans[item]
        for i in range(start_of(span), end_of(span)):
            out[at] = ids.blob[i]
            at += 1
        at += 1
    return at


@kernel
def _read_ids(data: NDArray[np.uint8], bounds: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.uint8], int]:
    """Which values are sound, and the ids of all of those with NULs behind them, and how many these are."""
    sound = np.zeros(len(bounds) - 1, dtype=np.bool_)
    texts = np.empty(len(data), dtype=np.uint8)
    count = 0
    at = 0
    for n in range(len(sound)):
        start, end = bounds[n], bounds[n + 1]
        if end - start < HEAD:
            continue
        head = data[start : start + 16].view(np.int32)
        cells = np.int64(data[start + 4]) + data[start + 5]
        ids = start + HEAD + CELL * cells
        if head[0] != _MAGIC or head[3] < 0 or aligned(ids + head[3]) != end:
            continue
        found = 0
        for i in range(ids, ids + head[3]):
            texts[at + i - ids] = data[i]
            found += data[i] == 0
        if found == cells and (cells == 0 or data[ids + head[3] - 1] == 0):
            sound[n] = True
            count += cells
            at += head[3]
    return sound, texts[:at], count


@kernel
def _insert(
    data: NDArray[np.uint8],
    bounds: NDArray[np.int64],
    sound: NDArray[np.bool_],
    items: NDArray[np.int32],
    codes: NDArray[np.int32],
    rows: RowArrays,
) -> None:
    code = np.int64(0)
    for n in range(len(items)):
        if not sound[n]:
            continue
        at, row = bounds[n], rows.row[items[n]]
        size, steps = np.int64(data[at + 4]), np.int64(data[at + 5])
        numbers = data[at + 16 : at + HEAD + CELL * (size + steps)].view(np.float64)
        rows.epoch[row] = data[at : at + 16].view(np.int32)[2]
        rows.total[row] = numbers[0]
        rows.size[row] = _cells(codes[code : code + size], numbers[1 : 1 + size], rows.item[row], rows.value[row])
        code += size
        steps_at = numbers[1 + size : 1 + size + steps]
        rows.steps[row] = _cells(codes[code : code + steps], steps_at, rows.step_item[row], rows.step_value[row])
        code += steps


@kernel
def _cells(
    codes: NDArray[np.int32], values: NDArray[np.float64], items: NDArray[np.int32], cells: NDArray[np.float64]
) -> int:
    """Fill a row's cells, as many as there is room for."""
    size = min(len(codes), len(items))
    for cell in range(size):
        items[cell], cells[cell] = codes[cell], values[cell]
    return size

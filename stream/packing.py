"""Kernel that packs pair deltas for topic ``covisits``; `stream.wire` reads them and says what the columns mean."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arena import end_of, length_of, start_of
from models.covisitation import Deltas
from models.hashing import SEPARATOR
from models.kernel import kernel, lean_kernel
from stream.text import Texts

MAGIC: Final = b"RVC1"
HEADER_BYTES: Final = 44
_MAGIC: Final = int.from_bytes(MAGIC, "little")
_VISIT_BYTES: Final = 36
_PAIR_BYTES: Final = 13
_PADS: Final = 12 * 8  # header, texts and ten columns begin at multiples of eight


class Origin(NamedTuple):
    """Where visits come from: offset of the event's record, place in it, and category index (-1 = none)."""

    offset: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment]  # the field's name outweighs tuple.index
    category: NDArray[np.int32]

    @classmethod
    def of_record(cls, offset: int, visits: int) -> Origin:
        """So many visits that all come from one record, and belong to no category."""
        zeros = np.zeros(visits, dtype=np.int64)
        return cls(zeros + offset, zeros, np.full(visits, -1, dtype=np.int32))


@kernel
def pack_targets(
    deltas: Deltas,
    origin: Origin,
    identity: tuple[int, int],
    lows: NDArray[np.int64],
    partition: NDArray[np.int32],
    items: Texts,
    categories: Texts,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One record per target in a buffer, and where each begins and ends (nowhere: nothing for it).

    `identity` is (source, high).
    """
    room = _texts_size(items, deltas.item) + _texts_size(items, deltas.other) + _texts_size(categories, origin.category)
    room += HEADER_BYTES + _PADS + 8 + _VISIT_BYTES * len(deltas.item) + _PAIR_BYTES * len(deltas.other)
    out = np.empty(room * len(lows), dtype=np.uint8)
    bounds = np.zeros((len(lows), 2), dtype=np.int64)
    at = 0
    for target in range(len(lows)):
        visits, others = _select(deltas, partition, target)
        if len(visits) == 0:
            continue
        bounds[target, 0] = at
        item_table, item_codes = distinct(np.concatenate((deltas.item[visits], deltas.other[others])))
        label_table, label_codes = distinct(origin.category[visits])
        texts = _put_texts(items, item_table, out, at + HEADER_BYTES)
        labels = _put_texts(categories, label_table, out, texts)
        counts = (len(visits), len(others), texts - at - HEADER_BYTES, labels - texts, len(label_table))
        _put_header(identity[0], (lows[target], identity[1]), counts, out, at)
        at = _pad(labels, out)
        at = _put_u4(item_codes[: len(visits)], out, at)
        at = _put_f4(deltas.weight[visits], out, at)
        at = _put_u4(deltas.ts[visits], out, at)
        at = _put_i8(origin.offset[visits], out, at)
        at = _put_u4(origin.index[visits], out, at)
        at = _put_u4(label_codes, out, at)
        at = _put_u4(_starts(deltas, visits, others), out, at)
        at = _put_u4(item_codes[len(visits) :], out, at)
        at = _put_f4(deltas.pull[others], out, at)
        for n in range(len(others)):
            out[at + n] = deltas.step[others[n]]
        at = _pad(at + len(others), out)
        bounds[target, 1] = at
    return out, bounds


@lean_kernel
def _texts_size(texts: Texts, indices: NDArray[np.int32]) -> int:
    size = 0
    for index in indices:
        if index >= 0:
            size += length_of(texts.spans[index]) + 1
    return size


@lean_kernel
def _put_texts(texts: Texts, table: NDArray[np.int32], out: NDArray[np.uint8], at: int) -> int:
    """Write ids with separators between them."""
    for n in range(len(table)):
        if n > 0:
            out[at] = SEPARATOR
            at += 1
        span = texts.spans[table[n]]
        for i in range(start_of(span), end_of(span)):
            out[at] = texts.blob[i]
            at += 1
    return at


@lean_kernel
def _put_header(
    source: int, between: tuple[int, int], counts: tuple[int, int, int, int, int], out: NDArray[np.uint8], at: int
) -> None:
    """Write magic, source, (low, high], and the counts of visits, pairs, item bytes, category bytes, categories."""
    small = out[at : at + HEADER_BYTES].view(np.int32)
    small[0] = _MAGIC
    small[1] = source
    wide = out[at + 8 : at + 24].view(np.int64)
    wide[0], wide[1] = between
    for n in range(len(counts)):
        small[6 + n] = counts[n]


@lean_kernel
def aligned(size: int) -> int:
    """The next multiple of eight."""
    return (size + 7) & ~7


@lean_kernel
def _pad(at: int, out: NDArray[np.uint8]) -> int:
    """Write zeros up to the next multiple of eight: the buffer begins at one, and so does every record."""
    while at & 7:
        out[at] = 0
        at += 1
    return at


@lean_kernel
def _put_u4(values: NDArray[np.integer[Any]], out: NDArray[np.uint8], at: int) -> int:
    end = at + 4 * len(values)
    column = out[at:end].view(np.uint32)
    for n in range(len(values)):
        column[n] = values[n]
    return _pad(end, out)


@lean_kernel
def _put_f4(values: NDArray[np.float32], out: NDArray[np.uint8], at: int) -> int:
    end = at + 4 * len(values)
    column = out[at:end].view(np.float32)
    for n in range(len(values)):
        column[n] = values[n]
    return _pad(end, out)


@lean_kernel
def _put_i8(values: NDArray[np.int64], out: NDArray[np.uint8], at: int) -> int:
    end = at + 8 * len(values)
    column = out[at:end].view(np.int64)
    for n in range(len(values)):
        column[n] = values[n]
    return end


@kernel
def distinct(values: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Distinct non-negative values by first appearance, and each value's position among them (negative ones: -1).

    What ``np.unique`` does, without sorting: about 10 ns per value instead of 60.
    """
    room = 16
    while room < 2 * len(values):
        room *= 2
    slots = np.full(room, -1, dtype=np.int32)
    table = np.empty(len(values), dtype=np.int32)
    codes = np.empty(len(values), dtype=np.int32)
    size = 0
    for n in range(len(values)):
        value = values[n]
        if value < 0:
            codes[n] = -1
            continue
        slot = np.int64((value * 2_654_435_761) & (room - 1))
        while slots[slot] >= 0 and table[slots[slot]] != value:
            slot = (slot + 1) & (room - 1)
        if slots[slot] < 0:
            slots[slot] = size
            table[size] = value
            size += 1
        codes[n] = slots[slot]
    return table[:size], codes


@kernel
def _select(deltas: Deltas, partition: NDArray[np.int32], target: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Positions of the visits and of the pairs that the target partition needs."""
    visits = np.empty(len(deltas.item), dtype=np.int32)
    others = np.empty(len(deltas.other), dtype=np.int32)
    v = 0
    p = 0
    for n in range(len(deltas.item)):
        mine = partition[deltas.item[n]] == target
        before = p
        for pair in range(deltas.start[n], deltas.start[n + 1]):
            if mine or partition[deltas.other[pair]] == target:
                others[p] = pair
                p += 1
        if mine or p > before:
            visits[v] = n
            v += 1
    return visits[:v], others[:p]


@kernel
def _starts(deltas: Deltas, visits: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.uint32]:
    """Where each visit's chosen pairs begin, and where the last one's end."""
    starts = np.zeros(len(visits) + 1, dtype=np.uint32)
    p = 0
    for n in range(len(visits)):
        end = deltas.start[visits[n] + 1]
        while p < len(others) and others[p] < end:
            p += 1
        starts[n + 1] = p
    return starts

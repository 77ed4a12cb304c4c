"""The kernels behind `models.vocabulary`: an open-addressing table over ids whose bytes lie in a blob.

Arrays by index: `spans` (where the bytes lie, see `models.arena`) and `hashes`. `table` holds indices, each at the
place that its hash names or the next one free; at most half of it is filled. Indices without an id form a list through
`spans`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.arena import end_of, free, length_of, put, start_of
from models.hashing import SEPARATOR, hash64, murmur2
from models.kernel import kernel, lean_kernel

EMPTY = -1
SIZE, LIVE, FREE = 0, 1, 2  # places in `counts`: indices given so far, ids held now, first index without one


@lean_kernel
def count_segments(data: NDArray[np.uint8]) -> int:
    """Count the separator-delimited segments of a joined buffer."""
    n = 1
    for byte in data:
        if byte == SEPARATOR:
            n += 1
    return n


@lean_kernel
def find(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    h: np.uint64,
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    table: NDArray[np.int32],
) -> int:
    """Place in the table of the id ``data[start:end]``, or of the empty entry where it belongs."""
    mask = np.int64(len(table) - 1)
    slot = np.int64(h & np.uint64(mask))
    while table[slot] >= 0:
        candidate = table[slot]
        span = spans[candidate]
        if hashes[candidate] == h and length_of(span) == end - start:
            same = True
            base = start_of(span)
            for i in range(end - start):
                if blob[base + i] != data[start + i]:
                    same = False
                    break
            if same:
                break
        slot = (slot + 1) & mask
    return slot  # type: ignore[return-value]  # Numba's integers


@lean_kernel
def intern(
    data: NDArray[np.uint8],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    heads: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    table: NDArray[np.int32],
    counts: NDArray[np.int64],
    partition: int,
    partitions: int,
    out: NDArray[np.int32],
) -> None:
    """Index of each separated id in `data` into `out`; new ids of the partition are added, others get -1."""
    n = 0
    start = 0
    for end in range(len(data) + 1):
        if end < len(data) and data[end] != SEPARATOR:
            continue
        h = hash64(data, start, end)
        slot = find(data, start, end, h, blob, spans, hashes, table)
        if table[slot] < 0 and (partitions == 1 or murmur2(data, start, end) % partitions == partition):
            index = counts[FREE]
            if index >= 0:
                counts[FREE] = next_free(spans[index])
            else:
                index = counts[SIZE]
                counts[SIZE] += 1
            spans[index] = put(heads, blob, data, start, end)
            hashes[index] = h
            table[slot] = index
            counts[LIVE] += 1
        out[n] = table[slot]
        n += 1
        start = end + 1


@lean_kernel
def lookup(
    data: NDArray[np.uint8],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    table: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    """Index of each separated id in `data` into `out`, -1 where unknown."""
    n = 0
    start = 0
    for end in range(len(data) + 1):
        if end == len(data) or data[end] == SEPARATOR:
            out[n] = table[find(data, start, end, hash64(data, start, end), blob, spans, hashes, table)]
            n += 1
            start = end + 1


@lean_kernel
def lookup_hashes(
    wanted: NDArray[np.uint64], hashes: NDArray[np.uint64], table: NDArray[np.int32], out: NDArray[np.int32]
) -> None:
    """Index of an id with each hash into `out`, -1 where there is none."""
    mask = np.int64(len(table) - 1)
    for n in range(len(wanted)):
        slot = np.int64(wanted[n] & np.uint64(mask))
        while table[slot] >= 0 and hashes[table[slot]] != wanted[n]:
            slot = (slot + 1) & mask
        out[n] = table[slot]


@lean_kernel
def remove(
    indices: NDArray[np.int32],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    heads: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    table: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    """Forget ids; the last one removed is the first whose index is given again."""
    for index in indices:
        untable(index, hashes, table)
        free(heads, blob, spans[index])
        spans[index] = marked_free(counts[FREE])
        hashes[index] = 0
        counts[FREE] = index
        counts[LIVE] -= 1


@lean_kernel
def marked_free(following: int) -> int:
    """Span of an index without an id: negative, and tells the next free index."""
    return -following - 2


@lean_kernel
def next_free(span: int) -> int:
    """Next free index, as the span of a free one tells."""
    return -span - 2


@lean_kernel
def untable(index: int, hashes: NDArray[np.uint64], table: NDArray[np.int32]) -> None:
    """Take an index out of the table; later entries of its run move back, so no tombstones pile up."""
    mask = np.int64(len(table) - 1)
    hole = np.int64(hashes[index] & np.uint64(mask))
    while table[hole] != index:
        hole = (hole + 1) & mask
    slot = (hole + 1) & mask
    while table[slot] >= 0:
        home = np.int64(hashes[table[slot]] & np.uint64(mask))
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            table[hole] = table[slot]
            hole = slot
        slot = (slot + 1) & mask
    table[hole] = EMPTY


@lean_kernel
def total_length(spans: NDArray[np.int64], indices: NDArray[np.int32]) -> int:
    """Bytes of some ids altogether."""
    total = 0
    for index in indices:
        total += length_of(max(spans[index], 0))
    return total


@lean_kernel
def gather(
    blob: NDArray[np.uint8], spans: NDArray[np.int64], indices: NDArray[np.int32], out: NDArray[np.uint8]
) -> None:
    """Write ids one after another, each followed by the separator."""
    at = 0
    for index in indices:
        span = max(spans[index], 0)
        for i in range(start_of(span), end_of(span)):
            out[at] = blob[i]
            at += 1
        out[at] = SEPARATOR
        at += 1


@lean_kernel
def fill_table(spans: NDArray[np.int64], hashes: NDArray[np.uint64], table: NDArray[np.int32], size: int) -> None:
    """Enter every id into an empty table."""
    mask = np.uint64(len(table) - 1)
    for index in range(size):
        if spans[index] < 0:
            continue
        slot = hashes[index] & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = index


@lean_kernel
def rehash(
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    table: NDArray[np.int32],
    size: int,
) -> None:
    """Hash every id and enter it into an empty table."""
    for index in range(size):
        if spans[index] >= 0:
            hashes[index] = hash64(blob, start_of(spans[index]), end_of(spans[index]))
    fill_table(spans, hashes, table, size)


@kernel
def partitions_of(
    blob: NDArray[np.uint8], spans: NDArray[np.int64], indices: NDArray[np.int32], count: int
) -> NDArray[np.int32]:
    """Kafka partition of each index."""
    out = np.empty(len(indices), dtype=np.int32)
    for n in range(len(indices)):
        span = spans[indices[n]]
        out[n] = murmur2(blob, start_of(span), end_of(span)) % count
    return out

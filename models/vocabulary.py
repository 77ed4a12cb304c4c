"""Ids to dense indices: the interner every array of the project is indexed by.

A Python dictionary of strings costs 127-179 bytes per id and cannot be copied or saved without touching each object.
Here the UTF-8 bytes of all ids lie one after another in a blob, beside their end offsets, their 64-bit hashes and an
open-addressing table: the id's bytes plus about 24 to 32, copied with three ``memcpy`` calls, and encoded for a whole
batch in one kernel call.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.hashing import SEPARATOR, hash64, joined, murmur2
from models.kernel import kernel

EMPTY = -1
OWN_PAGES = 262_144  # bytes from which an array gets pages of its own


class Vocabulary:
    """Bidirectional map between ids and the indices ``0 .. len - 1``, in order of first appearance.

    Indices are local to the process that gave them: nothing that leaves the process may carry one.

    Parameters
    ----------
    capacity
        Ids to make room for at once, > 0. The map grows beyond it in steps of one half.

    Notes
    -----
    About 100 ns per id and call of `encode` with a cold cache. Memory: bytes of the id + 8 (offset) + 8 (hash) + 8-16
    (table) per id.

    Examples
    --------
    >>> vocabulary = Vocabulary()
    >>> vocabulary.encode(["tent", "mat", "tent"]).tolist()
    [0, 1, 0]
    >>> vocabulary.text(1), vocabulary.lookup(["mat", "stove"]).tolist(), len(vocabulary)
    ('mat', [1, -1], 2)
    """

    def __init__(self, capacity: int = 1024) -> None:
        self.size = 0
        self.blob = np.zeros(capacity * 16, dtype=np.uint8)
        self.ends = np.zeros(capacity + 1, dtype=np.int64)
        self.hashes = np.zeros(capacity, dtype=np.uint64)
        self.table = np.full(_table_size(capacity), EMPTY, dtype=np.int32)

    def __len__(self) -> int:
        return self.size

    def encode(self, ids: list[str]) -> NDArray[np.int32]:
        """Index of each id; unseen ids are added.

        Parameters
        ----------
        ids
            Ids without NUL characters.

        Returns
        -------
        NDArray[np.int32]
            One index per id, in order.

        Raises
        ------
        ValueError
            If an id contains a NUL character; nothing is added then.
        """
        return self._run(ids, grow=True)

    def lookup(self, ids: list[str]) -> NDArray[np.int32]:
        """Index of each id, -1 where unknown; never grows (reading leaves the state equal)."""
        return self._run(ids, grow=False)

    def text(self, index: int) -> str:
        """The id behind an index."""
        return bytes(self.blob[self.ends[index] : self.ends[index + 1]]).decode()

    def texts(self, indices: NDArray[np.int32] | range) -> list[str]:
        """The ids behind many indices."""
        chosen = np.asarray(indices, dtype=np.int32)
        if len(chosen) == 0:
            return []
        return self.joined(chosen)[:-1].tobytes().decode().split("\0")  # one call in C instead of one slice per id

    def joined(self, indices: NDArray[np.int32]) -> NDArray[np.uint8]:
        """UTF-8 of the ids behind many indices, each followed by a NUL."""
        out = np.empty(int((self.ends[indices + 1] - self.ends[indices]).sum()) + len(indices), dtype=np.uint8)
        _gather(self.blob, self.ends, indices, out)
        return out

    def partitions(self, indices: NDArray[np.int32], count: int) -> NDArray[np.int32]:
        """Kafka partition (murmur2) of each id among `count` partitions."""
        return _partitions(self.blob, self.ends, indices, count)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a snapshot must hold, the blob and the end offsets: views, true until the next `encode`."""
        return {"blob": self.blob[: self.ends[self.size]], "ends": self.ends[: self.size + 1]}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Vocabulary:
        """A vocabulary from the arrays of a snapshot; the hash table is rebuilt."""
        ends = np.ascontiguousarray(arrays["ends"], dtype=np.int64)
        vocabulary = cls(max(len(ends), 1024))
        vocabulary.blob = np.array(arrays["blob"], dtype=np.uint8)
        vocabulary.ends[: len(ends)] = ends
        vocabulary.size = len(ends) - 1
        _rehash(vocabulary.blob, vocabulary.ends, vocabulary.hashes, vocabulary.table, vocabulary.size)
        return vocabulary

    def _run(self, ids: list[str], *, grow: bool) -> NDArray[np.int32]:
        out = np.empty(len(ids), dtype=np.int32)
        if not ids:
            return out
        data = joined(ids)
        if count_segments(data) != len(ids):
            raise ValueError("an id contains a NUL character")
        if grow:
            self._reserve(len(ids), len(data))
        self.size = _intern(data, self.blob, self.ends, self.hashes, self.table, self.size, grow, out)
        return out

    def _reserve(self, ids: int, nbytes: int) -> None:
        used = int(self.ends[self.size])
        if used + nbytes > len(self.blob):
            self.blob = grown(self.blob, used + nbytes)
        if self.size + ids > len(self.hashes):
            self.hashes = grown(self.hashes, self.size + ids)
            self.ends = grown(self.ends, len(self.hashes) + 1)
        if 2 * (self.size + ids) > len(self.table):
            self.table = np.full(_table_size(self.size + ids), EMPTY, dtype=np.int32)
            _fill_table(self.hashes, self.table, self.size)


def grown(array: NDArray[Any], needed: int, step: float = 1.5) -> NDArray[Any]:
    """The array with room for at least `needed` entries along its first axis; new entries are zero.

    Growing by a half keeps the copying linear overall. Large arrays get pages of their own: untouched ones cost no
    memory, and those of the old array go back to the system at once (the heap kept about 80 bytes per user).
    """
    if needed <= len(array):
        return array
    shape = (max(needed, int(len(array) * step) + 1), *array.shape[1:])
    nbytes = math.prod(shape) * array.itemsize
    if nbytes < OWN_PAGES:
        bigger = np.zeros(shape, dtype=array.dtype)
    else:
        bigger = np.frombuffer(mmap.mmap(-1, nbytes), dtype=array.dtype).reshape(shape)
    bigger[: len(array)] = array
    return bigger


def _table_size(ids: int) -> int:
    return 1 << max(4, (3 * ids).bit_length())


@kernel
def count_segments(data: NDArray[np.uint8]) -> int:
    """Count the separator-delimited segments of a joined buffer."""
    n = 1
    for byte in data:
        if byte == SEPARATOR:
            n += 1
    return n


@kernel
def _intern(
    data: NDArray[np.uint8],
    blob: NDArray[np.uint8],
    ends: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    table: NDArray[np.int32],
    size: int,
    grow: bool,
    out: NDArray[np.int32],
) -> int:
    mask = np.uint64(len(table) - 1)
    n = 0
    start = 0
    for end in range(len(data) + 1):
        if end < len(data) and data[end] != SEPARATOR:
            continue
        h = hash64(data, start, end)
        slot = h & mask
        found = -1
        while table[slot] >= 0:
            candidate = table[slot]
            if hashes[candidate] == h and ends[candidate + 1] - ends[candidate] == end - start:
                same = True
                base = ends[candidate]
                for i in range(end - start):
                    if blob[base + i] != data[start + i]:
                        same = False
                        break
                if same:
                    found = candidate
                    break
            slot = (slot + np.uint64(1)) & mask
        if found < 0 and grow:
            found = size
            base = ends[size]
            for i in range(end - start):
                blob[base + i] = data[start + i]
            ends[size + 1] = base + end - start
            hashes[size] = h
            table[slot] = size
            size += 1
        out[n] = found
        n += 1
        start = end + 1
    return size


@kernel
def _gather(
    blob: NDArray[np.uint8], ends: NDArray[np.int64], indices: NDArray[np.int32], out: NDArray[np.uint8]
) -> None:
    """Write ids one after another, each followed by the separator."""
    at = 0
    for index in indices:
        for i in range(ends[index], ends[index + 1]):
            out[at] = blob[i]
            at += 1
        out[at] = SEPARATOR
        at += 1


@kernel
def _fill_table(hashes: NDArray[np.uint64], table: NDArray[np.int32], size: int) -> None:
    mask = np.uint64(len(table) - 1)
    for index in range(size):
        slot = hashes[index] & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = index


@kernel
def _rehash(
    blob: NDArray[np.uint8],
    ends: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    table: NDArray[np.int32],
    size: int,
) -> None:
    for index in range(size):
        hashes[index] = hash64(blob, ends[index], ends[index + 1])
    _fill_table(hashes, table, size)


@kernel
def _partitions(
    blob: NDArray[np.uint8], ends: NDArray[np.int64], indices: NDArray[np.int32], count: int
) -> NDArray[np.int32]:
    out = np.empty(len(indices), dtype=np.int32)
    for n in range(len(indices)):
        index = indices[n]
        out[n] = murmur2(blob, ends[index], ends[index + 1]) % count
    return out


@kernel
def id_less(blob: NDArray[np.uint8], ends: NDArray[np.int64], left: int, right: int) -> bool:
    """Whether the id `left` sorts before the id `right` as text (UTF-8 byte order is code point order)."""
    a, b = ends[left], ends[right]
    a_end, b_end = ends[left + 1], ends[right + 1]
    while a < a_end and b < b_end:
        if blob[a] != blob[b]:
            return bool(blob[a] < blob[b])
        a += 1
        b += 1
    return bool(a_end - ends[left] < b_end - ends[right])

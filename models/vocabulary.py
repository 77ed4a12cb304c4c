"""Ids to dense indices: the interner every array of the project is indexed by.

A Python dictionary of strings costs 127-179 bytes per id and cannot be copied or saved without touching each object.
Here the UTF-8 bytes of all ids lie in one blob, beside their spans, their 64-bit hashes and an open-addressing table:
the id's bytes plus about 28 to 36, copied with a few ``memcpy`` calls, and encoded in one kernel call per batch.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arena import end_of, length_of, new_heads, room, start_of
from models.hashing import joined
from models.id_table import (
    EMPTY,
    LIVE,
    SIZE,
    count_segments,
    fill_table,
    gather,
    intern,
    lookup,
    lookup_hashes,
    partitions_of,
    rehash,
    remove,
    total_length,
)
from models.kernel import lean_kernel

OWN_PAGES = 262_144  # bytes from which an array gets pages of its own


class Vocabulary:
    """Bidirectional map between ids and dense indices, in order of first appearance.

    The index of a removed id goes to the next new one: whoever kept it would see another id. Indices are local to the
    process that gave them: nothing that leaves the process may carry one.

    Parameters
    ----------
    capacity
        Ids to make room for at once, > 0. The map grows beyond it in steps of one half.

    Attributes
    ----------
    blob, spans
        Bytes of the ids, and where each index's lie (see `models.arena`); negative for indices without an id.
    hashes
        Stable 64-bit hash of each index's id.

    Notes
    -----
    About 100 ns per id and call of `encode` with a cold cache. Memory: bytes of the id rounded up to eight + 8 (span)
    + 8 (hash) + 8-16 (table) per id; bounded by the most ids ever held at a time.

    Examples
    --------
    >>> vocabulary = Vocabulary()
    >>> vocabulary.encode(["tent", "mat", "tent"]).tolist()
    [0, 1, 0]
    >>> vocabulary.text(1), vocabulary.lookup(["mat", "stove"]).tolist(), len(vocabulary)
    ('mat', [1, -1], 2)
    >>> vocabulary.remove(vocabulary.lookup(["tent"]))
    >>> vocabulary.encode(["mat", "stove"]).tolist(), vocabulary.size
    ([1, 0], 2)
    """

    def __init__(self, capacity: int = 1024) -> None:
        self.counts = np.array([0, 0, EMPTY], dtype=np.int64)
        self.blob = np.zeros(capacity * 16, dtype=np.uint8)
        self.heads = new_heads()
        self.spans = np.zeros(capacity, dtype=np.int64)
        self.hashes = np.zeros(capacity, dtype=np.uint64)
        self.table = np.full(_table_size(capacity), EMPTY, dtype=np.int32)

    def __len__(self) -> int:
        """Ids held now."""
        return int(self.counts[LIVE])

    @property
    def size(self) -> int:
        """Indices given so far: all are below it."""
        return int(self.counts[SIZE])

    def indices(self) -> NDArray[np.int32]:
        """Indices that stand for an id now."""
        return np.flatnonzero(self.spans[: self.size] >= 0).astype(np.int32)

    def encode(self, ids: list[str], partition: int = 0, partitions: int = 1) -> NDArray[np.int32]:
        """Index of each id; unseen ids are added.

        Parameters
        ----------
        ids
            Ids without NUL characters.
        partition, partitions
            Only ids of this Kafka partition among so many are added; others get -1.

        Returns
        -------
        NDArray[np.int32]
            One index per id, in order.

        Raises
        ------
        ValueError
            If an id contains a NUL character; nothing is added then.
        """
        if not ids:
            return np.empty(0, dtype=np.int32)
        return self.encode_joined(_checked(ids), len(ids), partition, partitions)

    def encode_joined(
        self, data: NDArray[np.uint8], count: int, partition: int = 0, partitions: int = 1
    ) -> NDArray[np.int32]:
        """Index of each of `count` > 0 ids that are separated by NULs in a buffer; see `encode`."""
        self._reserve(count, len(data))
        out = np.empty(count, dtype=np.int32)
        intern(
            data, self.blob, self.spans, self.heads, self.hashes, self.table, self.counts, partition, partitions, out
        )
        return out

    def lookup(self, ids: list[str]) -> NDArray[np.int32]:
        """Index of each id, -1 where unknown; never grows (reading leaves the state equal)."""
        out = np.empty(len(ids), dtype=np.int32)
        if ids:
            lookup(_checked(ids), self.blob, self.spans, self.hashes, self.table, out)
        return out

    def of_hashes(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Index of the id behind each stable hash, -1 where unknown; of ids with the same hash, any."""
        out = np.empty(len(hashes), dtype=np.int32)
        lookup_hashes(hashes, self.hashes, self.table, out)
        return out

    def remove(self, indices: NDArray[np.int32]) -> None:
        """Forget distinct ids by their indices; about 100 ns each. Their room is used again, not given back."""
        remove(indices, self.blob, self.spans, self.heads, self.hashes, self.table, self.counts)

    def text(self, index: int) -> str:
        """The id behind an index."""
        span = int(self.spans[index])
        return bytes(self.blob[start_of(span) : end_of(span)]).decode()

    def texts(self, indices: NDArray[np.int32] | range) -> list[str]:
        """The ids behind many indices; empty where there is none."""
        chosen = np.asarray(indices, dtype=np.int32)
        if len(chosen) == 0:
            return []
        return self.joined(chosen)[:-1].tobytes().decode().split("\0")  # one call in C instead of one slice per id

    def joined(self, indices: NDArray[np.int32]) -> NDArray[np.uint8]:
        """UTF-8 of the ids behind many indices, each followed by a NUL."""
        out = np.empty(int(total_length(self.spans, indices)) + len(indices), dtype=np.uint8)
        gather(self.blob, self.spans, indices, out)
        return out

    def partitions(self, indices: NDArray[np.int32], count: int) -> NDArray[np.int32]:
        """Kafka partition (murmur2) of each id among `count` partitions."""
        return partitions_of(self.blob, self.spans, indices, count)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a snapshot must hold, partly as views, true until the next `encode` or `remove`."""
        return {
            "blob": self.blob[: self.heads[0]],
            "spans": self.spans[: self.size],
            "heads": self.heads.copy(),
            "counts": self.counts.copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Vocabulary:
        """A vocabulary from the arrays of a snapshot; the hash table is rebuilt."""
        spans = np.ascontiguousarray(arrays["spans"], dtype=np.int64)
        vocabulary = cls(max(len(spans), 1024))
        vocabulary.blob = np.array(arrays["blob"], dtype=np.uint8)
        vocabulary.spans[: len(spans)] = spans
        vocabulary.heads = np.array(arrays["heads"], dtype=np.int64)
        vocabulary.counts = np.array(arrays["counts"], dtype=np.int64)
        rehash(vocabulary.blob, vocabulary.spans, vocabulary.hashes, vocabulary.table, vocabulary.size)
        return vocabulary

    def _reserve(self, ids: int, nbytes: int) -> None:
        self.blob = grown(self.blob, int(self.heads[0]) + room(ids, nbytes))
        highest = max(self.size, len(self) + ids)  # free indices are given first
        if highest > len(self.hashes):
            self.hashes = grown(self.hashes, highest)
            self.spans = grown(self.spans, len(self.hashes))
        if 2 * (len(self) + ids) > len(self.table):
            self.table = np.full(_table_size(len(self) + ids), EMPTY, dtype=np.int32)
            fill_table(self.spans, self.hashes, self.table, self.size)


def _checked(ids: list[str]) -> NDArray[np.uint8]:
    data = joined(ids)
    if count_segments(data) != len(ids):
        raise ValueError("an id contains a NUL character")
    return data


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


@lean_kernel
def id_less(blob: NDArray[np.uint8], spans: NDArray[np.int64], left: int, right: int) -> bool:
    """Whether the id `left` sorts before the id `right` as text (UTF-8 byte order is code point order)."""
    a, b = start_of(spans[left]), start_of(spans[right])
    a_end, b_end = end_of(spans[left]), end_of(spans[right])
    while a < a_end and b < b_end:
        if blob[a] != blob[b]:
            return bool(blob[a] < blob[b])
        a += 1
        b += 1
    return bool(length_of(spans[left]) < length_of(spans[right]))

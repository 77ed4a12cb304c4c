"""Which events were seen before: a first-in-first-out window over 64-bit hashes of event ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.hashing import mix64
from models.kernel import kernel, lean_kernel

SMALLEST: Final = 4096
LARGEST: Final = 1 << 30  # so that a position and its table's size fit 32 bits


class SeenWindow:
    """Remembers the last `capacity` different hashes and tells which of the given ones are among them.

    A ring holds the hashes in order of arrival, an open-addressing table finds their place in it. It is wrong where two
    ids share a hash: one in 1.8e13 per pair of a full window of a million and a new id, and then an event is lost to
    the models. A repeat does not renew an id's place in the window.

    Parameters
    ----------
    capacity
        Hashes remembered, 1 to 2**30; the oldest is dropped first.

    Raises
    ------
    ValueError
        If the capacity is out of range.

    Notes
    -----
    Cost per hash: 20-100 ns, more with a cold cache. Memory: 8 bytes (ring) + 8 to 16 (table, at most half full) per
    hash and a quarter of that while it fills; 16 MB for a full window of a million. The table doubles as the window
    fills, which costs a single pause of about 10 ms on the way from half a million to a million.

    Examples
    --------
    >>> window = SeenWindow(capacity=2)
    >>> window.mark(np.array([7, 8, 7, 9, 7], dtype=np.uint64)).tolist()
    [False, False, True, False, False]
    """

    def __init__(self, capacity: int = 1_000_000) -> None:
        if not 1 <= capacity <= LARGEST:
            raise ValueError(f"capacity must be 1 to {LARGEST}, not {capacity}")
        self.capacity = capacity
        self._ring = np.zeros(min(capacity, SMALLEST), dtype=np.uint64)
        self._table = _table(len(self._ring))
        self._size = 0
        self._next = 0

    def __len__(self) -> int:
        """Hashes remembered now."""
        return self._size

    def mark(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Remember hashes, in order, and tell which were in the window when their turn came.

        Parameters
        ----------
        hashes
            64-bit hashes, for example of `models.hashing.hash_ids`.

        Returns
        -------
        NDArray[np.bool_]
            True where the hash was seen before, also earlier in the same call.
        """
        needed = min(self._size + len(hashes), self.capacity)
        if needed > len(self._ring):
            self._grow(needed)
        seen = np.empty(len(hashes), dtype=np.bool_)
        self._size, self._next = _mark(self._ring, self._table, self._size, self._next, hashes, seen)
        return seen

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a snapshot must hold: capacity, position of the oldest hash, and the hashes (a view) in a ring."""
        oldest = self._next if self._size == self.capacity else 0
        return {
            "hashes": self._ring[: self._size],
            "oldest": np.array([oldest], dtype=np.int64),
            "capacity": np.array([self.capacity], dtype=np.int64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], capacity: int | None = None) -> SeenWindow:
        """A window from the arrays of a snapshot, with another capacity if one is given; the table is rebuilt."""
        window = cls(int(arrays["capacity"][0]) if capacity is None else capacity)
        window.mark(np.roll(np.asarray(arrays["hashes"], dtype=np.uint64), -int(arrays["oldest"][0])))
        return window

    def _grow(self, needed: int) -> None:
        # only before the ring first wraps, so its positions stay valid
        room = min(max(needed, len(self._ring) * 5 // 4), self.capacity)
        ring = np.zeros(room, dtype=np.uint64)
        ring[: self._size] = self._ring[: self._size]
        self._ring, self._next = ring, self._size  # a ring that was just filled had wrapped
        if 2 * room > len(self._table):
            self._table = _table(room)
            _fill(self._ring, self._table, self._size)


def _table(room: int) -> NDArray[np.int32]:
    return np.zeros(1 << (2 * room - 1).bit_length(), dtype=np.int32)


@kernel
def _slot(hash_: np.uint64, mask: np.int64) -> np.int64:
    return np.int64(mix64(hash_) & np.uint64(mask))


@kernel
def _fill(ring: NDArray[np.uint64], table: NDArray[np.int32], size: int) -> None:
    mask = np.int64(len(table) - 1)
    for position in range(size):
        slot = _slot(ring[position], mask)
        while table[slot] > 0:
            slot = (slot + 1) & mask
        table[slot] = position + 1


@lean_kernel
def _remove(ring: NDArray[np.uint64], table: NDArray[np.int32], position: int) -> None:
    """Take a ring position out of the table; later entries of its run move back, so no tombstones pile up."""
    mask = np.int64(len(table) - 1)
    hole = _slot(ring[position], mask)
    while table[hole] != position + 1:
        hole = (hole + 1) & mask
    slot = (hole + 1) & mask
    while table[slot] > 0:
        home = _slot(ring[table[slot] - 1], mask)
        if ((slot - home) & mask) >= ((slot - hole) & mask):
            table[hole] = table[slot]
            hole = slot
        slot = (slot + 1) & mask
    table[hole] = 0


@kernel
def _mark(
    ring: NDArray[np.uint64],
    table: NDArray[np.int32],
    size: int,
    following: int,
    hashes: NDArray[np.uint64],
    seen: NDArray[np.bool_],
) -> tuple[int, int]:
    """Look up and insert hashes; returns how many positions of the ring are used and the next one to write."""
    mask = np.int64(len(table) - 1)
    for n in range(len(hashes)):
        slot = _slot(hashes[n], mask)
        while table[slot] > 0 and ring[table[slot] - 1] != hashes[n]:
            slot = (slot + 1) & mask
        seen[n] = table[slot] > 0
        if seen[n]:
            continue
        if size == len(ring):
            _remove(ring, table, following)
            slot = _slot(hashes[n], mask)  # removing may have shifted the run
            while table[slot] > 0:
                slot = (slot + 1) & mask
        else:
            size += 1
        ring[following] = hashes[n]
        table[slot] = following + 1
        following = following + 1 if following + 1 < len(ring) else 0
    return size, following

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.dedup import SeenWindow
from models.hashing import hash_ids

batches = st.lists(st.lists(st.integers(0, 30) | st.integers(2**64 - 5, 2**64 - 1), max_size=25), max_size=12)


class PlainWindow:
    """The slow reference: a deque for the order, a set for the membership."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.order: deque[int] = deque()
        self.known: set[int] = set()

    def mark(self, hashes: list[int]) -> list[bool]:
        seen = []
        for value in hashes:
            seen.append(value in self.known)
            if value in self.known:
                continue
            if len(self.order) == self.capacity:
                self.known.discard(self.order.popleft())
            self.order.append(value)
            self.known.add(value)
        return seen


def in_order(arrays: Mapping[str, NDArray[Any]]) -> list[int]:
    """The hashes of a snapshot, oldest first."""
    ordered: list[int] = np.roll(arrays["hashes"], -int(arrays["oldest"][0])).tolist()
    return ordered


def uint64(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(values, dtype=np.uint64)


@given(batches=batches, capacity=st.integers(1, 40))
@settings(deadline=None)
def test_equals_the_plain_window_after_every_call(batches: list[list[int]], capacity: int) -> None:
    window, plain = SeenWindow(capacity), PlainWindow(capacity)
    for hashes in batches:
        assert window.mark(uint64(hashes)).tolist() == plain.mark(hashes)
        assert in_order(window.arrays()) == list(plain.order)
        assert len(window) == len(plain.order)


@given(before=batches, after=batches, capacity=st.integers(1, 40))
@settings(deadline=None)
def test_goes_on_from_a_snapshot_as_if_nothing_had_happened(
    before: list[list[int]], after: list[list[int]], capacity: int
) -> None:
    window = SeenWindow(capacity)
    for hashes in before:
        window.mark(uint64(hashes))
    arrays = {name: array.copy() for name, array in window.arrays().items()}
    resumed = SeenWindow.from_arrays(arrays)
    for hashes in after:
        assert resumed.mark(uint64(hashes)).tolist() == window.mark(uint64(hashes)).tolist()
    assert in_order(SeenWindow.from_arrays(arrays).arrays()) == in_order(arrays)


def test_equals_the_plain_window_while_it_grows_and_wraps() -> None:
    generator = np.random.default_rng(1)
    window, plain = SeenWindow(20_000), PlainWindow(20_000)
    for size in generator.integers(1, 9_000, 30):
        hashes = generator.integers(0, 60_000, size).astype(np.uint64)
        assert window.mark(hashes).tolist() == plain.mark(hashes.tolist())
    assert in_order(window.arrays()) == list(plain.order)


def test_memory_is_at_most_32_bytes_per_remembered_hash_and_small_at_first() -> None:
    window = SeenWindow(1_000_000)
    assert nbytes(window) < 100_000
    for start in range(0, 1_500_000, 50_000):
        window.mark(np.arange(start, start + 50_000, dtype=np.uint64))
        assert nbytes(window) <= 32 * len(window)
    assert len(window) == 1_000_000


def nbytes(window: SeenWindow) -> int:
    return sum(part.nbytes for part in vars(window).values() if isinstance(part, np.ndarray))


def test_ids_are_seen_by_their_hashes() -> None:
    window = SeenWindow()
    assert window.mark(hash_ids(["a", "b"])).tolist() == [False, False]
    assert window.mark(hash_ids(["b", "c"])).tolist() == [True, False]


@pytest.mark.parametrize("capacity", [0, -1, 2**31])
def test_refuses_a_capacity_out_of_range(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity must be"):
        SeenWindow(capacity)

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.inverted_index import ENTRIES, FREE, USED, InvertedIndex, enter, take_out

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 60)), max_size=150)


class PlainIndex:
    """The slow reference: a Python list per feature."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.lists: dict[int, list[int]] = {}

    def enter(self, feature: int, item: int, turn: int) -> None:
        mine = self.lists.setdefault(feature, [])
        if len(mine) >= self.most:
            mine[turn % len(mine)] = item
        else:
            mine.append(item)

    def take_out(self, feature: int, item: int) -> bool:
        mine = self.lists.get(feature, [])
        if item not in mine:
            return False
        last = mine.pop()
        if last != item:
            mine[mine.index(item)] = last
        return True


def listed(index: InvertedIndex, feature: int) -> list[int]:
    found: list[int] = []
    block, size = int(index.head[feature]) - 1, int(index.listed[feature])
    while block >= 0:
        filled = (size - 1) % ENTRIES + 1
        found = index.block[block, 1 : 1 + filled].tolist() + found
        size -= filled
        block = int(index.block[block, 0]) - 1
    return found


@given(steps=steps, most=st.sampled_from([1, 2, 15, 16, 40]))
@settings(deadline=None)
def test_lists_equal_plain_ones_step_by_step(steps: list[tuple[bool, int, int]], most: int) -> None:
    index, plain = InvertedIndex.empty(3), PlainIndex(most)
    for turn, (adds, feature, item) in enumerate(steps):
        if adds and item not in plain.lists.get(feature, []):
            index = index.reserved(1)
            enter(index, feature, item, most, turn)
            plain.enter(feature, item, turn)
        else:
            assert take_out(index, feature, item) == plain.take_out(feature, item)
        assert listed(index, feature) == plain.lists.get(feature, [])
    blocks = sum(-(-len(mine) // ENTRIES) for mine in plain.lists.values())
    free, at = 0, int(index.pool[FREE])
    while at:
        free, at = free + 1, int(index.block[at - 1, 0])
    assert blocks + free == index.pool[USED]


def test_blocks_are_used_again() -> None:
    index = InvertedIndex.empty(2)
    for _ in range(100):
        index = index.reserved(40)
        for item in range(40):
            enter(index, 1, item, 100, 0)
        for item in range(40):
            assert take_out(index, 1, item)
    assert index.pool[USED] == 3
    assert np.array_equal(index.listed, [0, 0])

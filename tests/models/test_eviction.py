from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.eviction import NEVER, Turns, longest_untouched, oldest
from models.vocabulary import Vocabulary
from tests.plain import bounded

TOUCHES = st.lists(st.integers(0, 30) | st.just(int(NEVER)), max_size=300)


@bounded
@given(TOUCHES, st.integers(0, 400), st.integers(1, 8))
def test_the_longest_untouched_are_found_from_the_hand_on(touches: list[int], hand: int, most: int) -> None:
    live = sorted(touch for touch in touches if touch != NEVER)
    found, after = longest_untouched(np.array(touches, dtype=np.uint32), hand, most)
    if not live:
        assert len(found) == 0
        return
    horizon = sorted(touches)[max(len(touches) // 64, 1) - 1]
    start = hand if hand < len(touches) else 0
    circle = [*range(start, len(touches)), *range(start)]
    expected = [n for n in circle if touches[n] <= horizon and touches[n] != NEVER][:most]
    if horizon != NEVER:
        assert found.tolist() == expected
        assert len(found) >= 1
        assert 0 <= after < len(touches)


def test_among_many_those_taken_are_old() -> None:
    touched = np.random.default_rng(1).integers(0, 2**31, 1_000_000).astype(np.uint32)
    hand, gone = 0, []
    for _ in range(10):
        found, hand = longest_untouched(touched, hand, 1_000)
        assert len(found) == 1_000
        gone.append(touched[found].copy())
        touched[found] = NEVER
    assert np.concatenate(gone).max() < 0.04 * 2**31  # about the oldest 1.6 %, estimated from a sample


ITEMS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2**64 - 1)), min_size=1, max_size=40, unique=True)


@bounded
@given(ITEMS, st.data())
def test_the_oldest_are_those_of_a_sorted_list(items: list[tuple[int, int]], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(items)))
    touched, hashes = zip(*items, strict=True)
    found = oldest(np.array(touched, dtype=np.uint32), np.array(hashes, dtype=np.uint64), count)
    assert sorted(items[n] for n in found.tolist()) == sorted(items)[:count]


@bounded
@given(st.lists(st.integers(0, 200), max_size=300), st.integers(1, 140))
def test_of_ids_those_met_longest_ago_give_way(met: list[int], most: int) -> None:
    ids, turns = Vocabulary(), Turns(most)
    known: list[str] = []  # met longest ago first
    for name in map(str, met):
        if name not in known and len(known) == most:
            del known[: max(most // 64, 1)]
        known = [other for other in known if other != name] + [name]
        ids.remove(turns.surplus(ids, name))
        turns.meet(ids, name)
        assert sorted(ids.texts(ids.indices())) == sorted(known)

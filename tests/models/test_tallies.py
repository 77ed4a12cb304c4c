from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.tallies import FADED, MEMORIES, POPULAR, SLOW, Tallies, strength, tally


@given(items=st.lists(st.integers(0, 4), max_size=80), many=st.integers(0, 3))
@settings(deadline=None)
def test_cells_and_list_equal_plain_decayed_sums(items: list[int], many: int) -> None:
    tallies = Tallies.empty().reserved(5)
    events: list[int] = []
    for item in items:
        for _ in range(1 + 400 * many * (item == 0)):
            events.append(item)
            tally(tallies, item)
    now = len(events)
    for cells, half_life in ((tallies.slow, SLOW), *zip(tallies.fast.T, MEMORIES, strict=True)):
        for item in range(5):
            count = sum(0.5 ** ((now - n) / half_life) for n, other in enumerate(events, 1) if other == item)
            expected = max(math.log2(count) + FADED, 0.0) if count else 0.0
            assert strength(cells[item], now / half_life) == pytest.approx(expected, abs=1e-6)
    listed = [item for item in tallies.popular.tolist() if item >= 0]
    assert sorted(listed) == sorted(set(events))
    assert [tallies.slow[item] for item in listed] == sorted(tallies.slow[listed].tolist(), reverse=True)


def test_the_list_keeps_the_strongest_when_it_is_full() -> None:
    tallies = Tallies.empty().reserved(POPULAR + 30)
    for item in range(POPULAR + 30):
        for _ in range(1 + item):
            tally(tallies, item)
    assert tallies.popular.tolist() == list(range(POPULAR + 29, 29, -1))


def test_what_was_touched_ages_ago_is_as_good_as_never_touched() -> None:
    assert strength(1.0, 40.0) == 0.0
    assert strength(-math.inf, 0.0) == 0.0

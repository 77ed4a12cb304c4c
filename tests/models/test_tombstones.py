from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tombstones import Tombstones
from tests.plain import bounded

Put = tuple[int, int, int]  # person, until, asked
persons = st.sampled_from([0, 1, 7, 2**63, 2**64 - 1])
puts = st.lists(st.tuples(persons, st.integers(1, 50), st.integers(1, 50)), max_size=30)


def filled(some: list[Put], capacity: int = 100) -> Tombstones:
    tombstones = Tombstones(capacity)
    for person, until, asked in some:
        tombstones.put(person, until, asked)
    return tombstones


def covered(tombstones: Tombstones, moments: list[tuple[int, int]]) -> list[bool]:
    who, when = ([moment[n] for moment in moments] for n in (0, 1))
    found: list[bool] = tombstones.cover(np.array(who, dtype=np.uint64), np.array(when, dtype=np.int64)).tolist()
    return found


@bounded
@given(puts, st.lists(st.tuples(persons, st.integers(-5, 60)), max_size=10))
def test_equal_a_dictionary(some: list[Put], moments: list[tuple[int, int]]) -> None:
    plain: dict[int, tuple[int, int]] = {}
    for person, until, asked in some:
        before = plain.get(person, (0, 0))
        plain[person] = (max(before[0], until), max(before[1], asked))
    tombstones = filled(some)
    assert len(tombstones) == len(plain)
    assert covered(tombstones, moments) == [person in plain and at <= plain[person][0] for person, at in moments]
    assert {person: tombstones.of(person) for person in plain} == plain
    again = Tombstones.from_arrays(tombstones.arrays(), 100)
    assert covered(again, moments) == covered(tombstones, moments)


def test_the_longest_forgotten_makes_room() -> None:
    some = [(1, 30, 1), (2, 10, 2), (3, 20, 3)]
    for tombstones in (filled(some, 2), Tombstones.from_arrays(filled(some).arrays(), 2)):
        assert covered(tombstones, [(1, 30), (2, 10), (3, 20)]) == [True, False, True]
        assert tombstones.of(2) == (0, 0)


def test_at_least_one_is_remembered() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1, not 0"):
        Tombstones(0)

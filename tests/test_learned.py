"""The comparison of two runs finds what differs, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.learned import Learned, Verdict, compare, differences

EVENTS = {0: 10, 1: 5}
CALM = Learned(
    books={0: Counter(learned=8, duplicates=1, late=1, controls=1), 1: Counter({"learned": 4, "dead:not_json": 1})},
    offsets={0: 11, 1: 5},
    windows={0: (1000, 8), 1: (900, 4)},
    users={"anna": {"history": [("tent", 1, 0)], "profile": {"events": 2}, "affinity": {"camping": 0.5}}},
    items={"tent": {"sums": {"epoch": 3, "total": 2.0}, "near": {"stove": 1.5}, "steps": {}}},
    visits={0: 7, 1: 2},
    repeated=0,
    fullest=1,
)


def verdict(events: dict[int, int] | None = None, **changes: Any) -> Verdict:
    """Of a run that differs from the calm one by some fields."""
    return compare(replace(CALM, **changes), CALM, events or EVENTS, EVENTS)


def books(**changes: int) -> dict[int, Counter[str]]:
    """The books, with other counts in partition 0."""
    return {**CALM.books, 0: Counter({**CALM.books[0], **changes})}


def test_equal_runs_are_exact_whatever_was_repeated_or_asked_for() -> None:
    assert verdict().exact
    assert verdict(repeated=3, offsets={0: 14, 1: 5}, books=books(controls=4)).exact


def test_an_event_too_few_or_too_many_shows() -> None:
    assert verdict(books=books(learned=7)) == Verdict(1, 0, 1, [], [], [])
    assert verdict(books=books(learned=9)) == Verdict(0, 1, 1, [], [], [])
    assert verdict(visits={0: 6, 1: 4}) == Verdict(1, 2, 0, [], [], [])


def test_one_lost_and_another_twice_do_not_make_up_for_each_other() -> None:
    found = verdict(books=books(learned=7, late=2))
    assert (found.lost, found.double, found.unaccounted) == (1, 1, 0)


def test_copies_of_events_sent_on_twice_must_be_counted_as_duplicates() -> None:
    longer = {0: 12, 1: 5}
    assert verdict(longer, books=books(duplicates=3)).exact
    assert verdict(longer, books=books(learned=10)) == Verdict(2, 2, 0, [], [], [])
    assert verdict(longer) == Verdict(2, 0, 2, [], [], [])


def test_state_of_users_is_compared_exactly_and_by_name() -> None:
    anna = CALM.users["anna"]
    assert verdict(users={"anna": anna | {"profile": {"events": 3}}}).users == ["anna"]
    assert verdict(users={"bert": anna}).users == ["anna", "bert"]
    assert verdict(windows={0: (1000, 8), 1: (901, 4)}).windows == [1]


@pytest.mark.parametrize(("total", "same"), [(2.0 * (1 + 5e-10), True), (2.0 * (1 + 2e-9), False)])
def test_sums_are_compared_to_a_billionth(total: float, same: bool) -> None:
    tent = CALM.items["tent"]
    found = verdict(items={"tent": tent | {"sums": {"epoch": 3, "total": total}}})
    assert found.items == ([] if same else ["tent"])
    assert found.exact == same


def test_a_missing_cell_differs_from_a_cell() -> None:
    assert differences({"a": {"near": {}}}, {"a": {"near": {"b": 0.0}}}) == ["a"]
    assert differences({"a": {"near": {"b": 0.0}}}, {"a": {"near": {"b": 0.0}}}) == []

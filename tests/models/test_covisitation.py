from __future__ import annotations

from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.covisitation import Deltas, Weighting, emit, power_law, retract, weighting
from models.histories import HISTORY, Histories
from models.neighbour_rows import NO_ROW, NeighbourRows
from tests.plain import (
    KINDS,
    PlainHistories,
    PlainRows,
    Touch,
    Visit,
    bounded,
    columns,
    deltas_of,
    equal_arrays,
    near,
    plain_emit,
    same_values,
    streams,
    values_of,
    visits_of,
)

USERS, ITEMS = 5, 8
HALF_LIFE_S = 3_600.0
WEIGHTING = Weighting(KINDS, near(), 3)
backwards = st.sampled_from([0.0, 0.5, 1.0])
WHOLE = np.zeros(ITEMS, dtype=np.int32)  # every item in partition 0


def emitted(stream: list[Touch], size: int = 6) -> list[Visit]:
    histories = Histories(size)
    histories.reserve(USERS)
    return visits_of(emit(histories.arrays, columns(stream), WEIGHTING))


def learned(visits: list[Visit], rows: NeighbourRows | None = None, sign: float = 1.0) -> NeighbourRows:
    rows = NeighbourRows(ITEMS, ITEMS, HALF_LIFE_S) if rows is None else rows
    rows.learn(deltas_of(visits, sign), WHOLE)
    return rows


# deltas


@bounded
@given(streams(most=30), st.sets(st.integers(0, USERS - 1)))
def test_a_history_that_was_never_cut_retracts_what_it_taught(stream: list[Touch], gone: set[int]) -> None:
    histories = Histories(30)
    histories.reserve(USERS)
    taught = visits_of(emit(histories.arrays, columns(stream), WEIGHTING))
    wanted = [visit for user in sorted(gone) for visit in taught if stream[visit.source].user == user]
    before = histories.snapshot(USERS)
    found = visits_of(retract(histories, np.array(sorted(gone), dtype=np.int32), WEIGHTING))
    assert [(v.item, -v.weight, v.ts, tuple((i, -w, s) for i, w, s in v.pairs)) for v in found] == [
        (v.item, v.weight, v.ts, v.pairs) for v in wanted
    ]
    assert equal_arrays(before, histories.snapshot(USERS))


@bounded
@given(streams(least=1), st.integers(1, 6))
def test_a_cut_history_retracts_what_it_still_holds(stream: list[Touch], size: int) -> None:
    histories = Histories(size)
    histories.reserve(USERS)
    emit(histories.arrays, columns(stream), WEIGHTING)
    everyone = np.arange(USERS, dtype=np.int32)
    again = Histories(size)
    again.reserve(USERS)
    emit(again.arrays, histories.recall(everyone), WEIGHTING)
    assert [again.recent(user) for user in range(USERS)] == [histories.recent(user) for user in range(USERS)]
    assert len(retract(histories, everyone, WEIGHTING).item) == histories.arrays.count.sum()


@bounded
@given(streams(), st.integers(1, 8), st.integers(0, 4))
def test_deltas_equal_the_plain_ones_after_every_touch(stream: list[Touch], size: int, gap: int) -> None:
    weights = Weighting(KINDS, near(), gap)
    fast, plain = Histories(size), PlainHistories(size)
    fast.reserve(USERS)
    for touch in stream:
        assert visits_of(emit(fast.arrays, columns([touch]), weights)) == plain_emit(plain, [touch], weights)


@bounded
@given(streams(), st.lists(st.integers(0, 60), max_size=6), st.integers(1, 8))
def test_other_batches_change_no_delta(stream: list[Touch], cuts: list[int], size: int) -> None:
    whole, split = Histories(size), Histories(size)
    whole.reserve(USERS)
    split.reserve(USERS)
    expected = visits_of(emit(whole.arrays, columns(stream), WEIGHTING))
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    found = [
        visit._replace(source=start + visit.source)
        for start, end in pairwise(bounds)
        for visit in visits_of(emit(split.arrays, columns(stream[start:end]), WEIGHTING))
    ]
    assert found == expected
    assert equal_arrays(whole.snapshot(USERS), split.snapshot(USERS))


@bounded
@given(streams())
def test_deltas_do_not_depend_on_other_users(stream: list[Touch]) -> None:
    for user in range(USERS):
        mine = [visit._replace(source=0) for visit in emitted([t for t in stream if t.user == user])]
        assert [v._replace(source=0) for v in emitted(stream) if stream[v.source].user == user] == mine


def test_what_is_taught_by_hand() -> None:
    stream = [Touch(0, 1), Touch(0, 2), Touch(0, 3, 4, starts=True), Touch(0, 1)]
    assert emitted(stream) == [
        Visit(1, 1.0, 0, 0, ()),
        Visit(2, 1.0, 0, 1, ((1, 1.0, True),)),
        Visit(3, 3.0, 0, 2, ((2, 0.75, True), (1, float(np.float32(3) * np.float32(0.2)), False))),
        Visit(1, 1.0, 0, 3, ((3, 1.0, True), (2, float(np.float32(0.2)), False))),
    ]


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
def test_a_power_law_falls_with_distance(exponent: float) -> None:
    assert power_law(exponent, 5).tolist() == pytest.approx([n**-exponent for n in (1, 2, 3, 4, 5)], rel=1e-6)


def test_the_defaults_count_all_kinds_alike_by_one_over_distance() -> None:
    assert weighting().near.tolist() == pytest.approx([1 / n for n in range(1, HISTORY + 1)], rel=1e-6)
    assert weighting().kind.tolist() == [1.0]
    assert weighting(KINDS).kind.tolist() == KINDS.tolist()


# rows


@bounded
@given(streams(), backwards)
def test_unbounded_rows_equal_the_plain_ones_after_every_visit(stream: list[Touch], backward: float) -> None:
    fast = NeighbourRows(ITEMS, ITEMS, HALF_LIFE_S, backward)
    plain = PlainRows(ITEMS, ITEMS, HALF_LIFE_S, backward)
    for visit in emitted(stream):
        learned([visit], fast)
        plain.learn([visit])
        assert same_values(values_of(fast), plain.values())


@bounded
@given(streams(items=12, seconds=12, most=80), backwards, st.sampled_from([1, 2, 4]), st.sampled_from([1, 3]))
def test_full_rows_drop_the_weakest_as_the_plain_ones_do(
    stream: list[Touch], backward: float, neighbours: int, transitions: int
) -> None:
    # whole half-lives: every sum is exact, so that equal cells are equal here and there
    fast, plain = (make(neighbours, transitions, HALF_LIFE_S, backward) for make in (NeighbourRows, PlainRows))
    assert isinstance(fast, NeighbourRows)
    assert isinstance(plain, PlainRows)
    for visit in emitted([t._replace(ts=t.ts * int(HALF_LIFE_S)) for t in stream]):
        fast.learn(deltas_of([visit]), np.zeros(12, dtype=np.int32))
        plain.learn([visit])
        assert values_of(fast) == plain.values()
    assert fast.arrays.size.max(initial=0) <= neighbours
    assert fast.arrays.steps.max(initial=0) <= transitions


@bounded
@given(streams(), st.lists(st.integers(0, 2), min_size=ITEMS, max_size=ITEMS), backwards)
def test_partitions_learn_what_one_would_have(stream: list[Touch], placed: list[int], backward: float) -> None:
    partition = np.array(placed, dtype=np.int32)
    deltas = deltas_of(emitted(stream))
    whole = NeighbourRows(ITEMS, ITEMS, HALF_LIFE_S, backward)
    whole.learn(deltas, WHOLE)
    parts: dict[tuple[int, str, int], float] = {}
    for target in range(3):
        rows = NeighbourRows(ITEMS, ITEMS, HALF_LIFE_S, backward)
        rows.learn(deltas, partition, target)
        assert all(placed[item] == target for item, _, _ in values_of(rows))
        parts |= values_of(rows)
    assert parts == values_of(whole)


@bounded
@given(streams(), st.randoms(use_true_random=False))
def test_the_order_of_deltas_does_not_matter(stream: list[Touch], random: Random) -> None:
    visits = emitted(stream)
    shuffled = visits.copy()
    random.shuffle(shuffled)
    assert same_values(values_of(learned(visits)), values_of(learned(shuffled)))


@bounded
@given(streams(), st.sets(st.integers(0, USERS - 1)), st.randoms(use_true_random=False))
def test_what_users_taught_can_be_subtracted(stream: list[Touch], leaving: set[int], random: Random) -> None:
    visits = emitted(stream)
    theirs = [visit for visit in visits if stream[visit.source].user in leaving]
    random.shuffle(theirs)
    rows = learned(visits)
    held = {(item, f"held {what}", other): value for (item, what, other), value in values_of(rows).items()}
    for visit in theirs:
        learned([visit], rows, sign=-1.0)
    stayed = learned(emitted([t for t in stream if t.user not in leaving]))
    # relative to what a row has held: the difference of two large numbers keeps their rounding
    assert same_values({**values_of(rows), **held}, {**values_of(stayed), **held})


@bounded
@given(streams(seconds=40_000), st.randoms(use_true_random=False))
def test_nothing_is_left_when_everyone_has_left(stream: list[Touch], random: Random) -> None:
    visits = emitted(stream)
    rows = learned(visits)
    random.shuffle(visits)
    learned(visits, rows, sign=-1.0)
    assert not any(values_of(rows).values())
    assert [rows.neighbours(item) for item in range(ITEMS)] == [[]] * ITEMS


@bounded
@given(streams(), streams())
def test_subtracting_what_was_evicted_never_goes_below_zero(stream: list[Touch], other: list[Touch]) -> None:
    rows = learned(emitted(stream), NeighbourRows(2, 1, HALF_LIFE_S))
    cells = {key for key in values_of(rows) if key[1] != "total"}
    learned(emitted(other), rows, sign=-1.0)
    values = {key: value for key, value in values_of(rows).items() if key[1] != "total"}
    assert values.keys() == cells
    assert min(values.values(), default=0.0) >= 0.0


@bounded
@given(streams(), st.integers(1, 40), st.sampled_from([0.5, 3_600.0, 86_400.0 * 30]))
def test_neither_doubling_nor_waiting_whole_half_lives_changes_a_share(
    stream: list[Touch], half_lives: int, half_life_s: float
) -> None:
    def shares(visits: list[Visit], times: int) -> list[list[tuple[int, float]]]:
        rows = NeighbourRows(ITEMS, ITEMS, half_life_s)
        for _ in range(times):
            learned(visits, rows)
        return [sorted(rows.neighbours(item)) for item in range(ITEMS)]

    visits = emitted(stream)
    later = [visit._replace(ts=visit.ts + int(half_lives * 2 * half_life_s)) for visit in visits]
    for found in (shares(visits, 2), shares(later, 1)):
        for left, right in zip(found, shares(visits, 1), strict=True):
            assert [item for item, _ in left] == [item for item, _ in right]
            assert [share for _, share in left] == pytest.approx([share for _, share in right], rel=1e-9, abs=1e-300)


def test_half_of_a_count_is_left_after_a_half_life() -> None:
    rows = NeighbourRows(4, 4, HALF_LIFE_S)
    learned([Visit(1, 1.0, 0, 0, ((0, 1.0, True),)), Visit(2, 1.0, 3_600, 1, ((0, 1.0, True),))], rows)
    learned([Visit(0, 1.0, 3_600, 2, ())], rows)
    assert rows.neighbours(0) == [(2, 1.0), (1, 0.5)]


def test_a_silence_longer_than_floats_reach_forgets() -> None:
    rows = NeighbourRows(4, 4, 1.0)
    learned([Visit(1, 1.0, 0, 0, ((0, 1.0, True),)), Visit(0, 1.0, 5_000, 1, ())], rows)
    learned([Visit(2, 1.0, 5_000, 2, ((0, 1.0, True),)), Visit(3, 1.0, 10, 3, ((0, 1.0, True),))], rows)
    assert rows.neighbours(0) == [(2, 1.0), (1, 0.0)]


@bounded
@given(streams(), streams(), st.sets(st.integers(0, ITEMS - 1)))
def test_dropped_rows_start_again_and_no_other_notices(before: list[Touch], after: list[Touch], gone: set[int]) -> None:
    rows = learned(emitted(before), NeighbourRows(3, 2, HALF_LIFE_S))
    rows.reserve(ITEMS)
    items = np.array([item for item in sorted(gone) if rows.arrays.row[item] >= 0], dtype=np.int32)
    kept = {key: value for key, value in values_of(rows).items() if key[0] not in gone}
    used = rows.used
    rows.drop(items)
    assert rows.used == used - len(items)
    assert sorted(rows.arrays.row[rows.arrays.row >= 0]) == list(range(rows.used))
    assert values_of(rows) == kept
    again = NeighbourRows(3, 2, HALF_LIFE_S)
    again.reserve(ITEMS)
    others = np.flatnonzero(rows.arrays.row[:ITEMS] >= 0).astype(np.int32)
    again.insert(others, rows.extract(others))
    assert values_of(learned(emitted(after), rows)) == values_of(learned(emitted(after), again))


@bounded
@given(streams(), streams())
def test_rows_go_on_from_extracted_ones(before: list[Touch], after: list[Touch]) -> None:
    rows = learned(emitted(before), NeighbourRows(3, 2, HALF_LIFE_S))
    items = np.flatnonzero(rows.arrays.row >= 0).astype(np.int32)
    again = learned(emitted(after), NeighbourRows(3, 2, HALF_LIFE_S))  # rows that are there are replaced
    others = np.setdiff1d(np.flatnonzero(again.arrays.row >= 0), items).astype(np.int32)
    again.drop(others)
    again.insert(items, rows.extract(items))
    assert values_of(again) == values_of(rows)
    assert values_of(learned(emitted(after), again)) == values_of(learned(emitted(after), rows))


@pytest.mark.parametrize("left", [0, 3, 1_500, 6_000])
def test_memory_of_rows_that_are_gone_is_given_back(left: int) -> None:
    rows = NeighbourRows(2, 1)
    items = np.arange(8_000, dtype=np.int32)
    rows.open(items)
    rows.arrays.total[rows.arrays.row[items]] = items
    rows.drop(items[left:])
    rows.shrink()
    assert rows.arrays.total[rows.arrays.row[items[:left]]].tolist() == items[:left].tolist()
    assert (len(rows.arrays.total) == left) == (left < 2_000)
    rows.open(items[left : left + 2])
    assert sorted(rows.arrays.row[items[: left + 2]].tolist()) == list(range(left + 2))


@bounded
@given(streams())
def test_reading_leaves_the_state_equal(stream: list[Touch]) -> None:
    rows = learned(emitted(stream))
    before = {name: array.copy() for name, array in rows.arrays._asdict().items()}
    for item in range(-1, 5_000, 500):
        rows.neighbours(item)
    rows.extract(np.flatnonzero(rows.arrays.row >= 0).astype(np.int32))
    assert equal_arrays(before, rows.arrays._asdict())


@bounded
@given(streams())
def test_neighbours_are_shares_of_the_total_best_first(stream: list[Touch]) -> None:
    visits = emitted(stream)
    rows, plain = learned(visits), PlainRows(ITEMS, ITEMS, HALF_LIFE_S, 1.0)
    plain.learn(visits)
    for item in range(ITEMS):
        found = rows.neighbours(item)
        row = plain.rows.get(item)
        expected = {other: value / row.total for other, value in row.cells.items()} if row and row.total else {}
        assert dict(found) == pytest.approx(expected, rel=1e-9)
        assert found == sorted(found, key=lambda cell: (-cell[1], cell[0]))


def test_memory_is_twelve_bytes_a_cell_and_little_more() -> None:
    rows = NeighbourRows()
    rows.reserve_rows(1_000)
    assert rows.arrays.row.nbytes == 0
    assert sum(array.nbytes for array in rows.arrays[1:]) == 1_000 * (12 * 120 + 14)
    rows.reserve(2_000)
    assert rows.arrays.row.nbytes == 4 * 2_000
    assert (rows.arrays.row == NO_ROW).all()


def test_no_more_rows_are_made_room_for_than_are_needed() -> None:
    rows = NeighbourRows(4, 4)
    many = [
        Visit(v % 9, 1.0, 0, v, tuple((other, 1.0, True) for other in range(300) if other != v % 9)) for v in range(50)
    ]
    rows.learn(deltas_of(many), np.arange(300, dtype=np.int32) % 2, target=1)
    assert rows.used == 150
    assert len(rows.arrays.epoch) == 256
    assert set(rows.arrays.row[:300:2].tolist()) == {NO_ROW}


def test_nothing_to_learn_changes_nothing() -> None:
    rows = NeighbourRows()
    rows.learn(Deltas(*deltas_of([])), np.zeros(0, dtype=np.int32))
    assert rows.used == 0


# known answers


def test_what_is_always_met_together_is_found_among_noise() -> None:
    generator = np.random.default_rng(3)
    items = 40
    stream = []
    for user in range(400):
        pair = int(generator.integers(0, items // 2)) * 2
        seen = [int(generator.integers(0, items)), pair, pair + 1, int(generator.integers(0, items))]
        stream += [Touch(user, item, ts=user * 60 + place) for place, item in enumerate(seen)]
    histories, rows = Histories(), NeighbourRows(20, 5)
    histories.reserve(400)
    rows.learn(emit(histories.arrays, columns(stream), weighting(KINDS)), np.zeros(items, dtype=np.int32))
    for item in range(items):
        partner = item + 1 if item % 2 == 0 else item - 1
        assert rows.neighbours(item)[0][0] == partner

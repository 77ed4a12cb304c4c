from __future__ import annotations

from collections import defaultdict
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.decay import decay_add_many
from tests.plain import bounded

CELLS = 4
HALF_LIFE_S = 3_600.0
Addition = tuple[int, float, int]  # cell, weight, second
additions = st.lists(
    st.tuples(st.integers(0, CELLS - 1), st.floats(0, 10, width=32), st.integers(0, 10**6)), max_size=40
)


class Cells:
    def __init__(self) -> None:
        self.values = np.zeros(CELLS)
        self.epochs = np.zeros(CELLS, dtype=np.int32)

    def add(self, batch: list[Addition], half_life_s: float = HALF_LIFE_S) -> Cells:
        decay_add_many(
            self.values,
            self.epochs,
            np.array([cell for cell, _, _ in batch], dtype=np.int32),
            np.array([weight for _, weight, _ in batch], dtype=np.float32),
            np.array([ts for _, _, ts in batch], dtype=np.uint32),
            half_life_s,
        )
        return self

    def at(self, second: int, half_life_s: float = HALF_LIFE_S) -> list[float]:
        """What the cells are worth at a second: value * 2 ** (epoch - t / H)."""
        worth = self.values * 2.0 ** (self.epochs - second / half_life_s)
        return [float(value) for value in worth]


def plain(batch: list[Addition], second: int) -> list[float]:
    sums: dict[int, float] = defaultdict(float)
    for cell, weight, ts in batch:
        sums[cell] += weight * 0.5 ** ((second - ts) / HALF_LIFE_S)
    return [sums[cell] for cell in range(CELLS)]


@bounded
@given(additions)
def test_equals_the_plain_sum_after_every_addition(batch: list[Addition]) -> None:
    cells = Cells()
    for n, addition in enumerate(batch):
        cells.add([addition])
        assert cells.at(10**6) == pytest.approx(plain(batch[: n + 1], 10**6), rel=1e-9, abs=1e-300)


@bounded
@given(additions, st.integers(0, 40))
def test_other_batches_change_nothing(batch: list[Addition], cut: int) -> None:
    whole, split = Cells().add(batch), Cells().add(batch[:cut]).add(batch[cut:])
    assert whole.values.tolist() == split.values.tolist()
    assert whole.epochs.tolist() == split.epochs.tolist()


@bounded
@given(additions, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(batch: list[Addition], random: Random) -> None:
    shuffled = batch.copy()
    random.shuffle(shuffled)
    assert Cells().add(batch).at(10**6) == pytest.approx(Cells().add(shuffled).at(10**6), rel=1e-9, abs=1e-300)


@bounded
@given(additions, additions, st.randoms(use_true_random=False))
def test_what_was_added_can_be_subtracted(staying: list[Addition], leaving: list[Addition], random: Random) -> None:
    mixed = staying + leaving
    random.shuffle(mixed)
    cells = Cells().add(mixed)
    before = cells.at(10**6)
    cells.add([(cell, -weight, ts) for cell, weight, ts in leaving])
    for found, expected, had in zip(cells.at(10**6), plain(staying, 10**6), before, strict=True):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * had + 1e-300)


@bounded
@given(additions, st.integers(1, 300))
def test_waiting_whole_half_lives_moves_epochs_only(batch: list[Addition], half_lives: int) -> None:
    later = [(cell, weight, ts + half_lives * 3_600) for cell, weight, ts in batch]
    now, then = Cells().add(batch), Cells().add(later)
    assert then.values.tolist() == pytest.approx(now.values.tolist(), rel=1e-9)
    touched = [cell for cell, _, _ in batch]
    assert (then.epochs - now.epochs)[touched].tolist() == [half_lives] * len(touched)


def test_a_cell_never_falls_below_zero() -> None:
    cells = Cells().add([(0, 1.0, 0), (0, -5.0, 0), (1, -1.0, 7_200)])
    assert cells.values.tolist() == [0.0] * CELLS
    assert cells.add([(0, 2.0, 0)]).values[0] == 2.0


def test_half_is_left_after_a_half_life_and_nothing_after_ages() -> None:
    cells = Cells().add([(0, 8.0, 0), (0, 0.0, 3_600)])
    assert (cells.values[0], cells.epochs[0]) == (4.0, 1)
    assert Cells().add([(0, 8.0, 0), (0, 0.0, 4_000_000_000)], half_life_s=2.0).values[0] == 0.0


def test_a_late_contribution_counts_as_much_as_it_has_left() -> None:
    assert Cells().add([(0, 1.0, 36_000), (0, 1.0, 32_400)]).values[0] == 1.5

"""Histograms of a worker: the kernel that files a batch equals one value after another, and whole-number arithmetic."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.stats import BUCKETS, OCTAVES, Histogram
from tests.plain import bounded

EDGES = st.builds(lambda octave, beside: 2**octave + beside, st.integers(0, 40), st.integers(-1, 1))
VALUES = st.lists(EDGES | st.integers(-5, 2_000) | st.integers(-(2**40), 2**40), max_size=60)


def bucket(value: int) -> int:
    """The last b of all with 2^(b / 8) <= value, that is 2^b <= value^8: without a logarithm, so exactly."""
    return min((max(value, 1) ** 8).bit_length() - 1, BUCKETS - 1)


@bounded
@given(VALUES)
def test_each_value_is_filed_where_it_belongs(values: list[int]) -> None:
    at_once, one_by_one = Histogram(), Histogram()
    at_once.add(np.array(values, dtype=np.int64))
    for value in values:
        one_by_one.add_one(value)
    for histogram in (at_once, one_by_one):
        filed = {int(b): int(histogram.counts[b]) for b in np.flatnonzero(histogram.counts)}
        assert filed == Counter(map(bucket, values))
        assert histogram.total == sum(max(value, 1) for value in values)


@bounded
@given(VALUES, VALUES)
def test_batches_add_up_and_edges_are_exact(first: list[int], second: list[int]) -> None:
    histogram = Histogram()
    for values in (first, second):
        histogram.add(np.array(values, dtype=np.int64))
    filed = [*first, *second]
    *edges, last = histogram.cumulative()
    assert edges == [(2**n - 1, sum(value < 2**n for value in filed)) for n in range(1, OCTAVES)]
    assert last[1] == len(filed)

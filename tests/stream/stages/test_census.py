from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream.stages.census import BLOCK, BLOCKS, Census


@given(st.lists(st.tuples(st.integers(0, 3 * BLOCK * BLOCKS), st.integers(0, 99)), min_size=1, max_size=5))
def test_it_is_exact_for_few_rows_and_after_so_many_questions_for_any(steps: list[tuple[int, int]]) -> None:
    values = np.arange(3 * BLOCK * BLOCKS) % 100
    most = 0
    census = Census(lambda rows: values[rows] < most)
    for rows, most in steps:  # the census sees it
        first = census.count(rows)
        expected = int((values[:rows] < most).sum())
        if rows <= BLOCK * BLOCKS:
            assert first == expected
        assert [census.count(rows) for _ in range(3)][-1] == expected

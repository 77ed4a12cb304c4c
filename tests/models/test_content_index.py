from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.candidates import Candidates
from models.content_index import ContentIndex
from models.content_search import vote_content
from models.inverted_index import USED
from models.text_features import Facts, features
from tests.plain import equal_arrays
from tests.plain_content import DIMENSIONS, PlainContent

words = st.lists(st.sampled_from(["red", "blue", "tent", "chair", "mat", "new"]), max_size=4).map(" ".join)
records = st.lists(
    st.tuples(st.integers(0, 12), words, st.sampled_from(["", "a", "a.b"]), st.sampled_from([None, 5.0, 9.0])),
    max_size=40,
)


@given(records=records, items=st.lists(st.integers(0, 12), max_size=4), size=st.integers(1, 8))
@settings(deadline=None)
def test_cosines_equal_the_plain_ones_step_by_step(
    records: list[tuple[int, str, str, float | None]], items: list[int], size: int
) -> None:
    index, plain = ContentIndex(size, postings=100, dimensions=DIMENSIONS), PlainContent(size)
    index.reserve(13)
    weights = [1.0 / (n + 1) for n in range(len(items))]
    for item, title, category, price in records:
        facts = Facts(title, category=category, price=price)
        index.describe(item, facts)
        plain.describe(item, facts)
        assert len(index) == len(plain.vectors)
        found, cosines = index.similar(np.array(items, dtype=np.int32), np.array(weights))
        got = dict(zip(found.tolist(), cosines.tolist(), strict=True))
        assert got == pytest.approx(plain.similar(items, weights), rel=1e-5)
        assert cosines.tolist() == sorted(cosines.tolist(), reverse=True)
    again = ContentIndex.restore(index.copied())
    assert equal_arrays(again.copied(), index.copied())
    again.describe(3, Facts("red mat"))
    index.describe(3, Facts("red mat"))
    assert equal_arrays(again.copied(), index.copied())


@given(records=records)
@settings(deadline=None)
def test_a_withdrawn_catalogue_leaves_nothing(records: list[tuple[int, str, str, float | None]]) -> None:
    index = ContentIndex(4, postings=100, dimensions=DIMENSIONS)
    for item, title, category, price in records:
        index.describe(item, Facts(title, category=category, price=price))
    for item, *_ in records:
        index.describe(item, Facts())
    assert len(index) == 0
    assert not index.arrays.having.any()
    assert not index.arrays.lists.listed.any()


def test_a_new_item_is_found_among_a_hundred_thousand_alike() -> None:
    index = ContentIndex(size=8, dimensions=1 << 12)
    index.reserve(100_001)
    vectors = [features(Facts(f"tent model {n % 97}", category="camping"), 8, 1 << 12) for n in range(97)]
    for item in range(100_000):
        index.put(item, vectors[item % 97])
    index.describe(100_000, Facts("tent model 5 green", category="camping"))
    found, cosines = index.similar(np.array([5], dtype=np.int32))
    assert 100_000 in found.tolist()
    assert len(found) <= 512
    assert cosines[0] == pytest.approx(1.0, rel=1e-5)


def test_changing_records_do_not_grow_the_lists() -> None:
    index = ContentIndex(size=8, dimensions=1 << 10)
    for turn in range(2_000):
        index.describe(turn % 10, Facts(f"tent {turn % 30}", price=1.0 + turn % 50))
        if turn == 300:
            before = int(index.arrays.lists.pool[USED])
    assert int(index.arrays.lists.pool[USED]) <= before + 10


def test_candidates_of_others_get_their_cosine() -> None:
    index = ContentIndex(dimensions=DIMENSIONS)
    for item, title in enumerate(["red tent", "tent", "chair", "red chair"]):
        index.describe(item, Facts(title))
    candidates = Candidates.empty(4, 2)
    for found, item in enumerate([2, 1]):
        candidates.place[item], candidates.item[found] = found + 1, item
    recent, near = np.zeros(1, dtype=np.int32), np.ones(1)
    found = vote_content(index.arrays, recent, near, 2, index.workspace(1), candidates, 1, 2)
    assert found == 2  # no room for more
    assert candidates.x[1, 0] == 0.0
    assert 0 < candidates.x[1, 1] < 1
    work = index.workspace(1)
    vote_content(index.arrays, recent, near, 4, work, candidates, 0, 2)
    assert not work.weight.any()
    assert not work.strength.any()


@pytest.mark.parametrize("parameters", [(0, 1, 2), (1, 0, 2), (1, 1, 0), (1, 1, 3)])
def test_refuses_parameters_out_of_range(parameters: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="must be > 0"):
        ContentIndex(*parameters)

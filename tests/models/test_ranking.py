from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.ranking import Lists, Query, find_rows, query, rank_rows, rank_similar, score_lists, scratch
from tests.plain import (
    KINDS,
    PlainHistories,
    Touch,
    bounded,
    columns,
    deltas_of,
    equal_arrays,
    near,
    plain_emit,
    plain_rank,
    plain_votes,
    rank,
    same_list,
    same_lists,
    streams,
)
from tests.small_world import HALF_LIFE_S, IDS, ITEMS, USERS, VOTES, WEIGHTING, WHOLE, World

few = streams(USERS, ITEMS, 8, most=40)


@bounded
@given(few, st.integers(1, 12), st.sets(st.integers(0, ITEMS - 1)), st.integers(0, 3), st.sampled_from([0.0, 0.5, 2.0]))
def test_lists_equal_the_plain_ones(
    stream: list[Touch], k: int, withdrawn: set[int], gap: int, step_share: float
) -> None:
    votes = Query(KINDS, near(1.5, 5), gap, step_share)
    world = World(stream)
    hidden = np.isin(np.arange(ITEMS), list(withdrawn))
    users = np.array([2, 0, 3, 1], dtype=np.int32)
    lists, work = Lists.empty(USERS, k), scratch(ITEMS)
    rank_rows(
        world.histories.arrays, users, world.rows.arrays, votes, hidden, world.ids.blob, world.ids.spans, work, lists
    )
    for row, user in enumerate(users.tolist()):
        assert same_list(lists, row, world.expected(user, votes, k, sorted(withdrawn)))
    assert not work.score.any()  # ready for the next call


@bounded
@given(streams(USERS, ITEMS, 8, most=25))
def test_lists_equal_the_plain_ones_after_every_touch(stream: list[Touch]) -> None:
    world = World([])
    for touch in stream:
        world.learn(touch)
        assert same_list(
            rank(world.histories, world.rows, [touch.user], VOTES, world.ids), 0, world.expected(touch.user, VOTES, 5)
        )


@bounded
@given(few, st.integers(1, 12), st.sets(st.integers(0, ITEMS - 1)))
def test_similar_lists_equal_the_plain_ones(stream: list[Touch], k: int, withdrawn: set[int]) -> None:
    world = World(stream)
    hidden = np.isin(np.arange(ITEMS), list(withdrawn))
    seeds, lists, work = np.arange(ITEMS, dtype=np.int32), Lists.empty(ITEMS, k), scratch(ITEMS)
    rank_similar(seeds, world.rows.arrays, 0.5, hidden, world.ids.blob, world.ids.spans, work, lists)
    for item in range(ITEMS):
        votes = plain_votes([(0, Touch(0, item))], world.plain_rows, VOTES)
        assert same_list(lists, item, plain_rank(votes, IDS, k, [*withdrawn, item]))
    assert not work.score.any()


@bounded
@given(few, st.sets(st.integers(0, ITEMS - 1)))
def test_rows_that_name_a_wanted_item_are_found(stream: list[Touch], names: set[int]) -> None:
    world = World(stream)
    rows = world.plain_rows.rows
    wanted = np.isin(np.arange(ITEMS), list(names))
    found = find_rows(np.array(list(rows), dtype=np.int32), world.rows.arrays, wanted)
    assert found.tolist() == [bool(names & (row.cells.keys() | row.steps.keys())) for row in rows.values()]


@bounded
@given(few)
def test_a_list_does_not_depend_on_who_is_ranked_with_it(stream: list[Touch]) -> None:
    world = World(stream)
    together = rank(world.histories, world.rows, range(USERS), VOTES, world.ids)
    for user in range(USERS):
        alone = rank(world.histories, world.rows, [user], VOTES, world.ids)
        assert same_lists(alone, together, slice(user, user + 1))


@bounded
@given(few)
def test_ranking_leaves_histories_and_rows_equal(stream: list[Touch]) -> None:
    world = World(stream)
    rows = {name: array.copy() for name, array in world.rows.arrays._asdict().items()}
    histories = world.histories.snapshot(USERS)
    rank(world.histories, world.rows, range(USERS), VOTES, world.ids)
    assert equal_arrays(rows, world.rows.arrays._asdict())
    assert equal_arrays(histories, world.histories.snapshot(USERS))


@bounded
@given(few, st.integers(1, 30))
def test_neither_doubling_nor_waiting_whole_half_lives_changes_a_list(stream: list[Touch], half_lives: int) -> None:
    def lists(world: World) -> Lists:
        return rank(world.histories, world.rows, range(USERS), VOTES, world.ids)

    assert same_lists(
        lists(World(stream)), lists(World([touch._replace(ts=touch.ts + half_lives) for touch in stream]))
    )
    doubled = World(stream, neighbours=ITEMS, transitions=ITEMS)
    once = lists(doubled)
    again = plain_emit(PlainHistories(4), [t._replace(ts=t.ts * HALF_LIFE_S) for t in stream], WEIGHTING)
    doubled.rows.learn(deltas_of(again), WHOLE)
    assert same_lists(lists(doubled), once)


def test_equal_scores_rank_by_id_as_text() -> None:
    stream = [Touch(user, item) for user, other in enumerate([1, 2, 3]) for item in (0, other)]
    world = World(stream, transitions=3)
    world.histories.append(3, 0, 1, 0)
    lists = rank(world.histories, world.rows, [3], VOTES, world.ids)
    assert [IDS[i] for i in lists.item[0] if i >= 0] == ["a", "b", "i9"]
    assert len(set(lists.micro[0, :3].tolist())) == 1


def test_a_strangers_list_is_empty() -> None:
    world = World([Touch(0, 1), Touch(0, 2)])
    assert rank(world.histories, world.rows, [3], VOTES, world.ids, k=3).item.tolist() == [[-1, -1, -1]]


def test_the_newest_item_and_its_transitions_vote_loudest() -> None:
    # 0 is met with 1 by two, in this order; 2 with 3 by two
    world = World([Touch(user, item) for user, pair in enumerate([(0, 1), (0, 1), (2, 3)]) for item in pair])
    for item in (2, 0):
        world.histories.append(3, item, 1, 0)
    lists = rank(world.histories, world.rows, [3], VOTES, world.ids, k=3)
    assert lists.item[0].tolist() == [1, 3, -1]  # 0's neighbour, then 2's
    assert lists.why[0].tolist() == [0, 2, -1]
    assert lists.micro[0].tolist() == [1_500_000, 353_553, 0]


def test_the_defaults_are_steeper_than_teaching() -> None:
    votes = query(KINDS)
    assert votes.near.tolist() == pytest.approx([n**-1.5 for n in range(1, 21)], rel=1e-6)
    assert (votes.gap, votes.step_share, votes.kind.tolist()) == (3, 0.5, KINDS.tolist())
    assert query().kind.tolist() == [1.0]


def plain_scores(lists: dict[int, list[int]], current: dict[int, int], stream: Sequence[Touch]) -> list[float]:
    """Predictions, hits, sum of reciprocal ranks."""
    asked = [t for t in stream if lists.get(t.user) and KINDS[t.kind] > 0 and current.get(t.user) != t.item]
    places = [lists[t.user].index(t.item) + 1 for t in asked if t.item in lists[t.user]]
    return [len(asked), len(places), sum(1 / place for place in places)]


@bounded
@given(
    few, few, st.dictionaries(st.integers(0, USERS - 1), st.lists(st.integers(0, ITEMS - 1), max_size=4, unique=True))
)
def test_scores_of_pushed_lists_equal_the_plain_ones(
    before: list[Touch], stream: list[Touch], lists: dict[int, list[int]]
) -> None:
    world = World(before)
    last = np.full((USERS, 4), -1, dtype=np.int32)
    for user, items in lists.items():
        last[user, : len(items)] = items
    current = {user: mine[0].item for user, mine in world.plain_histories.recent.items()}
    found = score_lists(last, world.histories.arrays, columns(stream), KINDS)
    assert found.tolist() == pytest.approx(plain_scores(lists, current, stream))

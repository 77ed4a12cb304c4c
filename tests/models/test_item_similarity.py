from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import reco

from models.covisitation import weighting
from models.decay import YEAR_2000_S
from models.evaluation import Stream, prepare
from models.item_similarity import ItemSimilarity, run
from models.ranking import query
from tests.plain import (
    PlainHistories,
    PlainRows,
    Touch,
    bounded,
    deltas_of,
    plain_emit,
    plain_rank,
    plain_votes,
    visits_of,
)

USERS = ["ann", "bob", "cy", "dee"]
ITEMS = ["i10", "i9", "b", "a", "ä", "Z", "日本"]
HALF_LIFE_S = 30 * 86_400
Step = tuple[str, str, int]  # user, item, second
steps = st.lists(st.tuples(st.sampled_from(USERS), st.sampled_from(ITEMS), st.integers(0, 10**8)), max_size=40)


def taught(stream: list[Step], model: ItemSimilarity | None = None) -> ItemSimilarity:
    model = ItemSimilarity() if model is None else model
    for user, item, ts in stream:
        model.learn_one(user, item, 1, {"ts": ts})
    return model


def lists(model: ItemSimilarity, k: int = 9) -> list[list[tuple[str, float]]]:
    return [model.recommend(user, k) for user in [*USERS, "nobody"]]


def met(known: list[int], one: int, most: int) -> list[int]:
    """Make one the latest of those known; who goes for it."""
    gone = known[:1] if one not in known and len(known) == most else []
    known[:] = [other for other in known if other not in (one, *gone)] + [one]
    return gone


def forget_item(histories: PlainHistories, rows: PlainRows, item: int) -> None:
    """Histories become as if it had never been touched, and so do the sums, as far as the histories tell them."""
    for user, recent in histories.recent.items():
        if any(touch.item == item for touch in recent):
            for sign, touches in ((-1, recent), (1, [touch for touch in recent if touch.item != item])):
                histories.recent[user] = []
                visits = plain_emit(histories, touches[::-1], weighting())
                rows.learn(visits_of(deltas_of(visits, sign)._replace(pull=sign * deltas_of(visits).pull)))
    rows.rows.pop(item, None)
    for row in rows.rows.values():
        row.cells.pop(item, None)
        row.steps.pop(item, None)


whole = steps.map(lambda made: [(user, item, ts % 4 * HALF_LIFE_S) for user, item, ts in made])  # no rounding


@bounded
@given(whole, st.integers(1, 4), st.integers(1, 7))
def test_forgets_those_touched_longest_ago_as_the_plain_model_does(
    stream: list[Step], max_users: int, max_items: int
) -> None:
    model, votes = ItemSimilarity(9, 9, history=4, max_users=max_users, max_items=max_items), query()
    histories, rows = PlainHistories(4), PlainRows(9, 9, HALF_LIFE_S, 1.0)
    users: list[int] = []
    items: list[int] = []
    for user, item, ts in stream:
        taught([(user, item, ts)], model)
        touch = Touch(USERS.index(user), ITEMS.index(item), 0, ts)
        for gone in met(users, touch.user, max_users):
            del histories.recent[gone]
        for gone in met(items, touch.item, max_items):
            forget_item(histories, rows, gone)
        rows.learn(plain_emit(histories, [touch], weighting()))
        for u, name in enumerate(USERS):
            seeds = histories.distances(u, votes.gap)
            current = [touch.item for touch in histories.recent.get(u, [])[:1]]
            expected = plain_rank(plain_votes(seeds, rows, votes), ITEMS, 9, current).cells
            assert model.recommend(name, 9) == [(ITEMS[i], micro / 1e6) for i, micro in expected]


@bounded
@given(steps.map(lambda made: [(user, item, ts // HALF_LIFE_S * HALF_LIFE_S) for user, item, ts in made]))
def test_equals_the_plain_model_after_every_event(stream: list[Step]) -> None:
    model, votes, weights = ItemSimilarity(3, 2, history=4), query(), weighting()
    histories, rows = PlainHistories(4), PlainRows(3, 2, HALF_LIFE_S, 1.0)
    for user, item, ts in stream:
        taught([(user, item, ts)], model)
        touch = Touch(USERS.index(user), ITEMS.index(item), 0, ts)
        rows.learn(plain_emit(histories, [touch], weights))
        seeds = histories.distances(touch.user, votes.gap)
        expected = plain_rank(plain_votes(seeds, rows, votes), ITEMS, 5, [touch.item]).cells
        assert model.recommend(user, 5) == [(ITEMS[i], micro / 1e6) for i, micro in expected]


def loop(stream: Stream, k: int) -> list[list[str]]:
    """Test, then learn through the public methods."""
    model, found = ItemSimilarity(), []
    for n in range(len(stream)):
        user, item = int(stream.key[n]), stream.item_ids[stream.item[n]]
        if stream.scored[n]:
            found.append([name for name, _ in model.recommend(user, k)])
        model.learn_one(user, item, 1, {"ts": max(int(stream.ts[n]) - YEAR_2000_S, 0)})
    return found


@bounded
@given(steps, st.integers(1, 9), st.sampled_from([0.0, 0.5, 0.8]))
def test_the_kernel_equals_the_loop_over_the_models_own_methods(stream: list[Step], k: int, start: float) -> None:
    prepared = prepare(
        np.array([USERS.index(user) for user, _, _ in stream], dtype=np.int32),
        np.array([ITEMS.index(item) for _, item, _ in stream], dtype=np.int32),
        np.array([ts + YEAR_2000_S for _, _, ts in stream], dtype=np.int64),
        np.ones(len(stream), dtype=np.float32),
        ITEMS,
        start,
        named=np.ones(len(stream), dtype=np.bool_),  # the methods know no visits
    )
    found = run(prepared, k)
    assert found.shape == (int(prepared.scored.sum()), k)
    assert [[ITEMS[i] for i in row if i >= 0] for row in found.tolist()] == loop(prepared, k)


@bounded
@given(steps, st.integers(1, 40))
def test_waiting_whole_half_lives_changes_no_list(stream: list[Step], half_lives: int) -> None:
    later = [(user, item, ts + half_lives * HALF_LIFE_S) for user, item, ts in stream]
    for left, right in zip(lists(taught(stream)), lists(taught(later)), strict=True):
        assert dict(left) == pytest.approx(dict(right), rel=1e-9, abs=1.01e-6)  # six decimals, either side of an edge


@bounded
@given(steps, steps)
def test_copies_go_on_alike_and_apart(before: list[Step], after: list[Step]) -> None:
    model = taught(before)
    found = lists(model)
    copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    expected = lists(taught(after, model))
    for other in copies:
        assert lists(other) == found
        assert lists(taught(after, other)) == expected


@bounded
@given(steps)
def test_reading_leaves_the_state_equal(stream: list[Step]) -> None:
    model = taught(stream)
    before = pickle.dumps(model)
    for user in (*USERS, "nobody"):
        model.recommend(user)
        model.predict_one(user, "i9")
        model.predict_one(user, "never seen")
        model.rank(user, {"i9", "never seen"})
    assert pickle.dumps(model) == before


@bounded
@given(steps)
def test_rank_and_predict_one_say_what_recommend_says(stream: list[Step]) -> None:
    model = taught(stream)
    for user in USERS:
        scores = dict(model.recommend(user, len(ITEMS)))
        assert {item: model.predict_one(user, item) for item in ITEMS} == {
            item: scores.get(item, 0.0) for item in ITEMS
        }
        assert model.rank(user, {*ITEMS}) == sorted(ITEMS, key=lambda item: (-scores.get(item, 0.0), item))
        assert [item for item, _ in model.recommend(user, 2)] == [i for i, _ in model.recommend(user, len(ITEMS))][:2]


@bounded
@given(steps)
def test_bounds_are_kept(stream: list[Step]) -> None:
    model = taught(stream, ItemSimilarity(neighbours=2, transitions=1, history=3))
    assert all(len(model.recommend(user, 99)) <= 3 * 2 + 1 for user in USERS)


def test_nothing_is_known_before_learning() -> None:
    model = ItemSimilarity()
    assert model.recommend("ann") == []
    assert model.predict_one("ann", "tent") == 0.0
    assert model.rank("ann", {"b", "a"}) == ["a", "b"]


@pytest.mark.parametrize("feedback", [0, False, -1, 0.0])
def test_only_positive_feedback_teaches(feedback: float) -> None:
    model = ItemSimilarity()
    model.learn_one("ann", "tent", feedback)
    model.learn_one("ann", "mat", True)
    model.learn_one("bob", "tent", 0.5)
    assert lists(model) == [[]] * 5


def test_ids_are_told_apart_by_their_text() -> None:
    model = ItemSimilarity()
    for user, item in [(1, 10), (1, 20), ("2", "10")]:
        model.learn_one(user, item)
    assert model.recommend(2) == [("20", 0.75)]  # 10 was visited twice, 20 came next once
    assert model.rank(2, {10, 20}) == [20, 10]


def test_is_a_ranker_that_river_can_clone() -> None:
    model: reco.base.Ranker = taught([("ann", "tent", 0), ("ann", "mat", 9)], ItemSimilarity(7, 3, history=5))
    clone = model.clone()
    assert isinstance(clone, ItemSimilarity)
    assert (clone.neighbours, clone.transitions, clone.history) == (7, 3, 5)
    assert clone.recommend("ann") == []
    assert not model.is_contextual
    assert "ItemSimilarity" in repr(model)


def test_finds_the_certain_neighbour_in_a_plain_river_loop() -> None:
    generator = np.random.default_rng(5)
    pairs = {f"left{n}": f"right{n}" for n in range(5)}
    ranker = ItemSimilarity()
    catalogue, hits = {*pairs, *pairs.values()}, []
    for n in range(200):
        left, user = f"left{generator.integers(5)}", f"u{n}"
        ranker.learn_one(user=user, item=left, y=1, x={"ts": n})
        hits.append(ranker.rank(user, set(catalogue - {left}))[0] == pairs[left])
        ranker.learn_one(user=user, item=pairs[left], y=1, x={"ts": n})
    assert all(hits[100:])


@pytest.mark.parametrize("half_lives", [1, 30, 60, 1_000])
def test_a_neighbour_met_ages_later_is_still_one(half_lives: int) -> None:
    model = ItemSimilarity(half_life_s=3_600)
    taught([("ann", "tent", 0), ("ann", "mat", half_lives * 3_600), ("bob", "tent", 0)], model)
    assert [item for item, _ in model.recommend("bob")] == ["mat"]

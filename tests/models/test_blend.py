from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models.blend
from models.blend import PRIOR, Blend
from models.blend_features import (
    BACK,
    EDGE,
    FEATURES,
    GROUPS,
    LENGTHS,
    REACH,
    STEP,
    STEPS,
    VOTES,
    Desk,
    Sources,
    describe,
    desk,
    votes,
)
from models.blend_lists import HITS, LESSONS
from models.blend_ranker import PARTS, BlendRanker, run
from models.candidates import clear
from models.covisitation import weighting
from models.evaluation import measure
from models.histories import Histories, Touches
from models.ranking import Lists, scratch
from models.references import translate
from models.tallies import FADED, HALF_LIVES
from models.weight_averaging import Opinion, mean_of
from tests.streams import ITEM_IDS, TOUCHES, Touch, stream_of

Cells = dict[str, float]


class PlainFeatures:
    """The slow reference: what the blend knows about each candidate, from dictionaries and lists.

    Fewer touches than a ring holds and than any bound drops; neighbours come from the model's own rows.
    """

    def __init__(self, model: BlendRanker) -> None:
        self.model = model
        self.rings: dict[str, list[str]] = {}
        self.postings: dict[str, list[str]] = {}
        self.order: list[str] = []

    def learn(self, user: str, item: str) -> None:
        ring = self.rings.setdefault(user, [])
        if ring and ring[0] == item:
            return
        self.order.append(item)
        if item not in ring:
            self.postings.setdefault(item, []).insert(0, user)
        ring.insert(0, item)

    def row(self, item: str) -> Cells:
        index = int(self.model._items.lookup([item])[0])
        return {self.model._items.text(other): share for other, share in self.model._rows.neighbours(index)}

    def steps(self, item: str) -> Cells:
        arrays = self.model._rows.arrays
        row = arrays.row[int(self.model._items.lookup([item])[0])]
        cells = zip(arrays.step_item[row, : arrays.steps[row]], arrays.step_value[row], strict=False)
        return {self.model._items.text(int(other)): value / arrays.total[row] for other, value in cells}

    def sessions(self, user: str) -> Cells:
        query = list(dict.fromkeys(self.rings[user]))[: REACH.length]
        kept: dict[str, tuple[float, int]] = {}
        for place, item in enumerate(query, 1):
            for other in [u for u in self.postings[item] if u != user][: REACH.sample]:
                similarity, first = kept.get(other, (0.0, place))
                kept[other] = (similarity + 1 / place, first)
        found: Cells = defaultdict(float)
        for other, (similarity, first) in kept.items():
            for item in set(self.rings[other]):
                found[item] += similarity / first
        return found

    def walk(self, user: str) -> Cells:
        current = self.rings[user][0]
        arrays, texts = self.model._rows.arrays, self.model._items
        row = arrays.row[int(texts.lookup([current])[0])]
        cells = [(arrays.value[row, c], -c, texts.text(int(arrays.item[row, c]))) for c in range(arrays.size[row])]
        found: Cells = defaultdict(float)
        for value, _, item in sorted(cells, reverse=True)[:STEPS]:
            for onward, share in self.row(item).items():
                found[onward] += value * share
        return found

    def votes(self, user: str) -> list[Cells]:
        ring = self.rings[user]
        earlier: Cells = defaultdict(float)
        for place, item in enumerate(ring[2:10], 3):
            for other, share in self.row(item).items():
                earlier[other] += share * place**-1.5
        previous = self.row(ring[1]) if len(ring) > 1 else {}
        return [self.row(ring[0]), previous, earlier, self.steps(ring[0]), self.sessions(user), self.walk(user)]

    def features(self, user: str) -> dict[str, list[float]]:
        said = self.votes(user)
        seen = self.rings[user][1:]
        names = set(self.order) | {item for cells in said for item in cells}
        return {name: [_level(cells, name) for cells in said] + self.facts(seen, name) for name in names}

    def facts(self, seen: list[str], name: str) -> list[float]:
        again = [place for place, item in enumerate(seen, 1) if item == name]
        heights = []
        for half_life in HALF_LIVES:
            ages = [len(self.order) - n for n, item in enumerate(self.order, 1) if item == name]
            count = sum(0.5 ** (age / half_life) for age in ages)
            heights.append((math.log2(count) + FADED) / 8)
        near = [1.0, float(again[0] == 1), 1 / again[0], len(again)] if again else [0.0] * 4
        return near + heights


def _level(cells: Cells, name: str) -> float:
    edge = EDGE * sum(cells.values())
    vote = cells.get(name, 0.0)
    return vote / (vote + edge) if edge else 0.0


def teach(model: BlendRanker, touches: list[Touch]) -> PlainFeatures:
    plain = PlainFeatures(model)
    stream = stream_of(touches)
    for key, item, ts in zip(stream.key.tolist(), stream.item.tolist(), stream.ts.tolist(), strict=True):
        model.learn_one(str(key), ITEM_IDS[item], 1, {"ts": ts - 946_684_800})
        plain.learn(str(key), ITEM_IDS[item])
    return plain


def described(model: BlendRanker, user: str) -> tuple[dict[str, list[float]], Desk]:
    work = model._desk()
    arrays = model.blend.arrays
    sources = Sources(model._histories.arrays, model._rows.arrays, arrays.postings, arrays.tallies)
    found = describe(sources, int(model._users.lookup([user])[0]), votes(), work)
    texts = model._items.texts(work.candidates.item[:found])
    return dict(zip(texts, work.candidates.x[:, :found].T.tolist(), strict=True)), work


@given(touches=TOUCHES.filter(lambda touches: len(touches) > 0))
@settings(deadline=None)
def test_features_equal_the_plain_ones(touches: list[Touch]) -> None:
    model = BlendRanker(history=60)
    plain = teach(model, touches)
    for user, ring in plain.rings.items():
        got, work = described(model, user)
        expected = plain.features(user)
        assert got.keys() == expected.keys()
        for item, features in got.items():
            assert features == pytest.approx(expected[item], abs=1e-4), item
        length = [1, 2, 3, 3][min(len(ring), 4) - 1] if len(ring) < 5 else (4 if len(ring) < 10 else 5)
        assert work.group[0] == length
        assert LENGTHS < work.group[1] <= 2 * LENGTHS


@given(touches=TOUCHES.filter(lambda touches: len(touches) > 0))
@settings(deadline=None)
def test_lists_are_the_weighed_features_by_chance_with_a_reason_the_visitor_can_follow(touches: list[Touch]) -> None:
    model = BlendRanker(history=60)
    plain = teach(model, touches)
    for user, ring in plain.rings.items():
        got, work = described(model, user)
        learner = model.blend.arrays.learner
        weight = learner.weight[0] + learner.weight[work.group[0]] + learner.weight[work.group[1]]
        scores = {item: float(weight @ x) for item, x in got.items() if item != ring[0]}
        listed = model.recommend(user)
        assert {item for item, _ in listed} == scores.keys()
        ranked = [scores[item] for item, _ in listed]
        assert all(a >= b - 2e-5 for a, b in pairwise(ranked))
        for item, chance in listed:
            assert chance == pytest.approx(math.exp(scores[item] - ranked[0]), abs=4e-5)
        for item, reason, why in model.explain(user):
            assert (why is None) == (reason == "popular")
            assert why is None or why in ring
            assert reason != "repeat" or why == item
            assert reason != "transition" or item in plain.steps(ring[0])
            assert reason != "covisit" or (why is not None and item in plain.row(why))


def test_desk_is_clean_after_every_list() -> None:
    model = BlendRanker()
    teach(model, [(n % 3, n % 7, 1) for n in range(40)])
    features, work = described(model, "0")
    assert len(features) == 7
    clear(work.candidates, len(features))
    assert not work.candidates.place.any()
    assert not work.candidates.x.any()
    assert not work.candidates.total.any()
    assert not work.matches.table.any()


def _loyal(n: int, chance: np.random.Generator, *, again: bool) -> list[Touch]:
    """Visits of two items; the third is the first again, or else an item that always follows the second."""
    touches = []
    for key in range(n):
        a, b = chance.permutation(8)[:2].tolist()
        touches += [(key, a, 1), (key, b, 1), (key, a if again else (b + 1) % 8, 1)]
    return touches


@pytest.mark.parametrize(("again", "feature"), [(True, BACK), (False, STEP)])
def test_weights_follow_what_visitors_do_next(again: bool, feature: int) -> None:
    model = BlendRanker()
    teach(model, _loyal(300, np.random.default_rng(1), again=again))
    other = BlendRanker()
    teach(other, _loyal(300, np.random.default_rng(1), again=not again))
    assert model.blend.weights[feature] > other.blend.weights[feature] + 0.3


def test_frozen_weights_stay_and_all_else_learns() -> None:
    model = BlendRanker(frozen=True)
    teach(model, [(n % 3, n % 7, 1) for n in range(40)])
    assert model.blend.weights.tolist() == list(PRIOR)
    assert model.blend.arrays.counts[LESSONS] == 0
    assert model.blend.arrays.tallies.events[0] == 40


def test_a_lasting_fall_of_the_hit_rate_quickens_learning_and_a_rise_does_not() -> None:
    blend = Blend()
    chance = np.random.default_rng(1)
    counts = blend.arrays.counts

    def live(rate: float, looks: int = 200) -> None:
        for _ in range(looks):
            counts[LESSONS] += 50
            counts[HITS] += chance.binomial(50, rate)
            blend.watch()

    live(0.3)
    live(0.6)
    assert blend.drifts == 0
    pace = blend.pace
    live(0.2)
    assert blend.drifts >= 1
    assert blend.pace == pytest.approx(pace * 2**blend.drifts)
    assert blend.hit_rate == pytest.approx(0.2, abs=0.05)


def _ranked(blend: Blend, model: BlendRanker) -> list[tuple[list[int], list[int], list[int]]]:
    """Lists of all users by a blend, with the model's histories and rows."""
    users = np.arange(len(model._users), dtype=np.int32)
    items = model._items
    lists = Lists.empty(len(users), 20)
    hidden = np.zeros(len(items), dtype=np.bool_)
    histories, rows = model._histories.arrays, model._rows.arrays
    work = desk(scratch(len(items)), 20)
    blend.rank_many(histories, users, rows, votes(), hidden, items.blob, items.spans, work, lists)
    return list(zip(lists.item.tolist(), lists.micro.tolist(), lists.reason.tolist(), strict=True))


def test_survives_a_snapshot_and_learns_on_alike() -> None:
    model = BlendRanker(blocks=30)
    chance = np.random.default_rng(1)
    touches = [
        (int(u), int(i), 1) for u, i in zip(chance.integers(0, 20, 400), chance.integers(0, 10, 400), strict=True)
    ]
    teach(model, touches)
    copy = Blend.restore(model.blend.snapshot())
    before = _ranked(model.blend, model)
    assert _ranked(copy, model) == before
    original, model.blend = model.blend, copy
    teach(model, touches[:50])
    assert copy.weights.tolist() != original.weights.tolist()
    assert copy.arrays.counts[LESSONS] > original.arrays.counts[LESSONS]


def test_a_snapshot_finds_its_items_under_other_indices() -> None:
    model = BlendRanker(blocks=30)
    teach(model, [(n % 5, (n * n) % 10, 1) for n in range(60)])
    size = len(model._items)
    there = np.arange(size, dtype=np.int32)[::-1].copy()
    kept = np.arange(size)
    arrays = model.blend.snapshot()
    for name in ("items", "popular"):
        translate(arrays[name], kept.astype(np.int32), there)
    moved, old = Blend.restore(arrays).arrays, model.blend.arrays
    assert moved.tallies.slow[there[kept]].tolist() == old.tallies.slow[kept].tolist()
    assert moved.tallies.fast[there[kept]].tolist() == old.tallies.fast[kept].tolist()
    assert moved.postings.newest[there[kept]].tolist() == old.postings.newest[kept].tolist()
    listed = [there[item] for item in old.tallies.popular if item >= 0]
    assert moved.tallies.popular[: len(listed) + 1].tolist() == [*listed, -1]


def test_dropped_items_are_forgotten_before_their_index_goes_to_another() -> None:
    model = BlendRanker()
    teach(model, [(n % 3, n % 7, 1) for n in range(40)])
    tallies, postings = model.blend.arrays.tallies, model.blend.arrays.postings
    listed = tallies.popular[tallies.popular >= 0].tolist()
    model.blend.drop_items(np.array(listed[1:3], dtype=np.int32))
    assert tallies.popular[: len(listed) - 1].tolist() == [listed[0], *listed[3:], -1]
    assert (tallies.slow[listed[1:3]] == -np.inf).all()
    assert (tallies.fast[listed[1:3]] == -np.inf).all()
    assert (postings.newest[listed[1:3]] == -1).all()
    assert (postings.newest[listed[3:]] >= 0).all()


def test_an_opinion_is_due_every_so_many_touches_and_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.blend, "SPEAK", 30)
    model = BlendRanker()
    blend = model.blend
    teach(model, [(n % 3, n % 7, 1) for n in range(29)])
    assert blend.opinion() is None
    teach(model, [(n % 3, n % 7, 1) for n in range(5)])
    said = blend.opinion()
    assert said is not None
    assert said.lessons == blend.lessons
    assert blend.opinion() is None
    other = Opinion(said.weight + 1.0, said.square, said.lessons)
    before = blend.weights.tolist()
    blend.hear(mean_of([other]), 6, included=False)  # made before this opinion was heard
    assert (blend.weights.tolist(), blend.heard) == (before, 0)
    blend.hear(mean_of([said, other]), 7)
    assert blend.weights == pytest.approx(
        said.weight[0] + 0.25
    )  # half of the way to the mean, which is half a step off
    moved = blend.weights
    blend.hear(mean_of([other]), 8)  # nothing was said since: it would move twice by the same distance
    blend.hear(mean_of([other]), 7)
    assert blend.weights.tolist() == moved.tolist()
    assert blend.heard == 7


def test_the_mean_of_another_version_is_not_taken_over() -> None:
    blend = Blend()
    shape = (GROUPS + 1, FEATURES + 1)
    blend.hear(Opinion(np.ones(shape), np.ones(shape), 5), 1)
    assert blend.weights.tolist() == list(PRIOR)
    assert blend.heard == 0


@given(touches=TOUCHES, cuts=st.sets(st.integers(1, 59), max_size=4))
@settings(deadline=None, max_examples=20)
def test_batches_end_anywhere(touches: list[Touch], cuts: set[int]) -> None:
    """With the same rows at hand the same is learned and returned, however the stream is cut."""
    rows = BlendRanker(history=6)
    teach(rows, [(n % 4, (n * 3) % 10, 1) for n in range(60)])
    assert len(rows._items) == len(ITEM_IDS)
    stream = stream_of(touches)
    n = len(touches)
    ts = np.arange(n, dtype=np.uint32)
    whole = Touches(stream.key, stream.item, np.zeros(n, dtype=np.uint8), ts, np.zeros(n, dtype=np.bool_))
    outcomes = []
    for ends in ({n}, cuts | {n}):
        blend, histories, start, pairs = Blend(), Histories(6), 0, list[int]()
        blend.reserve(len(rows._items))
        histories.reserve(5)
        for end in sorted(end for end in ends if end <= n):
            batch = Touches._make(column[start:end] for column in whole)
            start, work = end, desk(scratch(len(rows._items)), 6)
            found = blend.learn_many(histories.arrays, rows._rows.arrays, batch, weighting(), votes(), work)
            pairs += found.other.tolist()
        state = {name: array.tolist() for name, array in blend.snapshot().items() if name not in ("told", "rates")}
        outcomes.append((pairs, state, histories.arrays.item.tolist()))
    assert outcomes[0] == outcomes[1]


def test_hidden_items_are_not_shown() -> None:
    model = BlendRanker()
    teach(model, [(n % 3, n % 7, 1) for n in range(40)])
    lists = Lists.empty(1, 20)
    hidden = np.ones(len(model._items), dtype=np.bool_)
    hidden[3] = False
    items, users = model._items, np.zeros(1, dtype=np.int32)
    histories, rows = model._histories.arrays, model._rows.arrays
    work = model._desk()
    model.blend.rank_many(histories, users, rows, votes(), hidden, items.blob, items.spans, work, lists)
    assert set(lists.item[0].tolist()) == {3, -1}


@given(touches=TOUCHES, partitions=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_evaluator_lists_what_the_class_lists(touches: list[Touch], partitions: int) -> None:
    stream = stream_of(touches)
    lists = run(stream, 12, partitions)
    measure(stream, lists)
    if partitions > 1:
        return
    model = BlendRanker()
    rows = iter(lists.tolist())
    for n, (key, item, ts) in enumerate(zip(stream.key, stream.item, stream.ts, strict=True)):
        if stream.scored[n]:
            expected = [ITEM_IDS[i] for i in next(rows) if i >= 0]
            assert [name for name, _ in model.recommend(str(key), 12)] == expected
        model.learn_one(str(key), ITEM_IDS[item], 1, {"ts": int(ts) - 946_684_800})


@pytest.mark.parametrize("part", PARTS)
def test_parts_list_only_what_they_vote_for(part: str) -> None:
    stream = stream_of([(key, item, 1) for key in range(30) for item in ((key % 5), (key % 5 + 1), key % 5)], 0.5)
    lists = run(stream, 5, part=part)
    measure(stream, lists)
    assert (lists >= 0).any()
    assert (lists >= 0).sum() < lists.size


def test_same_lists_under_another_hash_seed() -> None:
    code = """
import numpy as np
from models.blend_ranker import BlendRanker
model = BlendRanker()
chance = np.random.default_rng(1)
for n in range(300):
    model.learn_one(f"u{chance.integers(20)}", f"i{chance.integers(30)}", 1, {"ts": n})
print([(model.recommend(f"u{u}"), model.explain(f"u{u}")) for u in range(20)], model.blend.weights.tolist())
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) > 1_000


def test_priors_have_one_weight_per_feature() -> None:
    assert len(PRIOR) == FEATURES
    assert VOTES < FEATURES

"""How the blend learns, what it keeps and forgets, and what it tells others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import models.blend
from models.blend import PRIOR, QUICKEN, Blend
from models.blend_features import BACK, FEATURES, GROUPS, STEP, VOTES, desk, votes
from models.blend_lists import ALERT, ALERTED, HITS, LESSONS, MANY_TEACH
from models.blend_ranker import BlendRanker
from models.covisitation import weighting
from models.histories import Histories, Touches
from models.ranking import Lists, scratch
from models.references import translate
from models.weight_averaging import Opinion, mean_of
from tests.blending import learn_all, teach
from tests.streams import ITEM_IDS, TOUCHES, Touch, stream_of


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


class Habit:
    """Visitors who touch again what they had lately, or never: no list of 20 of the 40 items fits both."""

    def __init__(self, model: BlendRanker) -> None:
        self.model = model
        self.chance = np.random.default_rng(1)
        self.recent: dict[str, list[str]] = {f"u{n}": [f"i{(n + i) % 40}" for i in range(20)] for n in range(60)}
        learn_all(model, [(user, item) for user, items in self.recent.items() for item in items[::-1]])

    def live(self, touches: int, *, again: float) -> float:
        """So many touches, a share of them of an item that the visitor had lately; the share of lessons that hit."""
        batch = []
        for user in self.chance.choice(list(self.recent), touches).tolist():
            recent = self.recent[user]
            new = [item for n in range(40) if (item := f"i{n}") not in recent]
            others = recent[1:] if self.chance.random() < again else new
            item = str(self.chance.choice([item for item in others if item != recent[0]]))
            recent[:] = [item, *recent][:20]
            batch.append((user, item))
        counts = self.model.blend.arrays.counts
        before = counts.copy()
        learn_all(self.model, batch)
        told = counts - before
        return float(told[HITS] / told[LESSONS])


def _touches_to_relearn(monkeypatch: pytest.MonkeyPatch, quicken: float, alerted: int) -> int:
    """Touches from when a settled blend notices that habits have changed until most of its lists hit."""
    monkeypatch.setattr(models.blend, "QUICKEN", quicken)
    monkeypatch.setattr(models.blend, "ALERTED", alerted)
    model = BlendRanker()
    habit, blend = Habit(model), model.blend
    habit.live(20_000, again=0.8)
    blend.arrays.counts[LESSONS] = MANY_TEACH  # as if it were old: one list in eight teaches
    blend._told = blend.arrays.counts.copy()
    assert habit.live(20_000, again=0.8) > 0.8
    assert blend.drifts == 0
    noticed = touches = 0
    while habit.live(500, again=0.2) < 0.6:
        touches += 500
        noticed = noticed or touches * (blend.drifts > 0)
        assert touches < 30_000
    assert 0 < noticed < 6_400
    return touches - noticed


def test_after_a_drift_a_blend_relearns_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _touches_to_relearn(monkeypatch, 1.0, 0)
    longer_steps = _touches_to_relearn(monkeypatch, QUICKEN, 0)
    assert _touches_to_relearn(monkeypatch, QUICKEN, ALERTED) < longer_steps / 3 < plain / 5


def test_others_who_met_no_drift_do_not_slow_one_down_that_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.blend, "SPEAK", 30)
    model = BlendRanker()
    blend, counts = model.blend, model.blend.arrays.counts

    def average(version: int) -> float:
        """How much slower the blend is after a mean with others who are three times as slow."""
        teach(model, [(n % 3, n % 7, 1) for n in range(40)])
        said = blend.opinion()
        assert said is not None
        weights, pace = blend.weights, blend.pace
        blend.hear(mean_of([said, Opinion(said.weight + 1.0, 9.0 * said.square, said.lessons)]), version)
        assert blend.weights == pytest.approx(weights + 0.25)
        return pace / blend.pace

    counts[ALERT] = 1_000
    assert average(1) == 1.0
    counts[ALERT] = counts[LESSONS]
    assert average(2) == pytest.approx(3.0**0.5)


def test_forgets_also_what_the_history_has_dropped() -> None:
    model = BlendRanker(history=2)
    for n in range(6):
        model.learn_one("gone", f"secret{n}", 1)
        model.learn_one("other", f"i{n % 3}", 1)
    assert any(item.startswith("secret") for item, _ in model.recommend("other"))
    model.forget_one("gone")
    listed = [item for item, _ in model.recommend("other")]
    assert listed
    assert not any(item.startswith("secret") for item in listed)


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


def test_prices_that_are_none_do_not_spoil_the_weights() -> None:
    model = BlendRanker()
    for item in ITEM_IDS:
        model.describe_one(item, {"price": math.inf})
    teach(model, [(n % 3, n % 7, 1) for n in range(40)])
    assert np.isfinite(model.blend.arrays.learner.weight).all()


def test_priors_have_one_weight_per_feature() -> None:
    assert len(PRIOR) == FEATURES
    assert VOTES < FEATURES

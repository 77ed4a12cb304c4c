"""Races between values of a constant: what a comparison says, when the lead changes, and the constants of the blend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.blend import Blend
from models.blend_constants import FIRST, MEMORY, RECENCY, VALUES
from models.blend_lists import LESSONS
from models.blend_ranker import BlendRanker
from models.race import CHANGES, LEADER, LEAST, Races, compare, gain_of
from models.tallies import MEMORIES, MIDDLE, widened
from tests.blending import learn_all

score = st.floats(-3, 3, width=32)


@given(candidates=st.lists(st.tuples(score, score), min_size=1, max_size=6), pick=st.integers(0, 5))
@settings(deadline=None)
def test_a_gain_is_the_difference_of_log_likelihoods(candidates: list[tuple[float, float]], pick: int) -> None:
    target = pick % len(candidates)
    before = [s for s, _ in candidates]
    after = [s + d for s, d in candidates]
    sums = [sum(math.exp(s) for s in scores) for scores in (before, after)]
    likelihoods = [scores[target] - math.log(total) for scores, total in zip((before, after), sums, strict=True)]
    chance = np.array([math.exp(s) / sums[0] for s in before], dtype=np.float32)
    change = np.array([d for _, d in candidates], dtype=np.float32)
    assert gain_of(chance, change, target) == pytest.approx(likelihoods[1] - likelihoods[0], abs=2e-3)


def test_what_changes_nothing_gains_nothing() -> None:
    """Not what rounding left of the chances either, which would add up."""
    chance = np.full(7, 1 / 7, dtype=np.float32)
    assert gain_of(chance, np.zeros(7, dtype=np.float32), 3) == 0.0


def _lead(races: Races) -> tuple[int, int]:
    return int(races.lead[0, LEADER]), int(races.lead[0, CHANGES])


def _live(races: Races, chance: np.random.Generator, means: tuple[float, ...], comparisons: int) -> None:
    """Compare values whose log-likelihoods have these means, as the blend does."""
    for _ in range(comparisons):
        leader = int(races.lead[0, LEADER])
        for value, mean in enumerate(means):
            if value != leader and compare(races, 0, value, chance.normal(mean - means[leader], 0.1)):
                break


def test_the_lead_goes_to_the_better_one_and_again_to_another_when_that_changes() -> None:
    races, chance = Races.start([1, 0], 3), np.random.default_rng(1)
    _live(races, chance, (0.02, 0.0, -0.02), 3_000)
    assert _lead(races) == (0, 1)
    _live(races, chance, (-0.02, 0.0, 0.02), 6_000)
    assert _lead(races)[0] == 2
    assert _lead(races)[1] <= 3
    changes = _lead(races)[1]
    _live(races, chance, (-0.02, 0.0, 0.02), 6_000)
    assert _lead(races) == (2, changes)


def test_equals_do_not_take_turns() -> None:
    races, chance = Races.start([1, 0], 3), np.random.default_rng(2)
    _live(races, chance, (0.0, 0.0, 0.0), 30_000)
    assert _lead(races)[1] <= 1
    assert (races.lead[1].tolist(), races.seen[1].any()) == ([0, 0], False)  # the other race


def test_nobody_takes_the_lead_by_a_few_comparisons_and_an_old_lead_does_not_bind() -> None:
    races = Races.start([0], 2)
    assert not any(compare(races, 0, 1, 1.0) for _ in range(int(LEAST)))
    races = Races.start([0], 2)
    for _ in range(20_000):
        compare(races, 0, 1, -0.05)
    taken = next(n for n in range(20_000) if compare(races, 0, 1, 0.05))
    assert taken <= LEAST * 1.2
    assert races.seen.tolist() == races.gain.tolist() == races.square.tolist() == [[0.0, 0.0]]


def _leads(blend: Blend, constant: int) -> tuple[float, int]:
    """What leads a race, and how often that has changed."""
    return list(blend.constants.values())[constant], list(blend.changes.values())[constant]


def _fashions(visits: int, life: int, hot: int, seed: int) -> list[tuple[str, str]]:
    """Visits of two items; the second is often one of a few that are in fashion for so many visits."""
    chance = np.random.default_rng(seed)
    touches = []
    for n in range(visits):
        first, second = chance.integers(0, 100, 2).tolist()
        if chance.random() < 0.8:
            second = int(chance.choice(np.random.default_rng((seed, n // life)).permutation(100)[:hot]))
        touches += [(f"{seed}-{n}", f"i{first}"), (f"{seed}-{n}", f"i{second}")]
    return touches


def test_the_memory_of_popularity_follows_when_fashions_become_short() -> None:
    model = BlendRanker()
    learn_all(model, _fashions(3_000, life=3_000, hot=20, seed=1))
    assert _leads(model.blend, MEMORY) == (MEMORIES[MIDDLE], 0)
    model.blend = Blend.restore(model.blend.snapshot())
    learn_all(model, _fashions(2_000, life=120, hot=3, seed=2))
    assert _leads(model.blend, MEMORY) == (MEMORIES[0], 1)
    assert model.blend.facts()["constants"]["memory"] == MEMORIES[0]
    again = Blend.restore(model.blend.snapshot())
    assert _leads(again, MEMORY) == (MEMORIES[0], 1)


def _returns(weeks: int, seed: int) -> tuple[list[tuple[str, str]], list[int]]:
    """Visits of six items of one kind by 60 visitors, who come back a week later for another kind."""
    chance = np.random.default_rng(seed)
    visits = [(week, visitor) for week in range(weeks) for visitor in range(60)]
    touches, seconds = [], []
    for week, visitor in visits:
        kind = chance.integers(30)
        for place, item in enumerate(chance.permutation(10)[:6].tolist()):
            touches.append((f"v{visitor}", f"{kind}-{item}"))
            seconds.append(week * 604_800 + visitor * 600 + place * 60)
    return touches, seconds


def test_what_a_visitor_did_a_week_ago_counts_less_where_he_comes_back_for_something_else() -> None:
    model = BlendRanker()
    assert _leads(model.blend, RECENCY) == (math.inf, 0)
    learn_all(model, *_returns(60, seed=1))
    leader, changes = _leads(model.blend, RECENCY)
    assert leader < math.inf
    assert _leads(Blend.restore(model.blend.snapshot()), RECENCY) == (leader, changes)
    assert model.blend.changes["memory"] == 0


def test_a_snapshot_with_the_race_of_memory_alone_goes_on_with_it() -> None:
    model = BlendRanker()
    learn_all(model, _fashions(400, life=120, hot=3, seed=1))
    model.blend.arrays.races.lead[MEMORY] = (0, 7)
    arrays = model.blend.snapshot()
    for name in [name for name in arrays if name.startswith("race.")]:
        arrays[name] = arrays[name][MEMORY]
    copy = Blend.restore(arrays)
    assert _leads(copy, MEMORY) == (MEMORIES[0], 7)
    assert _leads(copy, RECENCY) == (VALUES[RECENCY, FIRST[RECENCY]], 0)
    assert copy.arrays.races.seen[MEMORY].tolist() == model.blend.arrays.races.seen[MEMORY].tolist()


def test_a_race_between_equals_of_the_blend_keeps_its_leader() -> None:
    model = BlendRanker()
    learn_all(model, _fashions(4_000, life=1, hot=100, seed=3))
    assert model.blend.changes == {"memory": 0, "recency": 0}


def test_frozen_weights_keep_their_memory() -> None:
    model = BlendRanker(frozen=True)
    learn_all(model, _fashions(1_000, life=120, hot=3, seed=1))
    assert model.blend.arrays.counts[LESSONS] == 0
    assert _leads(model.blend, MEMORY) == (MEMORIES[MIDDLE], 0)


def test_a_snapshot_with_one_short_memory_fills_all() -> None:
    model = BlendRanker()
    learn_all(model, [("ann", "tent"), ("ann", "mat"), ("bob", "tent")])
    arrays = model.blend.snapshot()
    events = int(arrays["events"][0])
    arrays["fast"] = arrays["fast"][:, MIDDLE]
    for name in [name for name in arrays if name.startswith("race.")]:
        del arrays[name]
    copy = Blend.restore(arrays)
    fast, kept = (blend.arrays.tallies.fast[arrays["items"]] for blend in (copy, model.blend))
    assert fast == pytest.approx(widened(arrays["fast"], events))
    assert fast == pytest.approx(kept, abs=1e-2)  # after three touches nothing has faded yet
    assert _leads(copy, MEMORY) == (MEMORIES[MIDDLE], 0)

"""The blend as a whole against a second one, written in plain Python from what its docstrings say."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import blend
from models.blend_constants import CONSTANTS, VALUES
from models.blend_lists import ALL_TEACH, GRID, HITS, LESSONS, MANY_TEACH
from models.blend_ranker import HALF_LIFE_S, BlendRanker
from models.race import LEADER
from models.text_features import Facts
from tests.blending import PRICES, WORDS
from tests.plain_blend import PlainBlend
from tests.streams import ITEM_IDS

WITHIN = 2e-6  # of weights: the fast one scores in float32
CLOSE = 2e-5  # of scores, which rank in steps of half as much


class Event(NamedTuple):
    """A touch, or what the catalogue says of the item from then on."""

    user: int
    item: int
    half_lives: int = 8
    facts: Facts | None = None


# in whole half-lives: in both blends sums are exact then, and what is equal in one is so in the other
touches = st.builds(Event, st.integers(0, 4), st.integers(0, 9), st.integers(7, 9), st.none())
prices = st.sampled_from([*PRICES, 2.0**130])  # the last is more than float32 holds
known = st.builds(lambda word, price: Facts(word, price=price), st.sampled_from(["", *WORDS]), prices)
records = st.builds(Event, st.just(0), st.integers(0, 9), st.just(0), known)
events = st.lists(touches | touches | touches | records, min_size=5, max_size=60)


class Pair:
    """Both blends, told the same."""

    def __init__(self, ids: list[str], history: int = 20) -> None:
        self.ids, self.fast, self.plain = ids, BlendRanker(history=history), PlainBlend(ids, history)

    def follow(self, event: Event) -> None:
        name = self.ids[event.item]
        if event.facts is not None:
            self.fast.describe_one(name, {"title": event.facts.title or None, "price": event.facts.price})
            self.plain.describe(event.item, event.facts)
            return
        ts = int(event.half_lives * HALF_LIFE_S)
        self.fast.learn_one(str(event.user), name, 1, {"ts": ts})
        self.plain.learn(event.user, event.item, ts)

    def same_weights(self) -> bool:
        learner, counts = self.fast.blend.arrays.learner, self.fast.blend.arrays.counts
        counted = (counts[LESSONS], counts[HITS], self.fast.blend.drifts, *self.fast.blend.constants.values())
        assert counted == (self.plain.lessons, self.plain.hits, self.plain.drifts, *self.plain.leading)
        assert learner.weight == pytest.approx(np.array(self.plain.weight), abs=WITHIN)
        return bool(learner.square == pytest.approx(np.array(self.plain.square), abs=WITHIN))

    def same_list(self, user: int) -> bool:
        """Where a score is too near an edge of rounding for float32, it may fall to either side of it."""
        shown, expected = self.fast.recommend(str(user), len(self.ids)), self.plain.recommend(user, len(self.ids))
        plain = {self.ids[item]: (score, chance) for item, score, chance in expected}
        assert dict(shown) == pytest.approx({item: chance for item, (_, chance) in plain.items()}, abs=CLOSE)
        assert all(plain[a][0] > plain[b][0] - CLOSE for (a, _), (b, _) in pairwise(shown))
        sure = {item for item, (score, _) in plain.items() if 0.2 < (score * GRID + 0.5) % 1 < 0.8}
        assert [item for item, _ in shown if item in sure] == [item for item in plain if item in sure]
        if next(iter(plain), "") in sure:
            assert all(chance == pytest.approx(plain[item][1], abs=1e-6) for item, chance in shown if item in sure)
        return self.fast.recommend(str(user), 3) == shown[:3]


@given(
    events=events,
    history=st.sampled_from([3, 20]),
    lessons=st.sampled_from([0, ALL_TEACH - 1, MANY_TEACH - 1]),
    leads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
@settings(deadline=None)
def test_weights_and_lists_equal_the_plain_ones_step_by_step(
    events: list[Event], history: int, lessons: int, leads: tuple[int, int]
) -> None:
    pair = Pair(ITEM_IDS, history)
    pair.plain.lessons = pair.fast.blend.arrays.counts[LESSONS] = lessons
    pair.plain.leading = VALUES[range(len(CONSTANTS)), leads].tolist()
    pair.fast.blend.arrays.races.lead[:, LEADER] = leads
    for event in events:
        pair.follow(event)
        assert pair.same_weights()
    for user in pair.plain.histories.recent:
        assert pair.same_list(user)


def _fashions(events: int, chance: np.random.Generator) -> list[Event]:
    """What is in fashion for 60 touches, four times out of five; from the middle on that is what nobody has seen."""
    made = []
    for n in range(events):
        hot = n // 60 * 3 + int(chance.integers(3)) if chance.random() < 0.8 else int(chance.integers(25))
        made.append(Event(int(chance.integers(60)), hot if n > events // 2 else hot % 25))
    return made


def test_a_long_stream_with_a_drift_and_a_change_of_the_lead_equals_the_plain_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """More visitors than vote, more items than are listed as popular or fit into a list."""
    monkeypatch.setattr(blend, "SAMPLE", 4)
    pair = Pair([f"i{(7919 * n) % 5_003}" for n in range(200)], history=6)
    for event in _fashions(2_200, np.random.default_rng(5)):
        pair.follow(event)
    assert pair.same_weights()
    assert (pair.plain.drifts, pair.plain.changes) == (1, [2, 0])
    assert pair.plain.hits < pair.plain.lessons
    assert all(pair.same_list(user) for user in range(60))

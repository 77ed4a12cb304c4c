from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.evaluation import Stream
from models.postings import FIRST, WIDTH
from models.session_knn import SessionKNN, run
from models.session_votes import kth_largest
from tests.streams import ITEM_IDS, TOUCHES, Touch, queries, shown, stream_of


class PlainKNN:
    """The slow reference: lists of sessions, compared one after another."""

    def __init__(
        self,
        sample: int,
        neighbours: int,
        length: int,
        half_life_s: float = math.inf,
        history: int = 50,
        max_sessions: int = 1000,
    ) -> None:
        self.sample, self.neighbours, self.length, self.half_life_s = sample, neighbours, length, half_life_s
        self.history, self.max_sessions = history, max_sessions
        self.rings: dict[str, list[str]] = {}
        self.place: dict[str, int] = {}  # of each session's ring
        self.postings: dict[str, list[int]] = {}
        self.seen: dict[str, int] = {}
        self.ts: dict[int, int] = {}  # of the latest touch, by ring

    def learn(self, user: str, item: str, ts: int = 0) -> None:
        ring = self.rings.pop(user, None)
        if ring is None:
            ring = []
            self.place[user] = len(self.rings)
            if len(self.rings) >= self.max_sessions:
                silent = next(iter(self.rings))
                del self.rings[silent]
                self.place[user] = self.place.pop(silent)
        if item not in ring:
            self.postings.setdefault(item, []).insert(0, self.place[user])
        self.seen[item] = self.seen.get(item, 0) + 1
        self.rings[user] = [item, *ring][: self.history]
        self.ts[self.place[user]] = ts

    def similarities(self, query: list[str], now: int) -> dict[int, tuple[float, int]]:
        """By ring, in the order met: similarity, and the place of the query item by which it was met.

        A session is half as similar for each half-life since its latest touch, though not less than by 20 of them.
        """
        kept: dict[int, tuple[float, int]] = {}
        for position, item in enumerate(query, 1):
            for ring in dict.fromkeys(self.postings.get(item, [])[: self.sample]):
                similarity, first = kept.get(ring, (0.0, position))
                kept[ring] = (similarity + 1 / position, first)
        left = {ring: 0.5 ** min(max(now - self.ts[ring], 0) / self.half_life_s, 20) for ring in kept}
        return {ring: (similarity * left[ring], first) for ring, (similarity, first) in kept.items()}

    def best(self, user: str) -> list[tuple[str, float]]:
        query = list(dict.fromkeys(self.rings.get(user, [])))[: self.length]
        kept = self.similarities(query, self.ts.get(self.place.get(user, -1), 0))
        owners = {place: user for user, place in self.place.items()}
        scores: dict[str, float] = {}
        for ring in sorted(kept, key=lambda ring: -float(f"{kept[ring][0]:.5g}"))[: self.neighbours]:
            similarity, first = kept[ring]
            items = self.rings[owners[ring]]
            for item in dict.fromkeys(items if query[first - 1] in items else ()):
                scores[item] = scores.get(item, 0.0) + similarity / first
        total = sum(self.seen.values())
        scores = {item: score * math.log(total / self.seen[item]) for item, score in scores.items()}
        ranked = sorted(scores.items(), key=lambda cell: (-float(f"{cell[1]:.6g}"), cell[0]))
        return [(item, score) for item, score in ranked if score > 0 and item != query[0]]


half_lives = st.sampled_from([4.0, math.inf])
parameters = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), half_lives)


def _touches(stream: Stream) -> list[tuple[int, int, int]]:
    return list(zip(stream.key.tolist(), stream.item.tolist(), stream.touches().ts.tolist(), strict=True))


def agree(got: list[str], plain: list[tuple[str, float]], k: int) -> None:
    """Same items in the same order, but that scores closer than the rounding may change places."""
    scores = dict(plain)
    assert len(got) == min(k, len(plain))
    for item, (_, expected) in zip(got, plain, strict=False):
        assert scores[item] == pytest.approx(expected, rel=1e-5)


@given(touches=TOUCHES, parameters=parameters, k=st.integers(1, 6))
@settings(deadline=None)
def test_kernel_equals_the_plain_search_step_by_step(
    touches: list[Touch], parameters: tuple[int, int, int, float], k: int
) -> None:
    stream = stream_of(touches)
    lists = run(stream, k, *parameters)
    plain = PlainKNN(*parameters)
    rows = {n: row for (n, _, _), row in zip(queries(stream), lists, strict=True)}
    for n, (key, item, ts) in enumerate(_touches(stream)):
        if n in rows:
            agree(shown(rows[n]), plain.best(str(key)), k)
        plain.learn(str(key), ITEM_IDS[item], ts)


@given(touches=TOUCHES, parameters=parameters, history=st.integers(1, 4), sessions=st.integers(1, 4))
@settings(deadline=None)
def test_class_equals_the_plain_search_also_where_its_bounds_forget(
    touches: list[Touch], parameters: tuple[int, int, int, float], history: int, sessions: int
) -> None:
    stream = stream_of(touches)
    plain = PlainKNN(*parameters, history, sessions)
    model = SessionKNN(*parameters, history=history, blocks=100, max_sessions=sessions, max_items=10)
    for key, item, ts in _touches(stream):
        if plain.rings.get(str(key), [""])[0] != ITEM_IDS[item]:
            plain.learn(str(key), ITEM_IDS[item], ts)
        model.learn_one(str(key), ITEM_IDS[item], 1, {"ts": ts})
        for user in map(str, range(5)):
            expected = plain.best(user)
            got = model.recommend(user)
            agree([item for item, _ in got], expected, 20)
            assert dict(got) == pytest.approx(dict(expected), rel=1e-5)


def test_sessions_beyond_the_postings_are_forgotten() -> None:
    model = SessionKNN(blocks=1)
    for user in range(WIDTH - FIRST):
        model.learn_one(user, "tent", 1)
    model.learn_one("late", "tent", 1)  # opens the second block, which takes the place of the first
    model.learn_one(0, "mat", 1)
    assert model.recommend("late") == []


@given(before=TOUCHES, after=TOUCHES)
@settings(deadline=None)
def test_a_forgotten_session_leaves_what_there_would_be_without_it(before: list[Touch], after: list[Touch]) -> None:
    """Whenever it is forgotten, also for those who come later, one of whom gets its ring."""
    model, other = (SessionKNN(sample=20, neighbours=20, length=5, blocks=100, max_items=10) for _ in range(2))
    first, rest = ([(str(key), ITEM_IDS[item]) for key, item, _ in touches] for touches in (before, after))
    for event in first:
        model.learn_one(*event)
        if event[0] != "0":
            other.learn_one(*event)
    model.forget_one("0")
    assert model.recommend("0") == []
    for event in rest:
        model.learn_one(*event)
        other.learn_one(*event)
    for user in map(str, range(5)):
        expected = dict(other.recommend(user))
        assert dict(model.recommend(user)) == pytest.approx(expected, rel=1e-5)


def test_brings_back_what_the_session_saw_before() -> None:
    model = SessionKNN(blocks=100, max_sessions=10, max_items=10)
    for item in ("tent", "mat"):
        model.learn_one("ann", item, 1)
    assert [item for item, _ in model.recommend("ann")] == ["tent"]


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=40), k=st.integers(1, 40))
@settings(deadline=None)
def test_kth_largest_equals_a_sort(values: list[int], k: int) -> None:
    k = min(k, len(values))
    order = np.array(values, dtype=np.float32)
    assert kth_largest(order, k) == sorted(values, reverse=True)[k - 1]
    assert sorted(order.tolist()) == sorted(values)

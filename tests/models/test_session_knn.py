from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.session_knn import SESSION_ITEMS, SessionKNN, run
from tests.streams import ITEM_IDS, TOUCHES, Touch, queries, shown, stream_of


class PlainKNN:
    """The slow reference: a list of all clicks, searched from the end for every query."""

    def __init__(self, sample: int, neighbours: int, length: int, max_clicks: int, max_sessions: int) -> None:
        self.sample, self.neighbours, self.length = sample, neighbours, length
        self.max_clicks, self.max_sessions = max_clicks, max_sessions
        self.clicks: list[tuple[int, str]] = []
        self.numbers: dict[str, int] = {}
        self.recent: dict[str, list[str]] = {}
        self.touched: dict[int, int] = {}
        self.seen: dict[str, int] = {}
        self.sessions = 0

    def learn(self, user: str, item: str) -> None:
        if user not in self.numbers or self.forgotten(self.numbers[user]):
            self.numbers[user] = self.sessions
            self.sessions += 1
        number = self.numbers[user]
        self.seen[item] = self.seen.get(item, 0) + 1
        self.touched[number] = sum(self.seen.values())
        if item not in self.items(number):
            self.clicks.append((number, item))
        items = self.recent.pop(user, [])
        if not items and len(self.recent) >= self.max_sessions:
            del self.recent[next(iter(self.recent))]
        self.recent[user] = [item, *items][: self.length]

    def forgotten(self, number: int) -> bool:
        return number + self.max_sessions < self.sessions

    def log(self) -> list[tuple[int, str]]:
        return self.clicks[-self.max_clicks :][::-1]

    def items(self, number: int) -> list[str]:
        return [item for session, item in self.log() if session == number][:SESSION_ITEMS]

    def similarities(self, query: list[str]) -> dict[int, float]:
        kept: dict[int, float] = {}
        for item in dict.fromkeys(query):
            posting = [session for session, other in self.log() if other == item and not self.forgotten(session)]
            for session in list(dict.fromkeys(posting))[: self.sample]:
                share = 1 / (query.index(item) + 1)
                oldest = min(kept, key=self.touched.__getitem__) if kept else -1
                if session in kept:
                    kept[session] += share
                elif len(kept) < self.sample:
                    kept[session] = share
                elif self.touched[session] > self.touched[oldest]:
                    del kept[oldest]
                    kept[session] = share
                else:
                    break
        return kept

    def best(self, user: str) -> list[tuple[str, float]]:
        query = self.recent.get(user, [])
        kept = self.similarities(query)
        nearest = sorted(kept, key=lambda session: (-kept[session], -self.touched[session]))[: self.neighbours]
        scores: dict[str, float] = {}
        for session in nearest:
            items = self.items(session)
            shared = [query.index(item) + 1 for item in items if item in query]
            for item in items if shared else ():
                scores[item] = scores.get(item, 0.0) + kept[session] / min(shared)
        total = sum(self.seen.values())
        scores = {item: score * math.log(total / self.seen[item]) for item, score in scores.items()}
        ranked = sorted(scores.items(), key=lambda cell: (-float(f"{cell[1]:.6g}"), cell[0]))
        return [(item, score) for item, score in ranked if score > 0 and item != query[0]]


parameters = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))


def agree(got: list[str], plain: list[tuple[str, float]], k: int) -> None:
    """Same items in the same order, but that scores closer than the rounding may change places."""
    scores = dict(plain)
    assert len(got) == min(k, len(plain))
    for item, (_, expected) in zip(got, plain, strict=False):
        assert scores[item] == pytest.approx(expected, rel=1e-5)


@given(touches=TOUCHES, parameters=parameters, k=st.integers(1, 6))
@settings(deadline=None)
def test_kernel_equals_the_plain_search_step_by_step(
    touches: list[Touch], parameters: tuple[int, int, int], k: int
) -> None:
    stream = stream_of(touches)
    lists = run(stream, k, *parameters)
    plain = PlainKNN(*parameters, max_clicks=1000, max_sessions=1000)
    rows = {n: row for (n, _, _), row in zip(queries(stream), lists, strict=True)}
    for n, (key, item) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), strict=True)):
        if n in rows:
            agree(shown(rows[n]), plain.best(str(key)), k)
        plain.learn(str(key), ITEM_IDS[item])


@given(touches=TOUCHES, parameters=parameters, clicks=st.integers(1, 12), sessions=st.integers(1, 4))
@settings(deadline=None)
def test_class_equals_the_plain_search_also_where_its_bounds_forget(
    touches: list[Touch], parameters: tuple[int, int, int], clicks: int, sessions: int
) -> None:
    stream = stream_of(touches)
    plain = PlainKNN(*parameters, max_clicks=clicks, max_sessions=sessions)
    model = SessionKNN(*parameters, max_clicks=clicks, max_sessions=sessions, max_items=10)
    for key, item in zip(stream.key.tolist(), stream.item.tolist(), strict=True):
        if plain.recent.get(str(key), [""])[0] != ITEM_IDS[item]:
            plain.learn(str(key), ITEM_IDS[item])
        model.learn_one(str(key), ITEM_IDS[item], 1)
        for user in map(str, range(5)):
            expected = plain.best(user)
            got = model.recommend(user)
            agree([item for item, _ in got], expected, 20)
            assert dict(got) == pytest.approx(dict(expected))


def test_a_session_longer_than_is_followed_back_counts_once_per_item() -> None:
    model = SessionKNN(max_clicks=1000, max_sessions=10, max_items=500)
    for n in range(SESSION_ITEMS + 50):
        model.learn_one("robot", f"i{n:03}", 1)
    model.learn_one("robot", "i000", 1)
    model.learn_one("ann", "i000", 1)
    assert len(model.recommend("ann", 1000)) == SESSION_ITEMS - 1


def test_brings_back_what_the_session_saw_before() -> None:
    model = SessionKNN(max_clicks=100, max_sessions=10, max_items=10)
    for item in ("tent", "mat"):
        model.learn_one("ann", item, 1)
    assert [item for item, _ in model.recommend("ann")] == ["tent"]

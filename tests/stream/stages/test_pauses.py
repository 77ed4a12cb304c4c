"""A batch that is learned with pauses: what others do in them changes nothing, and none of it is missed by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stream.copying import Piece
from stream.demo.shop import Shop
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages import reclaiming
from stream.stages.learned import Learned
from stream.stages.stepwise import Stepwise
from stream.stages.user_shard import UserRules, UserShard
from tests.records import event, publish, stream

EVENTS = list(Shop(seed=5, users=60, concurrent=6).events(900))
BEFORE = 400
RANKINGS = pytest.mark.parametrize("ranking", ["blend", "covisit"])


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.stages.ranking.STEP", 50)


def pipeline(ranking: str) -> LocalPipeline:
    """Rows, and a shard, that have learned the first events."""
    made = LocalPipeline(MemoryStore(), UserRules(ranking=ranking), partitions=1, item_partitions=1)
    publish(made, EVENTS[:BEFORE])
    return made


def begun(made: LocalPipeline) -> Stepwise[Learned]:
    """The other events as one batch."""
    return made.users.learning(0, stream(EVENTS[BEFORE:], BEFORE))


def finished(work: Stepwise[Learned]) -> tuple[Learned, int]:
    """What it makes, and how many pauses were left."""
    pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value, pauses
        pauses += 1


def restored(made: LocalPipeline, pieces: list[Piece]) -> UserShard:
    """The shard that a copy makes."""
    arrays: dict[str, list[NDArray[Any]]] = {}
    for name, piece in pieces:
        arrays.setdefault(name, []).append(piece)
    made.users.open(0, {name: np.concatenate(parts) for name, parts in arrays.items()})
    return made.users.shards[0]


@RANKINGS
def test_pauses_change_nothing(ranking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stepwise, at_once = pipeline(ranking), pipeline(ranking)
    learned, pauses = finished(begun(stepwise))
    assert pauses > (5 if ranking == "blend" else 0)
    monkeypatch.setattr("stream.stages.ranking.STEP", 100_000)
    whole, none = finished(begun(at_once))
    assert none == 0
    assert learned.sends == whole.sends
    assert np.array_equal(learned.users, whole.users)
    copies = [made.users.copy(0).whole() for made in (stepwise, at_once)]
    assert {name for name in copies[0] if copies[0][name].tobytes() != copies[1][name].tobytes()} == set()


@RANKINGS
def test_a_copy_that_begins_in_a_pause_has_what_is_learned_after_it(ranking: str) -> None:
    made = pipeline(ranking)
    work = begun(made)
    next(work)
    copying = made.users.copy(0)
    pieces = list(copying.bulk())
    finished(work)
    pieces += copying.rest()
    copying.end()
    before = made.users.shards[0]
    after = restored(made, pieces)
    columns = before.columns()
    del columns["profiles.category"]  # cells that are not in use differ
    for name, column in columns.items():
        assert np.array_equal(column[: before.users.size], after.columns()[name][: before.users.size]), name
    assert after.counts == before.counts


def test_a_copy_that_begins_before_lists_are_ranked_has_them() -> None:
    made = pipeline("blend")
    learned = made.users.learn(0, stream(EVENTS[BEFORE:], BEFORE))
    copying = made.users.copy(0)
    pieces = list(copying.bulk())
    made.users.rank(0, learned.users, learned.ts_ms, force=True)
    pieces += copying.rest()
    copying.end()
    before = made.users.shards[0]
    after = restored(made, pieces)
    users = before.users.indices()
    for name in ("last", "offers", "segment", "profiled_ms", "pushed_ms"):
        assert np.array_equal(getattr(before, name)[users], getattr(after, name)[users]), name


def collect(made: LocalPipeline, steps: int = 1_000_000) -> None:
    """A collection, or so many slices of one."""
    reclaimer = made.space.reclaimer
    reclaimer.step()
    while reclaimer.running and steps > 1:
        reclaimer.step()
        steps -= 1


@RANKINGS
@pytest.mark.parametrize("early", [None, *range(0, 14, 2)])  # slices of a collection before the batch; None: none
def test_what_deltas_name_is_kept_although_nothing_else_refers_to_it(
    ranking: str, early: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items of the batch, and those that it pushes out of a ring, when a collection ends in a pause."""
    popular = [event(f"v{n % 5}", f"p{n % 60}", at=n) for n in range(120)]
    events = [*popular, *[event("u", f"i{n}", at=120 + n) for n in range(200)]]
    known = len(popular) + 3
    monkeypatch.setattr("stream.stages.user.USERS", 1)
    sent = []
    for collects in (True, False):
        with monkeypatch.context() as patch:
            rules = UserRules(ranking=ranking, history=3)
            made = LocalPipeline(MemoryStore(), rules, partitions=1, item_partitions=1)
            made.users.learn(0, stream(events[:known]))  # no item stage hears of it: there are no rows
            patch.setattr(reclaiming, "GROWTH", 0.0)
            patch.setattr(reclaiming, "LEAST", 1 if collects and early is not None else 1_000_000)
            if early:
                collect(made, early)
            work = made.users.learning(0, stream(events[known:], known))
            for pause in range(10):
                try:
                    next(work)
                except StopIteration as end:
                    learned: Learned = end.value
                    break
                if pause == (1 if ranking == "blend" else 0):
                    patch.setattr(reclaiming, "LEAST", 1 if collects else 1_000_000)
                    collect(made)
            sent.append(learned.sends)
    assert sent[0] == sent[1]

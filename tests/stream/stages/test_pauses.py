"""A batch that is learned with pauses: what others do in them changes nothing, and none of it is missed by them."""

from __future__ import annotations

import numpy as np
import pytest

from stream.demo.shop import Shop
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages import reclaiming
from stream.stages.learned import Learned
from stream.stages.stepwise import Stepwise
from stream.stages.user_shard import UserRules
from tests.records import event, publish, stream

EVENTS = list(Shop(seed=5, users=60, concurrent=6).events(900))
BEFORE = 400
DAYS = 30 * 86_400
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
    arrays: dict[str, list[np.ndarray]] = {}
    for name, piece in pieces:
        arrays.setdefault(name, []).append(piece)
    before = made.users.shards[0]
    made.users.open(0, {name: np.concatenate(parts) for name, parts in arrays.items()})
    after = made.users.shards[0]
    columns = before.columns()
    del columns["profiles.category"]  # cells that are not in use differ
    for name, column in columns.items():
        assert np.array_equal(column[: before.users.size], after.columns()[name][: before.users.size]), name
    assert after.counts == before.counts


@RANKINGS
def test_an_item_that_is_being_learned_is_kept(ranking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaiming, "LEAST", 1)
    monkeypatch.setattr(reclaiming, "GROWTH", 0.0)
    made = pipeline(ranking)
    space = made.space
    names = [f"new-{n}" for n in range(200)]
    records = stream([event("u", name, at=DAYS + n) for n, name in enumerate(names)], BEFORE)
    work = made.users.learning(0, records)
    next(work)
    space.reclaimer.restart()
    space.reclaimer.step()
    while space.reclaimer.running:  # a whole collection in one pause
        space.reclaimer.step()
    assert set(names) <= set(space.ids.texts(space.ids.indices()))
    learned, _ = finished(work)
    assert any(send.role == "covisits" and b"new-199" in send.value for send in learned.sends)

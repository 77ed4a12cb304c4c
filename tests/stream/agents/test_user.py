"""The user agent reads events again after a crash: item rows know already what it is about to be tested on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from stream.agents.base import step_by_step
from stream.demo.shop import Shop
from stream.hindsight import Hindsight
from stream.local import LocalPipeline, LocalRecord
from stream.memory_store import MemoryStore
from stream.shard import Shard
from stream.stages.stepwise import Stepwise
from stream.stages.user_shard import UserShard
from tests.records import publish, record, stream
from tests.user_agents import user_agent

EVENTS = list(Shop(seed=3, users=60, concurrent=6).events(900))
FORGET = {"control": "forget", "user": next(event["user_id"] for event in EVENTS if "user_id" in event)}
DAY = 86_400
LEARNED = 600
BATCH = 60


class Survivor:
    """Item rows that have learned the first events, and a user shard that begins again; `told` of other workers."""

    def __init__(self, told: int = -1) -> None:
        self.pipeline = LocalPipeline(MemoryStore(), partitions=1, item_partitions=1, batch=BATCH)
        publish(self.pipeline, EVENTS[:LEARNED])
        self.asked = 0

        async def heard(_: int) -> int:
            self.asked += 1
            return told

        self.agent = user_agent(self.pipeline, Hindsight(self.pipeline.items, heard))
        self.pipeline.users.open(0, None)

    @property
    def state(self) -> UserShard:
        return self.pipeline.users.shards[0]

    def read(self, records: list[LocalRecord]) -> None:
        shard = Shard("events", 0, 0.0, next=0, loads=1)
        for start in range(0, len(records), BATCH):
            asyncio.run(self.agent.process(shard, cast(Any, records[start : start + BATCH])))


def test_nobody_is_tested_on_what_rows_have_learned_already() -> None:
    survivor = Survivor()
    prior = survivor.state.blend.weights
    survivor.read(stream(EVENTS)[:LEARNED])
    assert survivor.state.counts["learned"] == LEARNED
    assert survivor.state.blend.lessons == 0
    assert np.array_equal(survivor.state.blend.weights, prior)
    assert survivor.state.hits.tolist() == [0, 0, 0]
    survivor.read(stream(EVENTS)[LEARNED:])
    assert survivor.state.blend.lessons > 100
    assert survivor.state.hits[0] > 100


def test_a_fetch_that_goes_beyond_what_rows_know_teaches_with_its_rest() -> None:
    apart, together = Survivor(), Survivor()
    apart.read(stream(EVENTS)[:LEARNED])
    apart.read(stream(EVENTS)[LEARNED:])
    together.read(stream(EVENTS)[: LEARNED - BATCH // 2])
    together.read(stream(EVENTS)[LEARNED - BATCH // 2 :])
    assert together.state.blend.lessons == apart.state.blend.lessons > 100
    assert together.state.counts["learned"] == len(EVENTS)


@pytest.mark.parametrize(("told", "lessons"), [(2 * LEARNED, 0), (-1, 1)])
def test_rows_of_other_workers_count_as_far_as_these_have_told(told: int, lessons: int) -> None:
    survivor = Survivor(told)
    survivor.pipeline.items.close(0)
    survivor.read(stream(EVENTS)[:LEARNED])
    assert min(survivor.state.blend.lessons, 1) == lessons
    assert survivor.asked == (LEARNED // BATCH if lessons == 0 else 1)


def test_what_was_decoded_in_slices_teaches_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.agents.user.DECODED", 7)
    values: list[bytes | dict[str, Any]] = [
        *EVENTS[:200],
        FORGET,
        *EVENTS[200:211],
        b"nonsense",
        FORGET,
        *EVENTS[211:500],
    ]
    records = [record(offset, value, at=DAY) for offset, value in enumerate(values)]
    sliced, whole = Survivor(), Survivor()
    sliced.read(records)

    async def left_to_the_stage(_: Any) -> None:
        return None

    monkeypatch.setattr(whole.agent, "_decode", left_to_the_stage)
    whole.read(records)
    assert sliced.state.counts["controls"] == 2
    assert sliced.state.counts["dead:not_json"] == 1
    assert sliced.state.counts == whole.state.counts
    copies = [survivor.pipeline.users.copy(0).whole() for survivor in (sliced, whole)]
    assert copies[0].keys() == copies[1].keys()
    differ = {name for name in copies[0] if copies[0][name].tobytes() != copies[1][name].tobytes()}
    assert differ == set()


@pytest.mark.parametrize("lost", [False, True])
def test_others_run_while_a_large_batch_is_learned(monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    monkeypatch.setattr("stream.agents.user.LESSON", 100)
    monkeypatch.setattr("stream.agents.user.DECODED", 100)
    survivor, shard = Survivor(), Shard("events", 0, 0.0, next=0, loads=1)
    learned: list[int] = []

    async def other() -> None:
        while not learned or learned[-1] < 200:
            learned.append(survivor.state.counts["learned"])
            shard.lost = lost and learned[-1] > 0
            if shard.lost:
                break
            await asyncio.sleep(0)

    async def both() -> None:
        await asyncio.gather(survivor.agent.process(shard, cast(Any, stream(EVENTS)[:500])), other())

    asyncio.run(both())
    assert {100} <= set(learned) <= {0, 100, 200}  # `other` came in between
    assert survivor.state.counts["learned"] == (100 if lost else 500)


@pytest.mark.parametrize("lost_after", [0, 2, None])
def test_of_a_lost_shard_work_is_left_undone(lost_after: int | None) -> None:
    shard, done = Shard("events", 0, 0.0), []

    def work() -> Stepwise[str]:
        try:
            for step in range(4):
                shard.lost = step == lost_after
                done.append(str(step))
                yield
            return "made"
        finally:
            done.append("closed")

    made = asyncio.run(step_by_step(shard, work()))
    assert made == ("made" if lost_after is None else None)
    assert done == [*"0123"[: 4 if lost_after is None else lost_after + 1], "closed"]

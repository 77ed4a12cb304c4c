"""What the global agent could not write is complete in its next publication."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from stream.agents import global_ as global_agents
from stream.agents.global_ import GlobalAgent
from stream.errors import UnavailableError
from stream.keys import Keys
from stream.local import LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.shard import Shard
from stream.stages.global_ import GlobalStage
from stream.stages.sends import Send
from stream.stats import Stats
from stream.wire import Popular, encode_global
from tests.fences import Group

KEYS = Keys()
ENDED, STAYS = KEYS.trending(category="camping"), KEYS.trending(category="kitchen")
SURPLUS = KEYS.segment(2)
POPULAR = Popular(0, 7, 1_750_000_000, ["tent", "mug"], [3.0, 1.0], [4, 4], ["camping", "kitchen"])


class Servers(MemoryStore):
    """Redis and Kafka in memory; the next write and the next record may end otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.refusal: BaseException | None = None
        self.sent: list[Send] = []

    async def flush(self, batch: WriteBatch) -> None:
        if self.refusal is not None:
            raise self.refusal
        await super().flush(batch)

    async def send(self, sends: Sequence[Send]) -> None:
        self.sent += sends


def shard() -> Shard:
    return Shard("global", 0, 0.0)


async def agent(servers: Servers, group: Group | None = None) -> GlobalAgent:
    """With two trending lists in Redis, one of which has ended since, and a segment too many."""
    stage = GlobalStage(KEYS, segments=2)
    stage.open(0, None)
    stage.learn(0, [LocalRecord(0, 0, None, encode_global(POPULAR))])
    made = GlobalAgent("global", stage, cast(Any, servers), servers, Stats(), cast(Any, Group()))
    await made.publish(shard())
    writes = WriteBatch()
    writes.hset(SURPLUS, {b"size": b"1"}, None)
    await servers.flush(writes)
    stage.withdraw("tent")
    stage.surplus.add(2)
    servers.sent.clear()
    made.fence = cast(Any, group or Group())
    return made


@pytest.mark.parametrize("refusal", [UnavailableError("away"), asyncio.CancelledError()])
async def test_what_was_to_be_taken_away_is_taken_away_when_redis_refused_it_at_first(refusal: BaseException) -> None:
    servers = Servers()
    global_agent = await agent(servers)
    servers.refusal = refusal
    for _ in range(2):
        with pytest.raises(type(refusal)):
            await global_agent.publish(shard())
    servers.refusal = None
    assert {ENDED, STAYS, SURPLUS} <= set(servers)
    await global_agent.publish(shard())
    assert STAYS in set(servers)
    assert not {ENDED, SURPLUS} & set(servers)
    assert not global_agent.stage.changed
    assert global_agent.stage.listed == {("all", ""), ("category", "kitchen")}


async def test_a_list_that_may_have_been_written_is_taken_away_later() -> None:
    servers = Servers()
    global_agent = await agent(servers)
    stage = global_agent.stage
    stage.withdraw("tent", withdrawn=False)
    servers.refusal = UnavailableError("after it had been written")
    with pytest.raises(UnavailableError):
        await global_agent.publish(shard())
    servers.refusal = None
    stage.withdraw("tent")
    await global_agent.publish(shard())
    assert ENDED not in set(servers)


async def test_without_leave_nothing_is_written_or_said() -> None:
    servers = Servers()
    global_agent = await agent(servers, Group(leaves=0))
    await global_agent.publish(shard())
    assert {ENDED, SURPLUS} <= set(servers)
    assert servers.sent == []
    assert global_agent.stage.changed


async def test_what_came_late_but_to_nobody_else_is_written_again() -> None:
    servers = Servers()
    global_agent = await agent(servers, Group(overtaken=2))
    await global_agent.publish(shard())
    assert not {ENDED, SURPLUS} & set(servers)
    assert not global_agent.stage.changed
    assert servers.sent == []


async def test_the_owner_is_asked_to_write_again_what_came_late() -> None:
    servers = Servers()
    global_agent = await agent(servers, Group(leaves=1, overtaken=1))
    await global_agent.publish(shard())
    (request,) = servers.sent
    assert (request.role, request.partition) == ("global", 0)

    owner = GlobalStage(KEYS, segments=2)
    owner.open(0, None)
    owner.learn(0, [LocalRecord(0, 0, None, encode_global(POPULAR))])
    before, owner.changed = owner.publish(), False
    owner.learn(0, [LocalRecord(1, 0, None, request.value)])
    assert owner.changed
    assert owner.publish().writes.frames == before.writes.frames


async def test_others_run_while_a_large_batch_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(global_agents, "SLICE_BYTES", 1)
    global_agent, shard_ = await agent(Servers()), shard()
    later = [encode_global(msgspec.structs.replace(POPULAR, ts=POPULAR.ts + n)) for n in (1, 2, 3)]

    async def lose() -> None:
        assert global_agent.stage.newest == POPULAR.ts + 1
        shard_.lost = True

    batch = [LocalRecord(n, 0, None, value) for n, value in enumerate(later)]
    await asyncio.gather(global_agent.process(shard_, cast(Any, batch)), lose())
    assert global_agent.stage.newest == POPULAR.ts + 1

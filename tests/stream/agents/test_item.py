"""What the item agent could not publish belongs to its next publication; what it wrote too late is asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from stream.agents import item as item_agents
from stream.agents.item import ItemAgent
from stream.errors import UnavailableError
from stream.keys import Keys
from stream.local import LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.shard import Shard
from stream.stages import item
from stream.stages.item import ItemStage
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from stream.stats import Stats
from stream.wire import DOUBT, FLUSH, Popular, decode_global
from tests.fences import Group
from tests.records import event, stream

KEYS = Keys()
AWAY = UnavailableError("away")


class Servers(MemoryStore):
    """Redis and Kafka in memory, which fail when told."""

    def __init__(self) -> None:
        super().__init__()
        self.redis_away = self.kafka_away = False
        self.sent: list[Send] = []

    async def flush(self, batch: WriteBatch) -> None:
        if self.redis_away:
            raise AWAY
        await super().flush(batch)

    async def send(self, sends: Sequence[Send]) -> None:
        if self.kafka_away:
            raise AWAY
        self.sent += sends

    def popular(self) -> set[str]:
        messages = [decode_global(send.value) for send in self.sent if send.role == "global"]
        return {item for message in messages if isinstance(message, Popular) for item in message.items}


def shard() -> Shard:
    return Shard("covisits", 0, 0.0)


def agent(servers: Servers, group: Group | None = None) -> ItemAgent:
    """With a shard that has learned of three items."""
    users = UserStage(ItemSpace(1), KEYS, UserRules(), 1)
    users.open(0, None)
    learned = users.learn(0, stream([event("u1", "tent", "bag", "stove", at=1)]))
    values = [send.value for send in learned.sends if send.role == "covisits"]
    stage = ItemStage(ItemSpace(1), KEYS, 1)
    stage.open(0, None)
    stage.learn(0, [LocalRecord(n, 0, None, value) for n, value in enumerate(values)])
    return ItemAgent("covisits", stage, cast(Any, servers), servers, Stats(), cast(Any, group or Group()))


@pytest.mark.parametrize("away", ["redis_away", "kafka_away"])
async def test_what_failed_is_published_by_the_next_round(away: str) -> None:
    servers = Servers()
    item_agent = agent(servers)
    setattr(servers, away, True)
    with pytest.raises(UnavailableError):
        await item_agent.publish(shard())
    setattr(servers, away, False)
    servers.sent.clear()
    for key in list(servers):  # and what was written may be lost meanwhile
        servers._drop(key)
    await item_agent.publish(shard())
    assert set(servers) == {KEYS.similar(item) for item in ("tent", "bag", "stove")}
    assert servers.popular() == {"tent", "bag", "stove"}


async def test_what_succeeded_is_not_published_again() -> None:
    servers = Servers()
    item_agent = agent(servers)
    await item_agent.publish(shard())
    assert servers.popular() == {"tent", "bag", "stove"}
    servers.sent.clear()
    for key in list(servers):
        servers._drop(key)
    await item_agent.publish(shard())
    assert (list(servers), servers.sent) == ([], [])


async def test_rows_that_came_late_are_asked_for_again() -> None:
    servers = Servers()
    await agent(servers, Group(leaves=1, overtaken=1)).publish(shard())
    assert servers.sent == [Send("covisits", DOUBT, partition=0)]


async def test_rows_that_came_late_but_to_nobody_else_are_written_again() -> None:
    servers, writes = Servers(), []
    flush = servers.flush

    async def noted(batch: WriteBatch) -> None:
        writes.append(len(batch))
        await flush(batch)

    servers.flush = noted  # type: ignore[method-assign]
    await agent(servers, Group(overtaken=1)).publish(shard())
    assert writes == [3, 3]
    assert servers.popular() == {"tent", "bag", "stove"}
    assert {send.role for send in servers.sent} == {"global"}


async def test_it_goes_on_asking_while_kafka_is_away() -> None:
    servers = Servers()
    tries = 0
    send = servers.send

    async def away_at_first(sends: Sequence[Send]) -> None:
        nonlocal tries
        tries += 1
        servers.kafka_away = tries < 3
        await send(sends)

    servers.send = away_at_first  # type: ignore[method-assign]
    await agent(servers, Group(leaves=1, overtaken=1)).publish(shard())
    assert servers.sent == [Send("covisits", DOUBT, partition=0)]


async def test_everything_is_published_only_when_what_is_under_way_has_arrived() -> None:
    servers, arrives = Servers(), asyncio.Event()
    item_agent, flush = agent(servers), servers.flush

    async def slow(batch: WriteBatch) -> None:
        await arrives.wait()
        await flush(batch)

    servers.flush = slow  # type: ignore[method-assign]
    regular = asyncio.create_task(item_agent.publish(shard()))
    await asyncio.sleep(0)
    item_agent.stage.space.unpublished[:] = False  # the request comes when that slice is the last
    asked = asyncio.create_task(item_agent.publish(shard()))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not asked.done()
    arrives.set()
    await asyncio.gather(regular, asked)
    assert set(servers) == {KEYS.similar(item) for item in ("tent", "bag", "stove")}


async def test_a_doubt_waits_for_the_next_round() -> None:
    servers = Servers()
    item_agent = agent(servers)
    await item_agent.process(shard(), [cast(Any, LocalRecord(99, 0, None, DOUBT))])
    assert (list(servers), servers.sent) == ([], [])
    await item_agent.publish(shard())
    assert set(servers) == {KEYS.similar(item) for item in ("tent", "bag", "stove")}


@pytest.mark.parametrize("lost", [False, True])
async def test_others_run_while_a_large_batch_is_applied(monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    monkeypatch.setattr(item_agents, "SLICE_BYTES", 2 * len(DOUBT))
    item_agent, batch, shard_ = agent(Servers()), [LocalRecord(n, 0, None, DOUBT) for n in range(1, 6)], shard()
    applied: list[int] = []

    async def other() -> None:
        while len(applied) < 2:
            applied.append(item_agent.stage.shards[0].applied)
            shard_.lost = lost
            await asyncio.sleep(0)

    await asyncio.gather(item_agent.process(shard_, cast(Any, batch)), other())
    assert applied == ([2, 2] if lost else [2, 4])
    assert item_agent.stage.shards[0].applied == (2 if lost else 5)


@pytest.mark.parametrize("flush", [False, True])
async def test_leave_to_write_is_asked_before_every_slice(monkeypatch: pytest.MonkeyPatch, flush: bool) -> None:
    monkeypatch.setattr(item, "SLICE", 1)
    servers = Servers()
    item_agent = agent(servers, Group(leaves=2))
    if flush:
        await item_agent.process(shard(), [cast(Any, LocalRecord(99, 0, None, FLUSH))])
    else:
        await item_agent.publish(shard())
    assert len(list(servers)) == 2

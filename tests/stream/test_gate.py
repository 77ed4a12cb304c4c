from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from stream.fetches import TP
from stream.gate import Gate

LIMIT = 3
MINE = TP("covisits", 0)


class World:
    """A gate, what it looks at, and a stage that wants events."""

    def __init__(self) -> None:
        self.caught_up, self.moved = asyncio.Event(), asyncio.Event()
        self.acked: dict[tuple[str, int], int] = {}
        self.shard = SimpleNamespace(next=0)
        broadcast: Any = SimpleNamespace(caught_up=self.caught_up)
        publisher: Any = SimpleNamespace(acked=self.acked)
        agent: Any = SimpleNamespace(topic="covisits", moved=self.moved)
        self.gate = Gate("events", broadcast, publisher, agent, LIMIT)
        host: Any = SimpleNamespace(shards={MINE: self.shard})
        self.gate.host = host

    async def waits(self) -> asyncio.Task[None]:
        """A stage that is not let through, however often the event loop turns."""
        task = asyncio.create_task(self.gate.ready())
        for _ in range(10):
            await asyncio.sleep(0)
        assert self.gate.closed
        assert not task.done()
        return task


async def test_events_wait_until_the_broadcast_was_read() -> None:
    world = World()
    task = await world.waits()
    world.caught_up.set()
    await asyncio.wait_for(task, 60)
    assert not world.gate.closed


@pytest.mark.parametrize("told", [True, False])
async def test_events_wait_while_covisits_are_too_far_behind(told: bool) -> None:
    """Whoever applies them tells; the gate looks by itself, too, as their shard may have gone elsewhere."""
    world = World()
    world.caught_up.set()
    world.acked["covisits", 0] = LIMIT - 1
    await asyncio.wait_for(world.gate.ready(), 60)
    world.acked["covisits", 0] = LIMIT
    assert world.gate.lag() == LIMIT + 1
    task = await world.waits()
    world.shard.next = 1
    if told:
        world.moved.set()
    await asyncio.wait_for(task, 60)


async def test_what_others_apply_is_not_waited_for() -> None:
    world = World()
    world.caught_up.set()
    world.acked |= {("covisits", 1): 1_000, ("events", 0): 1_000}
    assert world.gate.lag() == 0
    await asyncio.wait_for(world.gate.ready(), 60)

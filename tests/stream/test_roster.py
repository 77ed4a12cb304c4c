"""Fields of workers in `rv:meta` go with their workers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from stream.errors import UnavailableError
from stream.keys import Keys
from stream.memory_store import MemoryStore
from stream.resp import StoreError, WriteBatch
from stream.roster import BEAT_S, EXPIRE_S, LEAVE_S, Roster

META = Keys().meta


class World:
    """A roster with its store and clock; it is this worker's to sweep while `owned`."""

    def __init__(self) -> None:
        self.now, self.owned, self.store = 1_000.0, True, MemoryStore()
        self.worker = SimpleNamespace(
            store=self.store, keys=Keys(), globe=self, host=SimpleNamespace(may_write=lambda: True)
        )
        self.roster = Roster(cast(Any, self.worker), lambda: self.now)

    async def tell(self, **fields: str) -> None:
        batch = WriteBatch()
        batch.hset(META, {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}, None)
        await self.store.flush(batch)

    async def fields(self) -> set[str]:
        return {name.decode() for name in await self.store.hgetall(META)}


async def test_fields_that_stand_still_are_dropped_and_others_are_not() -> None:
    world = World()
    own = world.roster.field.decode().replace("-", "_")
    await world.tell(worker_1="a", worker_2="a", events_0="a", contract="1", **{own: "a"})
    for beat in range(int(EXPIRE_S / BEAT_S) + 1):
        assert "worker-1" in await world.fields()
        await world.roster.sweep()
        await world.tell(worker_2=f"{beat}")
        world.now += BEAT_S
    assert await world.fields() == {"worker-2", "events-0", "contract", own.replace("_", "-")}


async def test_only_one_worker_sweeps_and_once_a_minute() -> None:
    world = World()
    world.owned = False
    await world.tell(worker_1="a")
    for _ in range(20):
        await world.roster.sweep()
        world.now += BEAT_S
    assert await world.fields() == {"worker-1"}
    world.owned = True
    await world.roster.sweep()  # what stood still before is not known
    world.now += EXPIRE_S
    await world.tell(worker_1="b")
    await world.roster.sweep()
    assert await world.fields() == {"worker-1"}


async def test_who_leaves_takes_its_field_along_and_tells_no_more() -> None:
    world = World()
    assert world.roster.due(moved=False)
    world.roster.told()
    assert not world.roster.due(moved=False)
    assert world.roster.due(moved=True)
    await world.tell(**{world.roster.field.decode().replace("-", "_"): "a", "worker_1": "a"})
    await world.roster.leave()
    assert await world.fields() == {"worker-1"}
    assert not world.roster.due(moved=True)


@pytest.mark.parametrize("error", [UnavailableError("away"), StoreError("NOPERM"), None])
async def test_a_store_that_does_not_answer_holds_nobody_up(error: Exception | None) -> None:
    world = World()

    async def flush(_: WriteBatch) -> None:
        if error is not None:
            raise error
        await asyncio.Event().wait()

    world.worker.store = SimpleNamespace(flush=flush)
    async with asyncio.timeout(60 * LEAVE_S):
        await world.roster.leave()

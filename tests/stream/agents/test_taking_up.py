from __future__ import annotations

import asyncio

import numpy as np

from models.histories import HistoryArrays
from stream.agents.taking_up import SLICE, take_up
from stream.demo.shop import Shop
from stream.keys import Keys
from stream.stages.reclaiming import LEAST
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules, UserShard
from stream.stages.user_snapshot import copy, restore
from tests.records import stream

RULES = UserRules(dedup=1_000)
RECORDS = stream(Shop(seed=7, users=150).events(3_000))


def learned() -> UserStage:
    stage = UserStage(ItemSpace(2), Keys(), RULES, 1)
    stage.open(0, None)
    stage.learn(0, RECORDS)
    return stage


def items_of(shard: UserShard, space: ItemSpace) -> dict[str, list[str]]:
    """Recent items of each user, by name."""
    a: HistoryArrays = shard.histories.arrays
    users = shard.users.indices()
    return {
        name: space.ids.texts(a.item[user, : a.count[user]])
        for name, user in zip(shard.users.texts(users), users, strict=True)
    }


def test_it_is_what_restoring_at_once_gives() -> None:
    stage = learned()
    spaces = ItemSpace(2), ItemSpace(2)
    for space in spaces:
        space.encode(["something", "else"])
    at_once = restore(RULES, spaces[0], stage.copy(0).whole())
    taken_up = asyncio.run(take_up(RULES, spaces[1], stage.copy(0).whole()))
    assert items_of(taken_up, spaces[1]) == items_of(stage.shards[0], stage.space)
    one, other = copy(at_once, spaces[0]).whole(), copy(taken_up, spaces[1]).whole()
    assert {name: array.tolist() for name, array in one.items()} == {
        name: array.tolist() for name, array in other.items()
    }


def test_others_go_on_meanwhile_and_no_index_is_given_away() -> None:
    stage = learned()
    many = [f"many-{n}" for n in range(3 * SLICE)]
    codes = stage.space.encode(many)
    shard = stage.shards[0]
    shard.histories.arrays.item[: len(shard.users)] = np.resize(codes, (len(shard.users), 20))
    shard.histories.arrays.count[: len(shard.users)] = 20
    shard.histories.arrays.head[: len(shard.users)] = 19
    expected = items_of(shard, stage.space)
    arrays, space = stage.copy(0).whole(), ItemSpace(2)
    others = UserStage(space, Keys(), RULES, 1)
    turns = 0

    async def run() -> UserShard:
        nonlocal turns
        taking = asyncio.create_task(take_up(RULES, space, arrays))
        while not taking.done():
            space.encode([f"noise-{turns}-{n}" for n in range(LEAST // 8)])
            space.reclaimer.step()
            turns += 1
            await asyncio.sleep(0)
        found = await taking
        others.shards[0] = found
        return found

    found = asyncio.run(run())
    assert turns > 3
    for _ in range(200):
        space.reclaimer.step()
    assert space.dropped > 0
    assert items_of(found, space) == expected

"""When a shard's lists are written although they seem unchanged."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from stream.fencing import Fence
from stream.shard import Shard

SESSION_S = 1e6
OVER = -3e6  # taken up so long ago that every predecessor is gone


class Claims:
    """What Redis remembers of owners."""

    def __init__(self, *claimed: str) -> None:
        self.claimed = set(claimed)
        self.asked = 0

    async def claim(self, name: str) -> bool:
        self.asked += 1
        new = name not in self.claimed
        self.claimed.add(name)
        return new


def fence(claims: Claims) -> Fence:
    return Fence(cast(Any, None), claims.claim, SESSION_S)


async def test_the_first_owner_has_no_predecessor_and_asks_once() -> None:
    claims, shard = Claims(), Shard("events", 0, time.monotonic())
    followed = [await fence(claims).may_follow(shard) for _ in range(3)]
    assert followed == [False, False, False]
    assert claims.asked == 1


async def test_the_second_owner_may_follow_the_first_until_two_sessions_have_passed() -> None:
    claims = Claims("events-0")
    assert await fence(claims).may_follow(Shard("events", 0, time.monotonic()))
    assert not await fence(claims).may_follow(Shard("events", 0, time.monotonic() + OVER))
    assert not await fence(claims).may_follow(Shard("events", 1, time.monotonic()))


async def test_an_owner_after_two_sessions_has_claimed_the_shard_all_the_same() -> None:
    claims = Claims()
    await fence(claims).may_follow(Shard("events", 0, time.monotonic() + OVER))
    assert await fence(claims).may_follow(Shard("events", 0, time.monotonic()))


@pytest.mark.parametrize("offset", [0, 5])
async def test_whoever_finds_a_snapshot_has_a_predecessor_though_redis_was_emptied(offset: int) -> None:
    assert await fence(Claims()).may_follow(Shard("events", 0, time.monotonic(), saved=offset))

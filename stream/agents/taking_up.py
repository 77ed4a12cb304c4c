"""Taking up a user shard while others go on: what is long runs in a thread, what the process shares in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream.copying import texts_of
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserRules, UserShard
from stream.stages.user_snapshot import check_targets, unpack

SLICE: Final = 2_000  # items met at a time: about 2 ms if all of them are new


async def take_up(rules: UserRules, space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> UserShard:
    """What `restore` of a user's snapshot does, without holding the event loop for longer than a few milliseconds.

    Its caller puts the shard in its place before it awaits anything: until then nothing tells that its items are used.
    """
    check_targets(space, arrays)
    unpacked = await asyncio.to_thread(unpack, rules, arrays)
    with space.reclaimer.paused():
        names = await asyncio.to_thread(texts_of, arrays["items.texts"])
        ours = [np.zeros(0, dtype=np.int32)]
        for start in range(0, len(names), SLICE):
            ours.append(space.encode(names[start : start + SLICE]))
            await asyncio.sleep(0)
        await asyncio.to_thread(unpacked.translate_items, arrays["items.codes"], np.concatenate(ours))
        unpacked.translate_categories(space, arrays)
    return unpacked.shard

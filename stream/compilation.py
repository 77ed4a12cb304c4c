"""Compiles every kernel ahead of the first event, by running the whole pipeline once over a few invented ones."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Literal

import msgspec
import numba
import numpy as np
from llvmlite.binding import get_host_cpu_name  # type: ignore[import-untyped]  # no py.typed

from models.neighbour_rows import NO_ROW
from models.offers import load_offers
from models.placement import PLACEMENTS
from models.text_features import Facts
from stream.keys import Keys
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.neighbours import Neighbours
from stream.row_wire import insert_rows, pack_rows
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserRules, UserShard
from stream.stages.user_snapshot import copy, restore

STEPS = ("user stage", "item stage", "global stage", "ranking", "snapshots", "neighbours")

_OFFERS = """
[[offers]]
id = "warm-up"
categories = ["c1"]
items = ["i1"]
value = 1.0
min_category_affinity = {c1 = 0.1}
"""


def compile_kernels(progress: Callable[[str], None] = lambda _: None) -> None:
    """Compile, or load from the cache, every kernel that a worker uses.

    Parameters
    ----------
    progress
        Called with the name of each step of `STEPS` once it is done.

    Notes
    -----
    About 60 s of CPU the first time after an update, under 1 s from the cache. Where there is a second core, another
    process compiles what learns while this one begins with what ranks: the second to come to a kernel finds it in the
    cache.
    """
    with nullcontext() if are_kernels_compiled() or os.cpu_count() == 1 else _helper():
        asyncio.run(_run(progress))
    with suppress(OSError):  # a cache that cannot be written is no cache, but no fault either
        _mark().touch()


@contextmanager
def _helper() -> Iterator[None]:
    """Another process that compiles, as far as it gets, what this one needs last."""
    quiet = subprocess.DEVNULL
    helper = subprocess.Popen([sys.executable, "-m", __name__], stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        helper.kill()
        helper.wait()


def are_kernels_compiled() -> bool:
    """Whether `compile_kernels` has come to its end with these sources, this Numba and this processor."""
    return _mark().exists()


def kernel_cache() -> Path:
    """Folder of the compiled kernels."""
    return Path(numba.config.CACHE_DIR)  # type: ignore[attr-defined]  # set at import by numba


def _mark() -> Path:
    return kernel_cache() / f"complete-{numba.__version__}-{get_host_cpu_name()}"


async def _run(progress: Callable[[str], None]) -> None:
    simple, pipeline = _filled("covisit"), _filled("blend")
    pipeline.users.rank(0, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64))
    for partition in pipeline.users.shards:
        await pipeline.step_user(partition)
    progress(STEPS[0])
    await _go_on(pipeline, progress)
    await simple.step_user(0)


async def _help() -> None:
    """What the helper does: what its parent does last comes first."""
    simple = _filled("covisit")
    await simple.step_user(0)
    await _go_on(simple, lambda _: None)


async def _go_on(pipeline: LocalPipeline, progress: Callable[[str], None]) -> None:
    """Everything behind the user stage, and what happens to its state."""
    for partition in pipeline.items.shards:
        await pipeline.step_item(partition)
    progress(STEPS[1])
    await pipeline.drain()
    await _log_in(pipeline)
    progress(STEPS[2])
    await pipeline.republish()
    progress(STEPS[3])
    shard = pipeline.users.shards[0]
    space = ItemSpace(pipeline.space.partitions)
    restored = restore(shard.rules, space, copy(shard, pipeline.space).whole())
    pipeline.items.open(0, pipeline.items.copy(0).whole())
    pipeline.globe.open(0, pipeline.globe.copy(0).whole())
    progress(STEPS[4])
    await _exchange(pipeline, space, restored)
    progress(STEPS[5])


async def _log_in(pipeline: LocalPipeline) -> None:
    """Two customers at one browser; the one who came first is heard of last."""
    seen_us = 1_700_000_000_000_000
    for user, second in (("", 0), ("u1", 2), ("u2", 1)):
        event = {"event_id": f"l{second}", "user_pseudo_id": "c1", "event_timestamp": seen_us + second * 1_000_000}
        event |= {"event_name": "login", "user_id": user} if user else {"event_name": "view_item", "item_id": "i1"}
        await pipeline.feed([((user or "c1").encode(), seen_us // 1000, msgspec.json.encode(event))])


async def _exchange(pipeline: LocalPipeline, space: ItemSpace, shard: UserShard) -> None:
    """As if a worker that owns no items read the rows that a shard's users need."""
    users = np.arange(shard.users.size, dtype=np.int32)
    await Neighbours(space, MemoryStore(), Keys()).fetch(shard.histories.arrays, users)
    known = pipeline.space.rows.arrays.row
    theirs = np.flatnonzero(known != NO_ROW).astype(np.int32)
    packed = pack_rows(pipeline.space.rows, theirs, pipeline.space.ids)
    insert_rows(space, space.encode(pipeline.space.ids.texts(theirs)), packed)


def _filled(ranking: Literal["covisit", "blend"]) -> LocalPipeline:
    rules = UserRules(ranking=ranking, placements=tuple(PLACEMENTS.values()))
    pipeline = LocalPipeline(MemoryStore(), rules, offers=load_offers(_OFFERS, "warm-up"))
    for number, item in enumerate(pipeline.space.encode([f"i{n}" for n in range(23)]).tolist()):
        pipeline.space.contents.put(item, Facts(f"warm-up {number % 3}", category="c1", price=1.0 + number))
        pipeline.space.contents.put(item, Facts(f"warm-up {number % 2}"))
    topic = pipeline.topics["events"]
    for number, value in enumerate(_events()):
        topic.append(number % topic.partitions, 1_700_000_000_000 + number, None, value)
    return pipeline


def _events() -> Iterator[bytes]:
    """Enough touches for lists, offers, segments and full batches."""
    names = ("view_item", "add_to_cart", "purchase", "search")
    for number in range(6_000):
        yield msgspec.json.encode(
            {
                "event_id": f"e{number}",
                "event_name": names[number % 4],
                "user_id": f"u{number % 97}",
                "session_id": f"s{number // 400}",
                "items": [{"item_id": f"i{number * 7 % 23}", "item_category": f"c{number % 5}", "price": 1.0}],
            }
        )


if __name__ == "__main__":
    asyncio.run(_help())

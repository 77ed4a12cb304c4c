"""Memory per user and per item: resident size of fresh processes that hold full state.

A million users with 36-byte ids, full histories, profiles and lists (the dedup window, whose size is a setting, stays
empty); a hundred thousand items with full rows. ``--blend``: the same with the full blend on, a user's once the pool of
its sessions is full, whose size is a setting, too; an item's with a catalogue record, and known to one partition.
``python -m tests.benchmarks.memory [--blend] [--json]``
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import psutil

from models.blend import Blend
from models.covisitation import Deltas, weighting
from models.decay import decay_add_many
from models.histories import HISTORY, Touches
from models.profiles import CATEGORIES, EventColumns
from models.text_features import Facts
from stream.stages.ranking import ranking_of
from stream.stages.space import ItemSpace
from stream.stages.stepwise import at_once
from stream.stages.user_shard import UserRules, UserShard
from tests.benchmarks.harness import ROOT, arguments, machine, report

USERS, ITEMS = 1_000_000, 100_000
BATCH = 2_000
NEIGHBOURS, TRANSITIONS = 100, 20
Figures = dict[str, Any]


def ids(kind: int, start: int, count: int) -> list[str]:
    """UUIDs, none of them twice."""
    return [
        str(UUID(int=(kind << 120) | (n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**120)))
        for n in range(start, start + count)
    ]


def rss() -> int:
    """Resident bytes of this process."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def teach_users(shard: UserShard, space: ItemSpace, start: int, count: int) -> None:
    """New users with as many touches as a history holds, in one event each, and everything that ranking fills."""
    users = shard.users.encode(ids(1, start, count))
    shard.reserve()
    seconds = np.full(count, 800_000_000 + start, dtype=np.uint32)
    items = (np.arange(count * HISTORY) * 7919 % ITEMS).astype(np.int32)
    events = EventColumns(
        users,
        seconds,
        np.ones(count, dtype=np.uint32),
        np.full(count, 2, dtype=np.uint8),
        np.full(count, 9.9, dtype=np.float32),
        np.ones(count, dtype=np.uint8),
        np.arange(0, count * HISTORY + 1, HISTORY, dtype=np.int32),
        (items % CATEGORIES).astype(np.int32),
        np.ones(count * HISTORY, dtype=np.float32),
    )
    starts, _ = shard.profiles.learn(events, shard.hashes, shard.rules.sample_rate)
    kinds = np.zeros(count * HISTORY, dtype=np.uint8)
    touches = Touches(users.repeat(HISTORY), items, kinds, seconds.repeat(HISTORY), starts)
    at_once(ranking_of(shard.rules, space, weighting()).learn(shard, touches))
    assert (shard.histories.arrays.count[users] == HISTORY).all()
    shard.last[users] = items[: shard.rules.k]
    for column in (shard.pushed_ms, shard.profiled_ms, shard.segment, shard.offers):
        column[users] = 1


def teach_items(space: ItemSpace, start: int, count: int) -> None:
    """Known items, each met with as many other known ones as its row holds."""
    item = np.arange(start, start + count, dtype=np.int32)
    near = np.arange(1, NEIGHBOURS + 1, dtype=np.int32)
    pairs = count * NEIGHBOURS
    deltas = Deltas(
        item,
        np.ones(count, dtype=np.float32),
        np.full(count, 800_000_000, dtype=np.uint32),
        np.zeros(count, dtype=np.int32),
        np.arange(0, pairs + 1, NEIGHBOURS, dtype=np.int32),
        ((item[:, None] + near) % len(space.ids)).astype(np.int32).ravel(),
        np.ones(pairs, dtype=np.float32),
        np.tile(near <= TRANSITIONS, count),
    )
    space.rows.learn(deltas, space.partition)
    decay_add_many(space.trend, space.trend_epoch, item, deltas.weight, deltas.ts, 21_600.0)


def fill_users(shard: UserShard, space: ItemSpace, start: int, end: int) -> None:
    """Users with full state, batch by batch."""
    for first in range(start, end, BATCH):
        teach_users(shard, space, first, min(BATCH, end - first))


def fill_items(count: int) -> ItemSpace:
    """Items with full rows, met batch by batch."""
    space = ItemSpace(1)
    names = space.encode_categories([f"category-{n}" for n in range(50)])
    for start in range(0, count, BATCH):
        codes = space.encode(ids(2, start, min(BATCH, count - start)))
        space.file(codes, names[codes % len(names)])
    for start in range(0, count, BATCH):
        teach_items(space, start, min(BATCH, count - start))
    for column in (space.hidden, space.unpublished, space.untold, *space.scratch):
        column[:count] = 1
    return space


def measured_users() -> Figures:
    """Bytes per user, and where they go."""
    rules = UserRules(ranking="covisit")
    fill_users(UserShard(rules, 1), ItemSpace(1), 0, BATCH)  # compiles, and touches what does not grow
    before = rss()
    shard = UserShard(rules, 1)
    fill_users(shard, ItemSpace(1), 0, USERS)
    grown_by = rss() - before
    assert len(shard.users) == USERS
    assert (shard.histories.arrays.count[:USERS] == HISTORY).all()
    parts = {
        "ids": columns(vars(shard.users).values()),
        "histories": columns(shard.histories.arrays),
        "profiles": columns(shard.profiles.arrays),
        "last list": columns([shard.last]),
        "pushed, segment, offers": columns([shard.pushed_ms, shard.profiled_ms, shard.segment, shard.offers]),
    }
    return figures("user", grown_by, USERS, parts)


def measured_items() -> Figures:
    """Bytes per item, and where they go."""
    fill_items(BATCH)
    before = rss()
    space = fill_items(ITEMS)
    grown_by = rss() - before
    rows = space.rows.arrays
    assert (rows.size[:ITEMS] == NEIGHBOURS).all()
    assert (rows.steps[:ITEMS] == TRANSITIONS).all()
    parts = {
        "rows": columns(rows),
        "ids": columns(vars(space.ids).values()),
        "fragments": columns(vars(space.fragments).values()),
        "scratch": columns(space.scratch),
        "facts": columns(vars(space).values()),
    }
    return figures("item", grown_by, ITEMS, parts)


def measured_users_blended() -> Figures:
    """Bytes per user beyond the first tenth, whose sessions fill the blend's pool."""
    shard, space = UserShard(UserRules(), 1), ItemSpace(1)
    shard.rehearses = True  # lessons move weights, of which there are as many for one user as for all
    space.encode(ids(2, 0, ITEMS))
    fill_users(shard, space, 0, USERS // 10)
    postings = shard.blend.arrays.postings
    assert postings.allocated[0] > len(postings.block)
    before = rss()
    fill_users(shard, space, USERS // 10, USERS)
    grown_by = rss() - before
    assert len(shard.users) == USERS
    return {"bytes_per_user_blend": grown_by / (USERS - USERS // 10), "blend_pool_bytes": postings.block.nbytes}


def measured_items_blended() -> Figures:
    """Bytes per item with what the catalogue says of it, and what one partition of users counts."""
    describe_items(fill_items(BATCH), Blend(), BATCH)
    before = rss()
    space, blend = fill_items(ITEMS), Blend()
    describe_items(space, blend, ITEMS)
    grown_by = rss() - before
    assert len(space.contents) == ITEMS
    by_item = {"blend, one partition": columns(blend.by_item().values())}
    return figures("item_blend", grown_by, ITEMS, by_item)


def describe_items(space: ItemSpace, blend: Blend, count: int) -> None:
    """A catalogue record for each item, and room in a partition's blend."""
    for n in range(count):
        title, text = f"A tent for two, green, number {n}", f"A description of some length, {n % 97} and {n % 89}."
        space.contents.put(n, Facts(title, text, f"category-{n % 50}", price=9.9))
    blend.reserve(count)


def columns(arrays: Iterable[object]) -> int:
    """Bytes of the arrays among some objects, with the room they have in store (which is not resident)."""
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


def figures(what: str, resident: int, count: int, parts: dict[str, int]) -> Figures:
    """Resident bytes each, and the bytes reserved by part."""
    reserved = {f"{what} {name}, reserved": round(nbytes / count, 1) for name, nbytes in parts.items()}
    return {f"bytes_per_{what}": resident / count, **reserved}


PARTS: dict[str, Callable[[], Figures]] = {
    "users": measured_users,
    "items": measured_items,
    "users-blend": measured_users_blended,
    "items-blend": measured_items_blended,
}


def fresh(part: str) -> Figures:
    """Figures of one part, measured in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.memory", "--part", part], cwd=ROOT, capture_output=True, check=True
    )
    found: Figures = msgspec.json.decode(ran.stdout)
    return found


def main() -> None:
    """Print the figures."""
    parser = arguments("Resident bytes per user and per item, full state.")
    parser.add_argument("--blend", action="store_true", help="with the full blend on")
    parser.add_argument("--part", choices=PARTS, help="measure one part in this very process")
    options = parser.parse_args()
    if options.part:
        report(PARTS[options.part](), json=True)
        return
    users, items = (fresh(part) for part in PARTS if part.endswith("-blend") == options.blend)
    report({**users, **items, "users": USERS, "items": ITEMS, "machine": machine()}, json=options.json)


if __name__ == "__main__":
    main()

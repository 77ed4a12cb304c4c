"""What an installation has learned, read from the last snapshots of its shards and put in terms of ids.

Two runs of the same stream intern users and items in different orders, so indices never compare. Learned state does:
users exactly, sums of the item shards within 1e-9.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.keys import Keys
from stream.rules import rules_of
from stream.settings import Settings
from stream.snapshots import SnapshotStore
from stream.stages.item import ItemStage
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard
from stream.stages.user_snapshot import restore
from tests.records import cells
from tests.worker_process import balance

REL = 1e-9
NOTHING = 1e-9  # a touch adds a million times as much, also if it is months old


@dataclass(frozen=True)
class Learned:
    """Learned state by id.

    Attributes
    ----------
    books
        Per `events` partition: how many events were counted as what, zeros left out.
    offsets
        Per `events` partition: the offset its snapshot includes.
    windows
        Per `events` partition: watermark, and how many ids the dedup window holds. Not which: an event without one
        that was sent on to another partition gets an id from its offset, and copies shift offsets.
    users
        History, profile and affinities of each user.
    items
        Neighbours, next items and popularity of each item.
    visits
        Per `covisits` partition: touches applied.
    repeated
        Records of deltas that came twice and were left out, over all partitions.
    fullest
        Most cells in a row; at the bound of `neighbours` something may have been evicted.
    """

    books: dict[int, Counter[str]]
    offsets: dict[int, int]
    windows: dict[int, tuple[int, int]]
    users: dict[str, dict[str, Any]]
    items: dict[str, dict[str, Any]]
    visits: dict[int, int]
    repeated: int
    fullest: int

    def events(self) -> dict[int, int]:
        """Events of each partition that its snapshot includes, without control records."""
        return {partition: offset - self.books[partition]["controls"] for partition, offset in self.offsets.items()}


def learned(settings: Settings) -> Learned:
    """Read the newest snapshot of every user and item shard; stop the workers first."""
    store = SnapshotStore(settings.snapshot_folder)
    books, offsets, windows, users = {}, {}, {}, dict[str, dict[str, Any]]()
    for partition in range(settings.events_partitions):
        space = ItemSpace(settings.covisits_partitions)
        snapshot = store.latest(f"{settings.topic('events')}-{partition}")
        assert snapshot is not None, f"no snapshot of events-{partition}"
        shard = restore(rules_of(settings), space, snapshot.arrays)
        books[partition] = Counter({kind: count for kind, count in shard.counts.items() if count})
        offsets[partition] = snapshot.offset
        windows[partition] = (shard.watermark, len(shard.seen))
        users |= users_of(shard, space)
    space, stage = item_shards(settings)
    size = space.rows.arrays.size
    return Learned(
        books,
        offsets,
        windows,
        users,
        _items(space),
        {partition: shard.counts["visits"] for partition, shard in stage.shards.items()},
        sum(shard.counts["repeated"] for shard in stage.shards.values()),
        int(max(size.max(initial=0), space.rows.arrays.steps.max(initial=0))),
    )


def item_shards(settings: Settings) -> tuple[ItemSpace, ItemStage]:
    """The newest snapshots of all item shards in one space."""
    store = SnapshotStore(settings.snapshot_folder)
    space = ItemSpace(settings.covisits_partitions, neighbours=settings.neighbours, transitions=settings.transitions)
    stage = ItemStage(space, Keys(settings.prefix), settings.events_partitions)
    for partition in range(settings.covisits_partitions):
        snapshot = store.latest(f"{settings.topic('covisits')}-{partition}")
        assert snapshot is not None, f"no snapshot of covisits-{partition}"
        stage.open(partition, snapshot.arrays)
    return space, stage


def users_of(shard: UserShard, space: ItemSpace) -> dict[str, dict[str, Any]]:
    """History, profile and affinities of each user."""
    names = space.ids.texts(range(len(space.ids)))
    categories = space.categories.texts(range(len(space.categories)))
    ring = {name: array.tolist() for name, array in shard.histories.arrays._asdict().items()}
    profile = {name: array.tolist() for name, array in shard.profiles.arrays._asdict().items()}
    slots = len(ring["item"][0]) if ring["item"] else 0
    users = {}
    known = shard.users.indices()
    for n, user in zip(known.tolist(), shard.users.texts(known), strict=True):
        places = [(ring["head"][n] - back) % slots for back in range(ring["count"][n])]
        users[user] = {
            "history": [(names[ring["item"][n][p]], ring["ts"][n][p], ring["kind"][n][p]) for p in places],
            "profile": {name: values[n] for name, values in profile.items() if name not in {"category", "affinity"}},
            "affinity": {
                categories[category]: weight
                for category, weight in zip(profile["category"][n], profile["affinity"][n], strict=True)
                if weight > 0
            },
        }
    return users


def _items(space: ItemSpace) -> dict[str, dict[str, Any]]:
    names = space.ids.texts(range(len(space.ids)))
    items: dict[str, dict[str, Any]] = cells(space.rows, names)
    for row in items.values():  # what was taken back leaves a cell of nothing, where it was ever learned
        row |= {
            part: {item: value for item, value in row[part].items() if value > NOTHING} for part in ("near", "steps")
        }
    for n in np.flatnonzero(space.trend[: len(names)]):
        popularity = {"epoch": int(space.trend_epoch[n]), "value": float(space.trend[n])}
        items.setdefault(names[n], {})["popularity"] = popularity
    return items


def differences(mine: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> list[Any]:
    """Keys whose values differ: floats by more than 1e-9 of the greater one, everything else at all."""
    return [key for key in mine.keys() | theirs.keys() if not _same(mine.get(key), theirs.get(key))]


def _same(mine: Any, theirs: Any) -> bool:
    if isinstance(mine, float) and isinstance(theirs, float):
        return math.isclose(mine, theirs, rel_tol=REL)
    if isinstance(mine, dict) and isinstance(theirs, dict):
        return mine.keys() == theirs.keys() and all(_same(value, theirs[key]) for key, value in mine.items())
    return bool(mine == theirs)


@dataclass(frozen=True)
class Verdict:
    """How one run's learned state differs from another's; all zero or empty if it does not.

    Attributes
    ----------
    lost, double
        Events and touches counted less, or more, often than in the undisturbed run, shard by shard.
    unaccounted
        Events of the log that the books do not account for, or account for twice.
    users, items, windows
        Ids, or partitions, whose state differs.
    """

    lost: int
    double: int
    unaccounted: int
    users: list[str]
    items: list[str]
    windows: list[int]

    @property
    def exact(self) -> bool:
        """Whether nothing differs."""
        return not (self.lost or self.double or self.unaccounted or self.users or self.items or self.windows)


# Of the log, not of the events: a crash repeats some, and what is given back depends on what was heard of first.
RECORDS = {"controls", "links_repeated", "returned"}


def compare(mine: Learned, theirs: Learned, events: Mapping[int, int], expected: Mapping[int, int]) -> Verdict:
    """Judge a disturbed run against an undisturbed one of the same stream.

    Parameters
    ----------
    mine, theirs
        What the disturbed and the undisturbed run learned.
    events, expected
        Events in each partition's log, without control records, of the two runs. They differ only by events that were
        sent on to another partition more than once; each such copy must have been counted as a duplicate.
    """
    gains = [*_gains(mine, theirs, events, expected)]
    gains += [mine.visits[partition] - visits for partition, visits in theirs.visits.items()]
    return Verdict(
        -sum(gain for gain in gains if gain < 0),
        sum(gain for gain in gains if gain > 0),
        sum(abs(events[partition] - balance(book)) for partition, book in mine.books.items()),
        sorted(differences(mine.users, theirs.users)),
        sorted(differences(mine.items, theirs.items)),
        sorted(differences(mine.windows, theirs.windows)),
    )


def _gains(mine: Learned, theirs: Learned, events: Mapping[int, int], expected: Mapping[int, int]) -> Iterator[int]:
    for partition, book in theirs.books.items():
        copies = Counter({"duplicates": events[partition] - expected[partition]})
        for kind in (mine.books[partition] | book).keys() - RECORDS:
            yield mine.books[partition][kind] - book[kind] - copies[kind]

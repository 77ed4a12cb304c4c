"""The pipeline in one process: byte-equal against itself, and the same lists however the stream was run."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from models.neighbour_rows import NeighbourRows
from stream.demo.shop import Shop
from stream.keys import Keys, Recommendations, parse_list
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages.user_shard import UserRules
from tests.records import publish, read, read_hash, user_of

EVENTS = 20_000
DUMP = """
import asyncio, hashlib, sys
import msgspec
from models.offers import Offer
from models.placement import PLACEMENTS
from stream.demo.shop import Shop
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages.user_shard import UserRules

async def main() -> None:
    store = MemoryStore()
    offers = [Offer(id="tents", categories=("camping",), value=3.0), Offer(id="rich", categories=("home",), value=5.0,
              segments=("high spend",)), Offer(id="kitchen", categories=("kitchen",), value=1.0)]
    users, items = int(sys.argv[2]), int(sys.argv[3])
    placements = tuple(PLACEMENTS.values()) if sys.argv[4] == "placements" else ()
    rules = UserRules(users=users, placements=placements, served=bool(placements))
    pipeline = LocalPipeline(store, rules, items=items, offers=offers)
    events = Shop(seed=1, users=2_000).events(int(sys.argv[1]))
    await pipeline.feed(
        ((e.get("user_id") or e["user_pseudo_id"]).encode(), e["event_timestamp"] // 1000, msgspec.json.encode(e))
        for e in events
    )
    await pipeline.republish()
    for key in sorted(store):
        value = (await store.get([key]))[0] or sorted((await store.hgetall(key)).items())
        print(key, value)
    for send in pipeline.served:
        print("served", send.value)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("events", "users", "items", "placements"), [(EVENTS, 10**6, 10**6, "placements"), (5_000, 50, 40, "none")]
)
def test_two_runs_leave_the_same_bytes_whatever_the_hash_seed(
    events: int, users: int, items: int, placements: str
) -> None:
    """Thousands of events through every stage, offers, segments, placements, a republish; also in full shards."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", DUMP, str(events), str(users), str(items), placements],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
        )
        for seed in ("1", "2")
    ]
    one, two = (run.communicate(timeout=300)[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    for line, other in zip(one.splitlines(), two.splitlines(), strict=False):
        assert line == other
    assert one == two
    for kind in (b":recs'", b":offers'", b":profile'", b"similar:", b"trending:segment:", b"rv:segment:"):
        assert one.count(kind) > 3, kind
    for kind in (b":recs:home'", b":recs:item'", b":recs:cart'", b"served", b'"new"'):
        assert (one.count(kind) > 3) == (placements == "placements"), kind


def small_shop() -> Iterator[dict[str, Any]]:
    """Events on 250 items, so that a row has room for all others: what is evicted depends on the order of arrival."""
    shop = Shop(seed=1, users=2_000)
    shelf = {product["item_id"] for product in shop.catalogue()[:250]}
    events = (event for event in shop.events() if all(item["item_id"] in shelf for item in event.get("items", ())))
    return itertools.islice(events, EVENTS)


def ran(partitions: int, item_partitions: int, batch: int) -> LocalPipeline:
    # what a partition's blend knows of sessions depends on which visitors it has
    pipeline = LocalPipeline(
        MemoryStore(), UserRules(ranking="covisit"), partitions=partitions, item_partitions=item_partitions, batch=batch
    )
    pipeline.space.rows = NeighbourRows(neighbours=255, transitions=255)
    publish(pipeline, small_shop())
    asyncio.run(pipeline.republish())
    return pipeline


def lists(pipeline: LocalPipeline) -> dict[bytes, Recommendations]:
    assert isinstance(pipeline.store, MemoryStore)
    store = pipeline.store
    return {key: parse_list(read(store, key) or b"") for key in store if key.endswith(b":recs")}


@pytest.fixture(scope="module")
def reference() -> LocalPipeline:
    return ran(4, 4, 2_000)


@pytest.mark.parametrize(("partitions", "item_partitions", "batch"), [(1, 1, 2_000), (3, 2, 777), (4, 4, 50)])
def test_a_republished_stream_gives_the_same_lists_however_it_was_run(
    reference: LocalPipeline, partitions: int, item_partitions: int, batch: int
) -> None:
    expected, found = lists(reference), lists(ran(partitions, item_partitions, batch))
    assert len(expected) > 500
    assert found.keys() == expected.keys()
    for key, mine in found.items():
        theirs = expected[key]
        assert mine.ts == theirs.ts
        assert mine.scores == pytest.approx(theirs.scores, rel=1e-6, abs=1.1e-6)  # rounded to six decimals
        assert same_up_to_ties(mine, theirs), (key, mine, theirs)


def same_up_to_ties(one: Recommendations, two: Recommendations) -> bool:
    """Whether two lists differ at most in the order of items whose scores are within rounding; the last may be cut."""
    last = min([*one.scores, *two.scores], default=0.0) + 2.2e-6
    groups = [
        [{item for item, _ in tied} for _, tied in itertools.groupby(cut(ranked, last), key=lambda pair: pair[1])]
        for ranked in (one, two)
    ]
    return groups[0] == groups[1]


def cut(ranked: Recommendations, last: float) -> Iterator[tuple[str, int]]:
    """Items above the last score, each with the number of its group of scores that close."""
    group, before = 0, float("inf")
    for item, score in zip(ranked.items, ranked.scores, strict=True):
        if score <= last:
            return
        group += before - score > 2.2e-6
        before = score
        yield item, group


def test_no_event_is_lost_on_the_way(reference: LocalPipeline) -> None:
    counts = [shard.counts for shard in reference.users.shards.values()]
    assert sum(count["learned"] for count in counts) == EVENTS
    assert reference.dead == []
    events = list(small_shop())
    users = {user_of(event) for event in events}
    assert sum(len(shard.users) for shard in reference.users.shards.values()) == len(users)
    assert isinstance(reference.store, MemoryStore)
    profile = read_hash(reference.store, b"rv:{%s}:profile" % user_of(events[-1]).encode())
    assert int(profile[b"events"]) == sum(user_of(event) == user_of(events[-1]) for event in events)


def test_the_lists_are_good(reference: LocalPipeline) -> None:
    """Planted rules are found, and what was pushed predicts what comes next."""
    shop = Shop(seed=1, users=2_000)
    assert isinstance(reference.store, MemoryStore)
    shelf = {product["item_id"] for product in shop.catalogue()[:250]}
    rules = [rule for rule in shop.rules if shelf.issuperset(rule)]
    assert rules
    for antecedent, consequent in rules:
        assert consequent in parse_list(read(reference.store, Keys().similar(antecedent)) or b"").items[:5]
    predictions, hits, _ = np.sum([shard.hits for shard in reference.users.shards.values()], axis=0)
    assert predictions > 1_000
    assert hits / predictions > 0.2

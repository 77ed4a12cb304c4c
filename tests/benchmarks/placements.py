"""CPU per list of what placements cost when users are ranked: ``python -m tests.benchmarks.placements``.

The same users are ranked again and again by one state, in slices as a worker does, without a placements file and with
three placements. CPU time, the best of several rounds, taken in turns: other work on the machine matters little.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec
import numpy as np

from models.placement import PLACEMENTS, Placement
from stream.demo.shop import Shop
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages.user_shard import UserRules
from tests.benchmarks.harness import arguments, machine, report
from tests.records import user_of

SLICE: Final = 250
PLAIN: Final = (Placement("a"), Placement("b"), Placement("c"))
SETS: Final[dict[str, tuple[Placement, ...]]] = {
    "none": (),
    "plain": PLAIN,
    "ruled": tuple(PLACEMENTS.values()),
}


def filled(events: int, placements: tuple[Placement, ...]) -> LocalPipeline:
    """A pipeline that has learned from the synthetic shop, all in one partition."""
    pipeline = LocalPipeline(MemoryStore(), UserRules(placements=placements), partitions=1, item_partitions=1)
    stream = Shop(seed=1, users=max(events // 12, 100)).events(events)
    asyncio.run(
        pipeline.feed(
            (user_of(event).encode(), event["event_timestamp"] // 1000, msgspec.json.encode(event)) for event in stream
        )
    )
    return pipeline


def cost(pipeline: LocalPipeline, *, force: bool) -> float:
    """CPU per user of one round over all of them, us."""
    stage, shard = pipeline.users, pipeline.users.shards[0]
    users = np.flatnonzero(shard.profiles.arrays.events[: shard.users.size]).astype(np.int32)
    users = np.random.default_rng(1).permutation(users).astype(np.int32)
    ts_ms = stage.last_ms(0, users)
    begun = time.process_time()
    for start in range(0, len(users), SLICE):
        stage.rank(0, users[start : start + SLICE], ts_ms[start : start + SLICE], force=force)
    return (time.process_time() - begun) / len(users) * 1e6


def main() -> None:
    """Run and print: `kept` where nothing has changed, `written` where all is written again."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    pipelines = {name: filled(options.events, placements) for name, placements in SETS.items()}
    best: dict[tuple[str, bool], float] = {}
    for _ in range(options.rounds):
        for name, pipeline in pipelines.items():
            for force in (False, True):
                best[name, force] = min(best.get((name, force), np.inf), cost(pipeline, force=force))
    figures: dict[str, object] = {"users": len(pipelines["none"].users.shards[0].users), "rounds": options.rounds}
    for name, placements in SETS.items():
        for force, what in ((False, "kept"), (True, "written")):
            figures[f"{name}_{what}_us_per_user"] = best[name, force]
            if placements:
                figures[f"{name}_{what}_us_per_list"] = (best[name, force] - best["none", force]) / len(placements)
        figures[f"{name}_candidates"] = UserRules(placements=placements).depth
    report(figures | {"machine": machine()}, json=options.json)


if __name__ == "__main__":
    main()

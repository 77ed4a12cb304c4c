"""CPU of what links cost where events are learned: ``python -m tests.benchmarks.linking``.

The same events of the synthetic shop are learned with and without links in turns, and all that follows from them: of
visitors with one id, of visitors with both ids in every event, so that each pair is linked, and of visitors who log in
after the first half of the stream, so that histories move. CPU time, the best of several rounds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from models.hashing import partition_of
from stream.demo.shop import Shop
from stream.keys import Keys
from stream.local import LocalTopic
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from tests.benchmarks.harness import arguments, machine, report
from tests.records import user_of

PARTITIONS: Final = 4
AHEAD: Final = 8_000  # events written before they are learned
KINDS: Final = ("one id", "both ids", "logins")


def named(events: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The same events of visitors who are called otherwise."""
    made = []
    for number, event in enumerate(events):
        user = user_of(event)
        names = {"user_id": user} if kind == "one id" else {"user_id": user, "user_pseudo_id": f"cookie-{user}"}
        if kind == "logins" and number < len(events) // 2:
            del names["user_id"]
        made.append({name: value for name, value in event.items() if not name.startswith("user_")} | names)
    return made


def cost(events: Sequence[dict[str, Any]], *, link: bool) -> tuple[float, int, int]:
    """CPU of all, s; how many links were sent and how many histories moved."""
    stage = UserStage(ItemSpace(1), Keys(), UserRules(ranking="covisit", link=link), PARTITIONS)
    topic = LocalTopic(PARTITIONS)
    for partition in range(PARTITIONS):
        stage.open(partition, None)
    seconds = 0.0
    for start in range(0, len(events), AHEAD):
        for event in events[start : start + AHEAD]:
            home = partition_of(user_of(event).encode(), PARTITIONS)
            topic.append(home, event["event_timestamp"] // 1000, None, msgspec.json.encode(event))
        while any(topic.logs):
            for partition in range(PARTITIONS):
                records = topic.take(partition, AHEAD)
                begun = time.process_time()
                sends = stage.learn(partition, records).sends if records else []
                seconds += time.process_time() - begun
                for send in sends:
                    if send.role == "events" and send.partition is not None:
                        topic.append(send.partition, records[-1].timestamp, send.key, send.value)
    shards = stage.shards.values()
    return seconds, sum(len(shard.linked) for shard in shards), sum(shard.counts["joined"] for shard in shards)


def main() -> None:
    """Run and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    events = list(Shop(seed=1, users=max(options.events // 12, 100)).events(options.events))
    figures: dict[str, object] = {}
    for kind in KINDS:
        stream = named(events, kind)
        found = {True: cost(stream, link=True), False: cost(stream, link=False)}  # the first round warms up
        best = dict.fromkeys(found, np.inf)
        for _ in range(options.rounds):
            for link in best:
                best[link] = min(best[link], cost(stream, link=link)[0])
        on_us, off_us = (best[link] / len(stream) * 1e6 for link in (True, False))
        _, links, moved = found[True]
        name = kind.replace(" ", "_")
        figures |= {f"{name}_us_per_event": on_us, f"{name}_times_without": on_us / off_us}
        figures |= {f"{name}_links": links, f"{name}_moved": moved}
    report(figures | {"machine": machine()}, json=options.json)


if __name__ == "__main__":
    main()

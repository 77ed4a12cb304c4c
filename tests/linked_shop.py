"""A shop whose visitors log in, wired locally, and what it has learned of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from models.hashing import partition_of
from stream.events import Joined, Link, Linked, Returned
from stream.keys import Keys, parse_list
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.stages.sends import Send
from stream.stages.user_shard import UserRules
from tests.records import T0_US, cells, event, publish, read, record

KEYS = Keys()
P = 3
T0_S = T0_US // 1_000_000


def view(cookie: str, item: str, at: float) -> dict[str, Any]:
    """An event of somebody who is known by a cookie alone."""
    made = event(cookie, item, at=at)
    return {"user_pseudo_id": made.pop("user_id")} | made


START = [event(who, item, at=n) for n, (who, item) in enumerate((w, i) for w in "ab" for i in ("tent", "mat", "stove"))]
ANONYMOUS = [view("cookie", item, at=100 + 60 * n) for n, item in enumerate(("tent", "mat"))]
EARLIER = [event("ada", item, at=20 + n) for n, item in enumerate(("stove", "lamp"))]


def login(at: float = 300, cookie: str = "cookie", user: str = "ada", **fields: Any) -> dict[str, Any]:
    return event(user, at=at, user_pseudo_id=cookie, **({"name": "login"} | fields))


def shop(events: Iterable[dict[str, Any]], **rules: Any) -> LocalPipeline:
    given: dict[str, Any] = {"ranking": "covisit", "lateness_s": 10**9, "link": True} | rules
    made = UserRules(**given)
    pipeline = LocalPipeline(MemoryStore(), made, partitions=P, item_partitions=2)
    publish(pipeline, events)
    return pipeline


def rows(pipeline: LocalPipeline) -> dict[str, Any]:
    """Neighbour rows by id; what was taken back leaves nothing, not even an epoch."""
    space = pipeline.space
    found = cells(space.rows, space.ids.texts(range(space.ids.size)))
    for row in found.values():
        for part in ("near", "steps"):
            row[part] = {item: value for item, value in row[part].items() if abs(value) > 1e-9}
    return {item: row for item, row in found.items() if row["sums"]["total"] > 1e-9}


def recent(pipeline: LocalPipeline, user: str) -> list[str]:
    """Items of a user's history, newest first."""
    shard = pipeline.users.shards[partition_of(user.encode(), P)]
    (index,) = shard.users.lookup([user]).tolist()
    return [] if index < 0 else pipeline.space.ids.texts(shard.histories.recent(index))  # type: ignore[arg-type]


def listed(pipeline: LocalPipeline, user: str) -> Any:
    value = read(pipeline.store, KEYS.recs(user))  # type: ignore[arg-type]  # made as a MemoryStore above
    return None if value is None else parse_list(value)


def joins(pipeline: LocalPipeline) -> int:
    return sum(shard.counts["joined"] for shard in pipeline.users.shards.values())


def forgotten(pipeline: LocalPipeline, user: str) -> None:
    """Forget a user, after everything."""
    request = {"control": "forget", "user": user, "user_id": user, "event_timestamp": 2 * 10**15, "request": "r"}
    publish(pipeline, [request])


def carried_out(pipeline: LocalPipeline, partition: int, control: Linked | Joined | Returned, at: int) -> list[Send]:
    """What comes of a control record at an offset of a partition; it is sent on."""
    learned = pipeline.users.learn(partition, [record(at, msgspec.json.encode(control), at=at)])
    for send in learned.sends:
        pipeline._send(send)
    return learned.sends


def linked(*links: tuple[str, str, float, int], source: int = 7) -> Linked:
    """Links of (cookie, customer, second after T0, place)."""
    moving = [Link(cookie, to, T0_S + int(at), place) for cookie, to, at, place in links]
    return Linked(source=source, moving=moving)

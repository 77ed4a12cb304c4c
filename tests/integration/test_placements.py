"""Placements on real Kafka and Redis: the lists of a local replay, their log, a reader, and what forgetting leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from stream.demo.shop import Shop
from stream.stages.serving import decode_served
from tests.commands import answer, command
from tests.worker_process import ROOM, Installation, canonical_users, different, local_lists

EVENTS = 3_000
FILE = """
[[placements]]
name = "home"
k = 10
exploration = 0.2

[[placements]]
name = "cart:{x}"
k = 6
exclude = "seen"
without = ["kitchen"]
"""


async def test_lists_of_placements_are_those_of_a_local_replay_also_after_a_kill(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    file = tmp_path / "placements.toml"
    file.write_text(FILE)
    events = list(Shop(seed=6, users=200).events(EVENTS))
    seen = [next(item for event in events[n:] for item in event.get("items", ()))["item_id"] for n in (0, 40, 80)]
    at = events[-1]["event_timestamp"]
    phone = [
        {"event_name": "view_item", "event_timestamp": at + n, "user_pseudo_id": "phone", "item_id": item}
        for n, item in enumerate(seen, 1)
    ]
    login = {"event_name": "login", "event_timestamp": at + 10, "user_id": "anna", "user_pseudo_id": "phone"}
    events += [*phone, login]
    users = canonical_users(events)
    names = {
        "snapshot_every_s": 0.3,
        "neighbours": ROOM,
        "transitions": ROOM,
        "events_partitions": 2,
        "placements": file,
        "link": True,
    }
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **names) as shop:
        worker = shop.start()
        await shop.publish(events[: EVENTS // 2])

        async def saved() -> bool:
            return sum(shop.saved("events").values()) > 0

        await shop.until(saved, "some of it is in a snapshot")
        worker.end(signal.SIGKILL)
        shop.start()
        await shop.publish(events[EVENTS // 2 :])
        await shop.republish()
        for placement, k in ((None, 20), ("home", 10), ("cart:{x}", 6)):
            mine, theirs = await shop.lists(users, placement), await local_lists(events, shop.settings, placement)
            assert len(theirs) > 100
            assert different(mine, theirs) == [], (placement, k)

        assert (await shop.counts())["joined"] == 1
        assert (await shop.lists(["anna", "phone"])).keys() == {"anna"}  # what was seen before is hers now

        home = await shop.lists(users, "home")
        newest = {}
        for record in await shop.read("served"):
            served = decode_served(record.value)
            for one in served.lists:
                assert one.placement == "home"  # the other one shows nothing for trial
                newest[one.user] = one.ts, [served.ids[item] for item in one.items], one.propensity
        newest.pop("phone", None)  # whose list may have been written before it was taken away
        assert newest.keys() == home.keys()
        for user, (ts, items, propensity) in newest.items():
            assert (ts, items) == (home[user].ts, home[user].items)
            drawn = [model == "new" for _, model in home[user].why]
            assert sum(drawn) <= 2
            assert all((p < 1) or not new for p, new in zip(propensity, drawn, strict=True))
        assert any(min(propensity) < 1 for *_, propensity in newest.values())

        user = max(home, key=lambda user: len(home[user].items))
        code, out, err = await command(shop, "get", user, "--placement", "home", "--k", "5", "--json")
        assert code == 0, err
        shown = json.loads(out)["recommendations"]
        assert (shown["items"], shown["source"]) == (home[user].items[:5], "recs:home")
        kept = await answer(shop, "export", user)
        assert kept["redis"].keys() >= {"recs", "recs:home", "recs:cart:{x}"}
        assert kept["redis"]["recs:home"]["items"] == home[user].items
        assert (await answer(shop, "forget", user, "--json"))["keys"] == 5
        for placement in (None, "home", "cart:{x}"):
            assert await shop.lists([user], placement) == {}

"""``rivulet forget`` and ``rivulet export`` as processes, on real servers, with a worker killed in between."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from stream.demo.shop import Shop
from tests.commands import answer, command
from tests.learned import Learned, differences, learned
from tests.patience import PATIENCE_S
from tests.records import user_of
from tests.worker_process import ROOM, Installation, balance

EVENTS = 3_000
HISTORY = 127


async def keys_of(shop: Installation, user: str) -> list[bytes | None]:
    """A user's strings in Redis that are there, and whether the profile is."""
    recs, offers, profile, privacy = shop.keys.user_keys(user)
    strings = await shop.progress.store.get([recs, offers, privacy])
    return [value for value in (*strings, *(await shop.progress.store.hgetall(profile)).values()) if value is not None]


def left(state: Learned) -> dict[str, Any]:
    """Sums over users without what is 0, which is nothing; epochs follow the newest touch, forgotten or not."""
    found = {}
    for item, facts in state.items.items():
        sums = facts.get("sums", {"epoch": 0, "total": 0.0})
        cells = {f"near {other}": value for other, value in facts.get("near", {}).items()}
        cells |= {f"step {other}": value for other, value in facts.get("steps", {}).items()}
        cells["total"] = sums["total"]
        scaled = {name: value * 2.0 ** sums["epoch"] for name, value in cells.items() if value > 0}
        if scaled:
            found[item] = scaled
    return found


async def test_a_person_is_exported_forgotten_and_stays_so_whatever_happens(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    events = list(Shop(seed=6, users=200).events(EVENTS))
    count: dict[str, int] = {}
    for each in events:
        count[user_of(each)] = count.get(user_of(each), 0) + 1
    user, later = sorted((user for user in count if count[user] < HISTORY), key=lambda user: -count[user])[:2]
    names = {"history": HISTORY, "neighbours": ROOM, "transitions": ROOM, "snapshot_every_s": 0.3}
    shop = Installation(kafka, redis_url, tmp_path / "s", topic_prefix + "s-", **names)
    without = Installation(kafka, redis_url, tmp_path / "w", topic_prefix + "w-", **names)
    async with shop, without:
        worker = shop.start()
        await shop.publish(events)
        await shop.republish()

        kept = await answer(shop, "export", user)
        assert kept["learned"]["known"]
        assert kept["learned"]["profile"]["events"] == count[user]
        assert len(kept["learned"]["history"]) > 1
        assert kept["redis"].keys() >= {"recs", "profile"}

        report = await answer(shop, "forget", user, "--json")
        assert (report["known"], report["already"], report["cut"], report["keys"]) == (True, False, False, 3)
        assert report["touches"] == len(kept["learned"]["history"])
        assert await keys_of(shop, user) == []

        # nobody is there to answer: the request is carried out when somebody is, after a crash that cost some work
        worker.end(signal.SIGKILL)
        code, _, err = await command(shop, "forget", later, "--timeout", "3")
        assert code == 3
        assert err.startswith("rivulet: no answer within 3 s: is a worker running?")
        assert len(err.splitlines()) == 1
        worker = shop.start()
        code, out, err = await command(shop, "forget", later, "--timeout", f"{PATIENCE_S:g}")
        assert code == 0, err
        assert "forgotten up to" in out

        # the same stream again, with ids that nobody has seen
        await shop.publish(each | {"event_id": f"again{n}"} for n, each in enumerate(events) if n % 2)
        await shop.drained()
        nothing = await answer(shop, "export", user)
        assert (nothing["learned"]["known"], nothing["learned"]["history"], nothing["redis"]) == (False, [], {})
        assert not await keys_of(shop, later)
        counts = await shop.counts()
        assert counts["forgotten"] > 0
        assert balance(counts) == shop.sent
        await shop.republish()
        assert worker.running
        assert await worker.terminate() == 0
        logs = "".join(each.output for each in shop.workers)
        assert user not in logs
        assert later not in logs

        gone = {user, later}
        without.start()
        await without.publish(each for each in events if user_of(each) not in gone)
        await without.publish(
            each | {"event_id": f"again{n}"} for n, each in enumerate(events) if n % 2 and user_of(each) not in gone
        )
        await without.drained()
        await without.republish()
        assert await without.workers[-1].terminate() == 0
    mine, theirs = learned(shop.settings), learned(without.settings)
    assert theirs.fullest < ROOM
    assert differences(mine.users, theirs.users) == []
    assert differences(left(mine), left(theirs)) == []
    assert mine.visits == theirs.visits

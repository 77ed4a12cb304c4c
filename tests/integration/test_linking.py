"""Visitors log in while workers die or lag: every history moves once, to who logged in next."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from models.hashing import partition_of
from stream.decoding import decode
from stream.events import Joined, Linked
from tests.learned import learned
from tests.records import event
from tests.worker_process import ROOM, Installation, WorkerProcess, canonical_users, different, local_lists

PARTITIONS = 4
VISITORS = 40
ITEMS = [f"item{n}" for n in range(12)]


def view(cookie: str, item: str, at: float) -> dict[str, Any]:
    """An event of somebody who is known by a cookie alone."""
    made = event(cookie, item, at=at)
    return {"user_pseudo_id": made.pop("user_id")} | made


def visit(cookie: str, number: int) -> list[dict[str, Any]]:
    """What a visitor looks at before he logs in."""
    return [
        view(cookie, ITEMS[(number + step * (number % 3 + 1)) % len(ITEMS)], number + 60 * step) for step in range(3)
    ]


async def owned(shop: Installation, worker: WorkerProcess) -> set[int]:
    """Partitions of topic ``events`` that a worker owns."""
    topic = shop.settings.topic("events") + "-"
    owners = (await shop.progress.owners()).items()
    return {int(name.removeprefix(topic)) for name, owner in owners if name.startswith(topic) and is_of(owner, worker)}


def is_of(owner: str, worker: WorkerProcess) -> bool:
    return int(owner.split("@")[0]) == worker.pid


def names(kind: str, partitions: set[int]) -> list[str]:
    """Ids that belong to some partitions."""
    found = (f"{kind}{n}" for n in range(100 * VISITORS))
    return [name for name in found if partition_of(name.encode(), PARTITIONS) in partitions][:VISITORS]


async def test_workers_die_between_link_and_answer(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    rare = {"snapshot_every_s": 600, "neighbours": ROOM, "transitions": ROOM, "link": True}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **rare) as shop:
        of_cookies, of_customers = shop.start(), shop.start()

        async def shared() -> bool:
            return [len(await owned(shop, worker)) for worker in (of_cookies, of_customers)] == [2, 2]

        await shop.until(shared, "the workers do not share")
        cookies = names("cookie", await owned(shop, of_cookies))
        customers = names("customer", await owned(shop, of_customers))
        written = [made for number, cookie in enumerate(cookies) for made in visit(cookie, number)]
        await shop.publish(written)
        await shop.drained()

        of_cookies.send(signal.SIGSTOP)
        logins = [event(customers[n], at=1_000, name="login", user_pseudo_id=cookies[n]) for n in range(VISITORS)]
        await shop.publish(logins)

        async def linked() -> bool:
            return sum((await shop.progress.ends("events")).values()) > shop.sent

        await shop.until(linked, "nobody links")
        later = [view(cookie, ITEMS[0], 2_000) for cookie in cookies[: VISITORS // 2]]
        await shop.publish(later)  # behind the links
        of_cookies.end(signal.SIGKILL)
        await shop.drained()
        of_customers.end(signal.SIGKILL)  # with no snapshot: all is done again, and each record comes once more
        shop.start()
        await shop.republish()
        written += logins + later
        assert (await shop.counts())["joined"] == VISITORS
        assert different(await shop.lists(canonical_users(written)), await local_lists(written, shop.settings)) == []
        assert await shop.workers[-1].terminate() == 0
        state = learned(shop.settings)
        controls = [control for _, control in decode(await shop.read("events")).controls]
        for kind in (Linked, Joined):
            places = [(c.source, each.place) for c in controls if isinstance(c, kind) for each in c.moving]
            assert len(set(places)) == VISITORS
            assert len(places) > VISITORS or kind is Linked, "nothing came twice"
        for number, (cookie, customer) in enumerate(zip(cookies, customers, strict=True)):
            looked_at = [each["items"][0]["item_id"] for each in reversed(visit(cookie, number))]
            assert [item for item, _, _ in state.users[customer]["history"]] == looked_at
            assert len(state.users[cookie]["history"]) == (number < VISITORS // 2)


async def test_a_frozen_worker_hears_of_the_first_login_last(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Two customers log in at each of some browsers: what the second one has taken by then goes to the first."""
    rare = {"snapshot_every_s": 600, "neighbours": ROOM, "transitions": ROOM}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **rare) as shop:
        of_first, others = shop.start(), shop.start()

        async def shared() -> bool:
            return [len(await owned(shop, worker)) for worker in (of_first, others)] == [2, 2]

        await shop.until(shared, "the workers do not share")
        first = names("first", await owned(shop, of_first))
        elsewhere = await owned(shop, others)
        cookies, second = names("cookie", elsewhere), names("second", elsewhere)
        written = [made for number, cookie in enumerate(cookies) for made in visit(cookie, number)]
        written += [view(cookie, f"late{number % 5}", 1_500 + number) for number, cookie in enumerate(cookies)]
        await shop.publish(written)
        await shop.drained()

        of_first.send(signal.SIGSTOP)
        logins = [
            event(customers[n], at=at, name="login", user_pseudo_id=cookies[n])
            for customers, at in ((first, 1_000), (second, 2_000))
            for n in range(VISITORS)
        ]
        await shop.publish(logins)

        async def joined(times: int) -> bool:
            return (await shop.counts())["joined"] == times * VISITORS

        await shop.until(lambda: joined(1), "the second customers get nothing")
        of_first.end(signal.SIGKILL)
        await shop.until(lambda: joined(2), "the first customers get nothing")
        await shop.drained()
        await shop.republish()
        assert (await shop.counts())["returned"] == VISITORS
        written += logins
        assert different(await shop.lists(canonical_users(written)), await local_lists(written, shop.settings)) == []
        assert await others.terminate() == 0
        histories = {user: state["history"] for user, state in learned(shop.settings).users.items()}
        for number in range(VISITORS):
            looked_at = [each["items"][0]["item_id"] for each in reversed(visit(cookies[number], number))]
            assert [item for item, _, _ in histories[first[number]]] == looked_at
            assert [item for item, _, _ in histories[second[number]]] == [f"late{number % 5}"]
            assert histories[cookies[number]] == []

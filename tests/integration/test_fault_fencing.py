"""A worker that was paused or cut off commits nothing and leaves no older list than its successor's."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from models.hashing import partition_of
from stream.keys import parse_item, parse_list
from stream.roster import worker_name
from stream.wire import FLUSH
from tests.brokers import KafkaBroker, RedisServer, free_ports
from tests.pages import Pages, values
from tests.proxy import Proxy
from tests.records import event
from tests.worker_process import ROOM, Installation, WorkerProcess, balance, different, lists_in, local_run

SESSION_S = 3.0
RIGHT_WITHIN_S = 10.0
AHEAD = 2_000  # events written ahead of the workers, so that some are fetched and not learned
SHARDS = 10  # four each of `events` and `covisits`, one each of `global` and `privacy`


async def hold(shop: Installation, proxy: Proxy, key: bytes, cause: Callable[[int], Awaitable[object]]) -> None:
    """Hold a worker's connection to Redis with this key on it; what waits behind another exchange never gets there."""

    async def under_way() -> bool:
        return len(proxy.held) > 0

    for attempt in count():
        proxy.hold()
        await cause(attempt)
        await shop.until(under_way, "nothing is under way")
        if key in proxy.held:
            return
        proxy.release()


@pytest.mark.parametrize("away", ["frozen", "cut off from Kafka"])
async def test_what_a_worker_had_under_way_when_it_went_away_does_not_stay(
    kafka_detour: tuple[KafkaBroker, Proxy], redis_server: RedisServer, tmp_path: Path, away: str
) -> None:
    broker, detour = kafka_detour
    settings = {"session_s": SESSION_S, "snapshot_every_s": 600}
    async with (
        Proxy(redis_server.port) as proxy,
        Installation(broker.bootstrap, redis_server.url, tmp_path, "away-", **settings) as shop,
    ):
        (port,) = free_ports(1)
        changes = {"kafka": f"127.0.0.1:{detour.port}", "redis": f"redis://127.0.0.1:{proxy.port}/0"}
        late = shop.start(**changes, web_port=str(port))
        await shop.publish([event(f"guide{n}", *"abcdefgh", at=n) for n in range(5)])
        await shop.publish([event("walker", "a", at=10)])
        await shop.drained()
        await hold(
            shop, proxy, b"{walker}:recs", lambda n: shop.publish([event("walker", "bdefgh"[n % 6], at=20 + n / 100)])
        )
        if away == "frozen":
            late.send(signal.SIGSTOP)
        else:
            detour.hold()

        successor = shop.start(snapshot_every_s="1")
        await shop.publish([event("walker", "c", at=30)])
        await shop.publish([event(f"guide{n}", "a", at=30) for n in range(5)])
        await shop.drained()
        assert await shop.processed_by(successor) > 0
        ends = {partition: end for partition, end in (await shop.progress.ends("events")).items() if end}

        async def all_committed() -> bool:
            return await shop.committed("events") == ends

        await shop.until(all_committed, "the successor does not commit")
        newest = await shop.list_of("walker")
        assert newest is not None

        proxy.release()
        await shop.until(lambda: differs(shop, newest.ts), "the older list does not arrive: nothing is tested")
        if away == "frozen":
            late.send(signal.SIGCONT)
            late.told = False
        else:
            detour.release()

        async def right() -> bool:
            found = await shop.list_of("walker")
            return found is not None and found.ts == newest.ts

        await shop.until(right, "the older list stays", RIGHT_WITHIN_S)

        async def refused() -> bool:
            actions = values((await Pages(port).metrics())["rivulet_shard_actions"], "action")
            return actions[("commits_refused",)] > 0

        await shop.until(refused, "it does not try to commit")
        committed = await shop.committed("events")
        assert all(committed[partition] >= end for partition, end in ends.items())
        await shop.publish([event("other", "b", at=40)])
        await shop.drained()
        assert await right()
        assert await late.terminate() == await successor.terminate() == 0
        ends = await shop.progress.ends("events")
        assert shop.saved("events") == {partition: end for partition, end in ends.items() if end}


async def owned(shop: Installation, worker: WorkerProcess) -> set[str]:
    """Shards of a worker, as it says itself."""
    name = worker_name(worker.pid)
    return {shard for shard, owner in (await shop.progress.owners()).items() if owner.startswith(name)}


async def owns(shop: Installation, worker: WorkerProcess, shards: int) -> None:
    """Wait until a worker has so many shards."""

    async def has_them() -> bool:
        return len(await owned(shop, worker)) == shards

    await shop.until(has_them, f"worker {worker.pid} does not own {shards} shards")


async def taken_over(shop: Installation, shard: str) -> tuple[WorkerProcess, set[str]]:
    """Start a worker beside another that gets this shard, and others; the group deals its shards out at random."""
    while True:
        successor = shop.start()
        await owns(shop, successor, SHARDS // 2)
        if shard in (shards := await owned(shop, successor)):
            return successor, shards
        assert await successor.terminate() == 0


async def test_rows_that_came_to_redis_late_do_not_stay(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    """Nobody freezes: while Redis was away from it, a worker lost a shard; its rows come after its successor's."""
    async with (
        Proxy(redis_server.port) as proxy,
        Installation(kafka, redis_server.url, tmp_path, topic_prefix, session_s=15) as shop,
    ):
        tent = shop.keys.similar("tent")
        home = partition_of(b"tent", shop.settings.covisits_partitions)

        async def newest() -> int:
            (value,) = await shop.progress.store.get([tent])
            return 0 if value is None else parse_list(value).ts

        async def written() -> bool:
            return await newest() > 0

        shop.start(redis=f"redis://127.0.0.1:{proxy.port}/0")
        await shop.publish([event("ann", "tent", "bag", at=1)])
        await shop.until(written, "the first rows are not written")
        older = await newest()
        await hold(shop, proxy, tent, lambda _: shop.write("covisits", FLUSH, partition=home))

        successor, owned = await taken_over(shop, f"{shop.settings.topic('covisits')}-{home}")
        events = shop.settings.topic("events")
        homes = ((f"ben{n}", partition_of(f"ben{n}".encode(), shop.settings.events_partitions)) for n in count())
        ben = next(user for user, partition in homes if f"{events}-{partition}" in owned)
        await shop.publish([event(ben, "tent", "stove", at=20)])

        async def replaced() -> bool:
            return await newest() > older

        await shop.until(replaced, "the successor does not write")
        successor.send(signal.SIGSTOP)  # so that it can be seen that the older rows come
        proxy.release()

        async def came() -> bool:
            return await newest() == older

        await shop.until(came, "the older rows do not arrive: nothing is tested")
        successor.send(signal.SIGCONT)
        successor.told = False
        await shop.until(replaced, "the older rows stay", RIGHT_WITHIN_S)


async def test_an_old_price_that_a_frozen_worker_had_under_way_does_not_stay(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        Installation(kafka, redis_server.url, tmp_path, topic_prefix, session_s=SESSION_S) as shop,
    ):

        async def price() -> float | None:
            (value,) = await shop.progress.store.get([shop.keys.item("tent")])
            return None if value is None else parse_item(value).price

        async def set_price(price: int) -> None:
            await shop.write("items", b'{"item_id":"tent","price":%d}' % price, b"tent", 0)

        async def shows(expected: float) -> bool:
            return await price() == expected

        frozen = shop.start(redis=f"redis://127.0.0.1:{proxy.port}/0")
        await set_price(10)
        await shop.until(lambda: shows(10), "the first price is not written")
        await hold(shop, proxy, b":item:tent", lambda _: set_price(20))
        frozen.send(signal.SIGSTOP)
        shop.start()
        await set_price(30)
        await shop.until(lambda: shows(30), "the successor does not write")
        proxy.release()
        await shop.until(lambda: shows(20), "the older price does not arrive: nothing is tested")
        frozen.send(signal.SIGCONT)
        frozen.told = False
        await shop.until(lambda: shows(30), "the older price stays", RIGHT_WITHIN_S)


async def test_a_worker_that_is_cut_off_from_kafka_alone_spoils_nothing(
    kafka_detour: tuple[KafkaBroker, Proxy], redis_server: RedisServer, tmp_path: Path
) -> None:
    """It runs on, may write to Redis and has fetched what it has not learned: its successor learns that and more."""
    broker, detour = kafka_detour
    dice = random.Random(4)
    users = [f"u{n}" for n in range(300)]
    source = (event(dice.choice(users), f"item{dice.randrange(200)}", at=n / 10) for n in count())
    written: list[dict[str, Any]] = []
    (port,) = free_ports(1)
    pages = Pages(port)
    settings = {"session_s": SESSION_S, "batch_records": 50, "neighbours": ROOM, "transitions": ROOM}
    async with Installation(broker.bootstrap, redis_server.url, tmp_path, "cut-", **settings) as shop:

        async def publish(size: int) -> None:
            written.extend(islice(source, size))
            await shop.publish(written[-size:])

        async def in_the_middle() -> bool:
            await publish(1_000)
            return await shop.processed_by(cut_off) > 0 and shop.sent - await shop.included() > AHEAD

        cut_off = shop.start(kafka=f"127.0.0.1:{detour.port}", web_port=str(port))
        successor = shop.start()
        await owns(shop, cut_off, SHARDS // 2)
        await shop.until(in_the_middle, "it is not met in mid-stream")
        detour.hold()
        await publish(2_000)
        await shop.until(lambda: pages.fails("kafka", "assigned"), "Kafka's absence is not told")
        assert await pages.failing("/healthz") == {}
        await owns(shop, successor, SHARDS)
        await shop.drained()
        ends = await shop.progress.ends("events")

        async def all_committed() -> bool:
            committed, saved = await shop.committed("events"), shop.saved("events")
            return all(committed.get(place, 0) >= end <= saved.get(place, 0) for place, end in ends.items())

        await shop.until(all_committed, "the successor does not commit")
        ages = await ages_of_lists(shop, users)
        assert len(ages) == len(users)

        async def right() -> bool:
            return await ages_of_lists(shop, users) == ages

        async def refused() -> bool:
            return values((await pages.metrics())["rivulet_shard_actions"], "action")[("commits_refused",)] > 0

        await shop.until(refused, "it does not try to commit")
        detour.release()  # and what it has sent meanwhile arrives: deltas, and its commits
        await shop.until(right, "older lists stay", RIGHT_WITHIN_S)
        await owns(shop, cut_off, SHARDS // 2)
        assert await right()
        assert await all_committed()

        await publish(500)
        await shop.republish()
        calm = await local_run(written, shop.settings)
        counts = await shop.counts()
        books = sum((shard.counts for shard in calm.users.shards.values()), start=Counter[str]())
        for book in (counts, books):
            del book["controls"]  # lists that were asked for again
        assert counts == books
        assert balance(counts) == shop.sent
        assert await shop.visits() == sum(shard.counts["visits"] for shard in calm.items.shards.values())
        assert different(await shop.lists(users), await lists_in(calm.store, shop.keys, users)) == []
        assert await cut_off.terminate() == await successor.terminate() == 0


async def ages_of_lists(shop: Installation, users: list[str]) -> dict[str, int]:
    """Time of the newest event in each user's list."""
    return {user: found.ts for user, found in (await shop.lists(users)).items()}


async def differs(shop: Installation, ts: int) -> bool:
    found = await shop.list_of("walker")
    return found is None or found.ts != ts

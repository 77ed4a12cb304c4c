"""A worker that was paused while its lists were under way leaves no older list than its successor's."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from models.hashing import partition_of
from stream.keys import parse_item, parse_list
from stream.roster import worker_name
from stream.wire import FLUSH
from tests.brokers import RedisServer, free_ports
from tests.pages import Pages, values
from tests.proxy import Proxy
from tests.records import event
from tests.worker_process import Installation, WorkerProcess

SESSION_S = 3.0
RIGHT_WITHIN_S = 10.0
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


async def test_what_a_frozen_worker_had_under_way_does_not_stay(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        Installation(
            kafka, redis_server.url, tmp_path, topic_prefix, session_s=SESSION_S, snapshot_every_s=600
        ) as shop,
    ):
        (port,) = free_ports(1)
        frozen = shop.start(redis=f"redis://127.0.0.1:{proxy.port}/0", web_port=str(port))
        await shop.publish([event(f"guide{n}", *"abcdefgh", at=n) for n in range(5)])
        await shop.publish([event("walker", "a", at=10)])
        await shop.drained()
        await hold(
            shop, proxy, b"{walker}:recs", lambda n: shop.publish([event("walker", "bdefgh"[n % 6], at=20 + n / 100)])
        )
        frozen.send(signal.SIGSTOP)

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
        frozen.send(signal.SIGCONT)
        frozen.told = False

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
        assert await frozen.terminate() == await successor.terminate() == 0
        ends = await shop.progress.ends("events")
        assert shop.saved("events") == {partition: end for partition, end in ends.items() if end}


async def taken_over(shop: Installation, shard: str) -> tuple[WorkerProcess, set[str]]:
    """Start a worker beside another that gets this shard, and others; the group deals its shards out at random."""

    async def owned() -> set[str]:
        name = worker_name(successor.pid)
        return {shard for shard, owner in (await shop.progress.owners()).items() if owner.startswith(name)}

    async def has_a_half() -> bool:
        return len(await owned()) == SHARDS // 2

    while True:
        successor = shop.start()
        await shop.until(has_a_half, "the second worker has no part")
        if shard in (shards := await owned()):
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


async def differs(shop: Installation, ts: int) -> bool:
    found = await shop.list_of("walker")
    return found is None or found.ts != ts

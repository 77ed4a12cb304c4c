"""A worker that was paused while its lists were under way leaves no older list than its successor's."""

from __future__ import annotations

import signal
from pathlib import Path

from stream.keys import parse_item
from tests.brokers import RedisServer
from tests.proxy import Proxy
from tests.records import event
from tests.worker_process import Installation, WorkerProcess

SESSION_S = 3.0
RIGHT_WITHIN_S = 10.0


async def left_behind(shop: Installation, proxy: Proxy, worker: WorkerProcess) -> None:
    """Freeze a worker whose list of user `walker` has left it, but not reached Redis."""
    proxy.hold()
    await shop.publish([event("walker", "second", at=20)])
    await shop.until(lambda: under_way(proxy), "the list is not written")
    worker.send(signal.SIGSTOP)


async def under_way(proxy: Proxy) -> bool:
    return b"{walker}:recs" in proxy.held


async def test_what_a_frozen_worker_had_under_way_does_not_stay(
    kafka: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    async with (
        Proxy(redis_server.port) as proxy,
        Installation(
            kafka, redis_server.url, tmp_path, topic_prefix, session_s=SESSION_S, snapshot_every_s=600
        ) as shop,
    ):
        frozen = shop.start(redis=f"redis://127.0.0.1:{proxy.port}/0")
        await shop.publish([event(f"guide{n}", *"abcdefgh", at=n) for n in range(5)])
        await shop.publish([event("walker", "a", at=10)])
        await shop.drained()
        await left_behind(shop, proxy, frozen)

        successor = shop.start()
        await shop.publish([event("walker", "c", at=30)])
        await shop.drained()
        assert await shop.processed_by(successor) > 0
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
        await shop.publish([event("other", "b", at=40)])
        await shop.drained()
        assert await right()
        assert "busy" not in frozen.output, "the group had to wait for it"
        committed = await shop.committed("events")
        assert await frozen.terminate() == await successor.terminate() == 0
        assert all(at >= committed.get(p, 0) for p, at in (await shop.committed("events")).items())
        ends = await shop.progress.ends("events")
        assert shop.saved("events") == {partition: end for partition, end in ends.items() if end}


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

        async def held() -> bool:
            return b":item:tent" in proxy.held

        frozen = shop.start(redis=f"redis://127.0.0.1:{proxy.port}/0")
        await set_price(10)
        await shop.until(lambda: shows(10), "the first price is not written")
        proxy.hold()
        await set_price(20)
        await shop.until(held, "the second price is not under way")
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

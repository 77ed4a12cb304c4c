"""Events over HTTP to lists in Redis, through a worker's port and through ``rivulet gateway``, on real servers."""

from __future__ import annotations

import asyncio
import gzip
import signal
from pathlib import Path
from typing import Any

import msgspec
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed

from models.hashing import partition_of
from tests.brokers import KafkaBroker, free_ports
from tests.gateways import Client, Reply, client_of
from tests.mutations import mutated
from tests.patience import PATIENCE_S
from tests.records import event
from tests.worker_process import Installation, WorkerProcess, balance

GATEWAY = ("stream.cli", "gateway")


async def until_ready(shop: Installation, client: Client) -> None:
    async def ready() -> bool:
        try:
            return (await client.ask("GET", "/readyz")).status == 200
        except OSError:
            return False

    await shop.until(ready, "not ready")


def visits(user: str, *items: str) -> list[dict[str, Any]]:
    return [event(user, item, at=n, event_id=f"{user}-{item}") for n, item in enumerate(items)]


async def test_events_over_http_become_lists(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    web, port, private = free_ports(3)
    ports = {"web_port": web, "gateway_port": port, "gateway_private_port": private}
    keys = {"gateway_keys": "shop:a-key-of-the-shop"}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **ports) as shop:
        shop.start(**keys)
        shop.workers.append(WorkerProcess(shop.settings, GATEWAY, **keys))
        async with client_of(web) as worker, client_of(port, private) as apart:
            await until_ready(shop, worker)
            await until_ready(shop, apart)
            replies = []
            for number, door in enumerate((worker, apart) * 10):
                crowd = [visit for n in range(3) for visit in visits(f"u{number}-{n}", "tent", "bag", "stove")]
                replies.append(await door.post(crowd, Authorization="Bearer a-key-of-the-shop"))
                replies.append(await door.post([{"event_name": "view_item"}, 1], "?key=a-key-of-the-shop"))
                replies.append(await door.post(crowd))  # without a key: nothing of it is taken
            call = {"type": "track", "event": "Product Viewed", "userId": "caller", "messageId": "m"}
            product = {"properties": {"product_id": "tent"}, "timestamp": "2025-06-15T15:10:00Z"}
            replies.append(await apart.post({"batch": [call | product]}, "?key=a-key-of-the-shop"))
            replies.append(await worker.post(visits("visitor", "tent"), "?key=a-key-of-the-shop"))
            assert {reply.status for reply in replies} == {202, 400, 401}
            assert await told(worker, "accepted") + await told(apart, "accepted") == 182
        await shop.republish()
        counts = await shop.counts()
        accepted = sum(reply.said.get("accepted", 0) for reply in replies)
        assert (accepted, counts["learned"], balance(counts), counts["shape:segment"]) == (182, 182, 182, 1)
        assert all(at_home(record, shop) for record in await shop.read("events") if record.key is not None)
        assert not await shop.read("dlq")
        for user in ("caller", "visitor"):
            found = await shop.list_of(user)
            assert found is not None
            assert set(found.items) >= {"bag", "stove"}
        assert [await process.terminate() for process in shop.workers] == [0, 0]


def at_home(record: ConsumerRecord, shop: Installation) -> bool:
    return bool(record.partition == partition_of(record.key, shop.settings.events_partitions))


async def test_what_comes_packed_from_pages_and_mutated_is_taken_or_refused_to_the_last_event(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    port, private, slow, slow_private = free_ports(4)
    page, settings = "https://shop.example", {"gateway_port": port, "gateway_private_port": private, "gateway_rate": 0}
    settings["gateway_bytes"] = 200_000
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, gateway_origins=page, **settings) as shop:
        shop.start()
        shop.workers.append(WorkerProcess(shop.settings, GATEWAY))
        limited = {"gateway_port": str(slow), "gateway_private_port": str(slow_private), "gateway_rate": "0.2"}
        shop.workers.append(WorkerProcess(shop.settings, GATEWAY, **limited))
        async with client_of(port, private) as door, client_of(slow, slow_private) as narrow:
            await until_ready(shop, door)
            await until_ready(shop, narrow)
            packed = gzip.compress(msgspec.json.encode(visits("packed", "tent", "bag", "stove")))
            taken = [await door.post(packed, Content_Encoding="gzip"), await door.post(visits("p", "bag"), Origin=page)]
            assert [(reply.status, reply.said["accepted"]) for reply in taken] == [(202, 3), (202, 1)]
            assert taken[1].headers["Access-Control-Allow-Origin"] == page
            assert (await door.ask("OPTIONS", "/v1/events", headers={"Origin": page})).status == 204
            assert (await door.post(visits("p", "bag"), Origin="https://evil.example")).status == 403
            assert (await door.post(visits("p", *map(str, range(501))))).status == 413
            long = b" " * (shop.settings.gateway_bytes + 1)
            for reply in (await door.post(long), await door.post(gzip.compress(long), Content_Encoding="gzip")):
                assert (reply.status, "longer than 200000 bytes" in reply.said["error"]) == (413, True)
            binary = {"ce_specversion": "1.0", "ce_type": "shop.view_item", "ce_source": "/shop", "ce_id": "1"}
            taken.append(await door.post({"user_id": "cloud", "item_id": "bag"}, **binary))
            assert taken[2].said["mapped"] == {"cloudevents": 1}
            taken.append(await narrow.post(visits("fast", *map(str, range(50)))))  # of minutes
            assert (await narrow.post(visits("fast", "stove"))).status == 429
            mutants = [await door.post(body) for body in mutated(600, seed=7)]
            assert {reply.status for reply in mutants} == {202, 400}
        accepted = sum(reply.said.get("accepted", 0) for reply in (*taken, *mutants))
        await shop.drained()
        events = [record for record in await shop.read("events") if b'"control"' not in record.value]
        assert len(events) == accepted
        assert balance(await shop.counts()) == accepted
        assert [await process.terminate() for process in shop.workers] == [0, 0, 0]


async def test_each_write_key_has_a_rate_of_its_own(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    port, private = free_ports(2)
    settings = {"gateway_port": port, "gateway_private_port": private, "gateway_rate": 0, "gateway_key_rate": 0.01}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **settings) as shop:
        shop.workers.append(
            WorkerProcess(shop.settings, GATEWAY, gateway_keys="web:key-of-the-page1,shop:key-of-the-shop1")
        )
        async with client_of(port, private) as door:
            await until_ready(shop, door)
            first = await door.post(visits("page", *map(str, range(50))), "?key=key-of-the-page1")  # of hours
            again = await door.post(visits("page", "tent"), "?key=key-of-the-page1")
            other = await door.post(visits("shop", "tent"), Authorization="Bearer key-of-the-shop1")
        assert [reply.status for reply in (first, again, other)] == [202, 429, 202]
        assert again.said == {"error": "too many events of this write key"}
        assert int(again.headers["Retry-After"]) > 1
        assert len(await shop.read("events")) == 51


async def told(client: Client, outcome: str) -> int:
    """Events that a door's metrics count under an outcome."""
    lines = (await client.text("/metrics")).splitlines()
    mine = [line for line in lines if line.startswith("rivulet_door_events_total{") and f'"{outcome}"' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in mine)


async def test_kafka_away_is_503_and_nothing_is_lost_or_kept(
    kafka_broker: KafkaBroker, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Every event is sent until it is acknowledged, as a client would; the books count each of them once."""
    port, private = free_ports(2)
    settings = {"gateway_port": port, "gateway_private_port": private, "gateway_ack_s": 2, "gateway_queue_mb": 4}
    async with Installation(kafka_broker.bootstrap, redis_url, tmp_path, topic_prefix, **settings) as shop:
        door = WorkerProcess(shop.settings, GATEWAY)
        shop.workers.append(door)
        async with client_of(port, private) as client:
            await until_ready(shop, client)
            sent = [visits(f"u{n}", *("tent", "bag")[: n % 2 + 1]) for n in range(60)]
            assert (await client.post(sent[0])).status == 202
            for away, back, batches in (
                (kafka_broker.pause, kafka_broker.resume, sent[1:30]),
                (kafka_broker.kill, kafka_broker.start, sent[30:]),
            ):
                await asyncio.to_thread(away)
                refused = await asyncio.gather(*(client.post(batch) for batch in batches))
                assert {reply.status for reply in refused} == {503}
                assert all(int(reply.headers["Retry-After"]) >= 1 for reply in refused)
                assert (await client.ask("GET", "/readyz")).said["failing"].keys() == {"kafka"}
                assert (await client.ask("GET", "/healthz")).status == 200
                at_once = await client.post(batches[0])  # nobody waits for a server that is known to be away
                assert "away" in at_once.said["error"]
                await asyncio.to_thread(back)
                await asyncio.gather(*(accepted(client, batch) for batch in batches))
            await accepted(client, sent[0])  # whether any of the others came twice is up to the broker
            assert await held(client) == 0
        assert await door.terminate() == 0
        shop.start()
        await shop.republish()
        counts = await shop.counts()
        assert counts["learned"] == sum(map(len, sent)) == 90  # what arrived in spite of a 503 was sent twice
        assert balance(counts) == 90 + counts["duplicates"]
        assert counts["duplicates"] > 0
        found = await shop.lists([f"u{n}" for n in range(60)])
        other = {f"u{n}": ["tent"] if n % 2 else ["bag"] for n in range(60)}
        assert {user: lists.items for user, lists in found.items()} == other


async def held(client: Client) -> float:
    """Bytes that a door has in hand."""
    lines = (await client.text("/metrics")).splitlines()
    return float(next(line for line in lines if line.startswith("rivulet_door_queue_bytes ")).split()[1])


async def test_what_does_not_fit_into_the_queue_is_503_at_once_and_what_it_holds_arrives(
    kafka_broker: KafkaBroker, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """The broker is silent, and for want of an answer nobody can know yet that it is away."""
    port, private = free_ports(2)
    settings: dict[str, Any] = {"gateway_port": port, "gateway_private_port": private, "gateway_rate": 0}
    settings |= {"gateway_ack_s": 4 * PATIENCE_S, "gateway_queue_mb": 4}
    async with Installation(kafka_broker.bootstrap, redis_url, tmp_path, topic_prefix, **settings) as shop:
        shop.workers.append(WorkerProcess(shop.settings, GATEWAY))
        async with client_of(port, private) as client:
            await until_ready(shop, client)
            # a kilobyte of each event's own and one that is reckoned for it: three crowds fit
            crowds = [
                [visit | {"note": "x" * 1_000} for visit in visits(f"u{n}", *map(str, range(500)))] for n in range(12)
            ]
            await asyncio.to_thread(kafka_broker.pause)
            posts = [asyncio.create_task(client.post(crowd)) for crowd in crowds]

            async def settled() -> bool:
                waiting = sum(not post.done() for post in posts)
                return waiting <= 3 and await held(client) > waiting << 20

            await shop.until(settled, "each is refused, or holds its room")
            refused = [n for n, post in enumerate(posts) if post.done()]
            replies = [posts[n].result() for n in refused]
            assert {(reply.status, reply.said["error"]) for reply in replies} == {
                (503, "the queue towards Kafka is full")
            }
            assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)
            assert len(refused) < len(posts)
            assert await held(client) <= 4 << 20
            await asyncio.to_thread(kafka_broker.resume)
            assert {reply.status for reply in await asyncio.gather(*posts)} == {202, 503}
            for n in refused:
                await accepted(client, crowds[n])
            assert await held(client) == 0
        assert len(await shop.read("events")) == sum(map(len, crowds))  # nothing of what was refused had been sent


async def accepted(client: Client, batch: list[dict[str, Any]]) -> None:
    """Send until it is taken, as often as the door says."""
    while (reply := await client.post(batch)).status == 503:
        pause_s = int(reply.headers["Retry-After"])
        await asyncio.sleep(pause_s)
    assert (reply.status, reply.said) == (202, {"accepted": len(batch)})


async def test_a_gateway_that_ends_answers_what_it_let_in(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    port, private = free_ports(2)
    ports = {"gateway_port": port, "gateway_private_port": private}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **ports) as shop:
        door = WorkerProcess(shop.settings, GATEWAY)
        shop.workers.append(door)
        async with client_of(port, private) as client:
            await until_ready(shop, client)
            posts = [asyncio.create_task(client.post(visits(f"u{n}", "tent"))) for n in range(50)]
            await asyncio.wait(posts, return_when=asyncio.FIRST_COMPLETED)
            door.send(signal.SIGTERM)
            replies = await asyncio.gather(*posts, return_exceptions=True)
        assert await door.exit_code() == 0
        taken = [reply for reply in replies if isinstance(reply, Reply) and reply.status == 202]
        assert taken
        assert len(await shop.read("events")) >= len(taken)

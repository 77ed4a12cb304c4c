"""What the door takes, refuses and says, over real HTTP and the embedded broker."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed
from prometheus_client.parser import text_string_to_metric_families

from models.hashing import partition_of
from stream.demo.embedded import EmbeddedKafka
from stream.errors import ConfigurationError, UnavailableError
from stream.settings import Settings
from stream.web.door import Door
from stream.web.gateway import Gateway
from stream.web.pages import Pages, Port
from tests.brokers import free_ports
from tests.gateways import Client, gateway
from tests.patience import PATIENCE_S
from tests.records import read_events

pytestmark = pytest.mark.asyncio(loop_scope="module")

README = Path(__file__).parents[3] / "README.md"
KEYS = "web:browser-key-0001,shop:server-key-00002"
BAD = {"event_name": "view_item", "user_id": 7}


def view(user: str, **more: Any) -> dict[str, Any]:
    return {"event_name": "view_item", "user_id": user, "item_id": "i1", **more}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def broker() -> AsyncIterator[str]:
    with EmbeddedKafka({"events": 4}) as embedded:
        yield embedded.bootstrap


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def door(broker: str) -> AsyncIterator[tuple[Gateway, Client]]:
    async with gateway(broker, gateway_rate=0, gateway_events=50, gateway_bytes=20_000) as found:
        yield found


@pytest.fixture
def client(door: tuple[Gateway, Client]) -> Client:
    return door[1]


async def records_of(bootstrap: str, *users: str) -> list[ConsumerRecord]:
    """Every record of some users."""
    return [record for record in await read_events(bootstrap) if record.key.decode() in users]


@pytest.mark.parametrize("wrap", [lambda e: e, lambda e: {"events": e}], ids=["array", "events"])
async def test_many_users_are_split_and_placed(client: Client, broker: str, wrap: Any) -> None:
    users = [f"many{wrap([])!r}-{n}" for n in range(12)]
    reply = await client.post(wrap([view(user, event_id=f"e-{user}", shelf=3) for user in users]))
    assert (reply.status, reply.said) == (202, {"accepted": 12})
    records = await records_of(broker, *users)
    assert sorted(record.key.decode() for record in records) == sorted(users)
    for record in records:
        assert record.partition == partition_of(record.key, 4)
        sent = json.loads(record.value)
        assert sent.pop("event_timestamp") > 1_700_000_000_000_000
        assert sent == view(record.key.decode(), event_id=f"e-{record.key.decode()}", shelf=3)


async def test_the_readme_says_what_is_answered(client: Client) -> None:
    example = re.search(r"-d '(.+)'\nHTTP/1.1 (\d+) .*\n(.+)\n", README.read_text(encoding="utf-8"))
    assert example
    reply = await client.post(example[1].encode(), Content_Type="application/x-www-form-urlencoded")  # curl's own
    assert (str(reply.status), reply.said) == (example[2], json.loads(example[3]))


async def test_one_event_gets_id_and_time_and_order_is_kept(client: Client, broker: str) -> None:
    assert (await client.post(view("alone"))).said == {"accepted": 1}
    (record,) = await records_of(broker, "alone")
    assert {"event_id", "event_timestamp"} < json.loads(record.value).keys()
    await client.post([view("ordered", item_id=f"i{n}") for n in range(40)])
    assert [json.loads(r.value)["item_id"] for r in await records_of(broker, "ordered")] == [f"i{n}" for n in range(40)]


async def test_good_elements_are_kept_and_bad_ones_reported(client: Client, broker: str) -> None:
    reply = await client.post([view("partial"), BAD, 5, view("partial")])
    assert (reply.status, reply.said["accepted"]) == (202, 2)
    refused = reply.said["refused"]
    assert [(found["index"], found.get("field"), found["reason"]) for found in refused] == [
        (1, "user_id", "schema"),
        (2, None, "unknown_shape"),
    ]
    crowd = view("partial", items=[{"item_id": str(n)} for n in range(201)])
    refused = (await client.post([crowd, view("partial", items=[{"item_id": "a"}, {"price": 1}])])).said["refused"]
    assert [(found["index"], found["field"]) for found in refused] == [(0, "items"), (1, "items[1].item_id")]
    assert len(await records_of(broker, "partial")) == 2


async def test_nothing_acceptable_is_400_and_nothing_is_sent(client: Client) -> None:
    reply = await client.post([BAD, {"event_name": "view_item"}])
    assert (reply.status, reply.said["accepted"]) == (400, 0)
    assert [found["reason"] for found in reply.said["refused"]] == ["schema", "missing_user"]
    for body, reason in ((b"", "empty"), (b"[]", "empty"), (b"{", "not_json"), (b"\xff", "not_json")):
        reply = await client.post(body)
        assert (reply.status, reply.said["refused"][0]["reason"]) == (400, reason)


@pytest.mark.parametrize("control", ['{"control":"forget","user":"u"}', '{"control":"rank_all"}'])
async def test_control_records_are_not_taken(client: Client, control: str) -> None:
    for body in (control, f"[{control}]", f'{{"events":[{control}]}}'):
        reply = await client.post(body.encode())
        assert (reply.status, reply.said["accepted"], len(reply.said["refused"])) == (400, 0, 1)


async def test_other_shapes_are_mapped_and_sent_as_they_are(client: Client, broker: str) -> None:
    call = {"type": "track", "event": "Product Viewed", "userId": "caller", "properties": {"product_id": "p"}}
    reply = await client.post({"batch": [call, call | {"type": "group"}, call]})
    assert (reply.status, reply.said["accepted"], reply.said["mapped"]) == (202, 2, {"segment": 2})
    assert [(found["index"], found["reason"]) for found in reply.said["refused"]] == [(1, "unmapped")]
    assert [json.loads(record.value) for record in await records_of(broker, "caller")] == [call, call]
    rows = b"timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
    reply = await client.post(rows, Content_Type="text/csv")
    assert (reply.status, reply.said["accepted"], reply.said["mapped"]) == (202, 1, {"retailrocket": 1})


async def test_a_cloudevent_in_binary_mode(client: Client, broker: str) -> None:
    attributes = {"ce_specversion": "1.0", "ce_type": "shop.view_item", "ce_source": "/shop", "ce_id": "caf%C3%A9"}
    reply = await client.post({"user_id": "binary", "item_id": "i1"}, **attributes)
    assert (reply.status, reply.said) == (202, {"accepted": 1, "mapped": {"cloudevents": 1}})
    (record,) = await records_of(broker, "binary")
    sent = json.loads(record.value)
    assert (sent["event_name"], sent["event_id"]) == ("view_item", "/shop#café")


async def raw(client: Client, head: bytes, body: bytes, *, cut_off: bool = False) -> bytes:
    """First line of the answer to what no client library would send; empty if there is none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.base.rpartition(":")[2]))
    writer.write(b"POST /v1/events HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n\r\n" + body)
    if cut_off:
        writer.write_eof()
    line = await reader.readline()
    writer.close()
    return line


async def test_headers_that_are_no_text_are_refused(client: Client, door: tuple[Gateway, Client]) -> None:
    length = b"Content-Length: 2\r\n"
    for header in (b"Authorization: Bearer \xff", b"Origin: \xff", b"X-Forwarded-For: \xff", b"Content-Encoding: \xff"):
        assert (await raw(client, length + header, b"{}")).split()[1] in (b"400", b"403", b"415"), header
    attributes = b"ce-specversion: 1.0\r\nce-type: t\r\nce-source: \xff\r\nce-id: %ff"
    assert b" 400 " in await raw(client, length + attributes, b"{}")
    assert set(door[0].door.requests) <= {202, 400, 403, 408, 413, 415}


async def test_broken_requests_are_answered_and_not_logged(
    client: Client, door: tuple[Gateway, Client], caplog: pytest.LogCaptureFixture
) -> None:
    assert b" 400 " in await raw(client, b"Content-Length: secret", b"{}")
    assert b" 400 " in await raw(client, b"Transfer-Encoding: chunked", b"secret\r\n{}\r\n0\r\n\r\n")
    before = door[0].door.requests[400]
    assert await raw(client, b"Transfer-Encoding: chunked", b"5\r\n{}", cut_off=True) == b""
    assert await raw(client, b"Content-Length: 10", b"{}", cut_off=True) == b""
    assert door[0].door.requests[400] == before + 2
    assert caplog.records == []
    assert door[0].inlet.room.held == 0


async def test_too_many_events_or_bytes(client: Client) -> None:
    reply = await client.post([1] * 51)
    assert (reply.status, reply.said["refused"][0]["detail"]) == (413, "51 events, at most 50")
    crowd = view("many", items=[{"item_id": f"i{n}"} for n in range(201)])
    for body, status in ((crowd, 400), ([crowd], 400), ([crowd, view("many")], 202)):
        reply = await client.post(body)
        assert (reply.status, reply.said["accepted"]) == (status, int(status == 202))
        assert [(each["index"], each["reason"]) for each in reply.said["refused"]] == [(0, "too_many")]
    assert (await client.post(b" " * 20_001)).status == 413

    async def chunks() -> AsyncIterator[bytes]:  # a length that is not said beforehand
        for _ in range(30):
            yield b" " * 1_000

    assert (await client.ask("POST", "/v1/events", data=chunks())).status == 413


async def test_compressed_bodies(client: Client, broker: str) -> None:
    body = json.dumps([view("packed")] * 3).encode()
    assert (await client.post(gzip.compress(body), Content_Encoding="gzip")).said == {"accepted": 3}
    assert (await client.post(zlib.compress(body), Content_Encoding="deflate")).said == {"accepted": 3}
    assert len(await records_of(broker, "packed")) == 6
    bomb = gzip.compress(b" " * 10_000_000)
    assert len(bomb) < 20_000
    assert (await client.post(bomb, Content_Encoding="gzip")).status == 413
    assert (await client.post(body, Content_Encoding="gzip")).status == 400
    assert (await client.post(gzip.compress(body)[:-9], Content_Encoding="gzip")).status == 400
    assert (await client.post(body, Content_Encoding="br")).status == 415


async def test_keys(broker: str) -> None:
    async with gateway(broker, gateway_keys=KEYS) as (made, client):
        basic = base64.b64encode(b"server-key-00002:").decode()
        accepted = (
            await client.post(view("keyed"), Authorization="Bearer server-key-00002"),
            await client.post(view("keyed"), Authorization=f"Basic {basic}"),
            await client.post(view("keyed"), "?key=browser-key-0001"),
        )
        assert [reply.status for reply in accepted] == [202] * 3
        refused = (
            await client.post(view("keyed")),
            await client.post(view("keyed"), "?key=browser-key-0002"),
            await client.post(view("keyed"), Authorization="Basic !"),
            await client.post(view("keyed"), "?key=browser-key-0001", Authorization="Bearer no"),
        )
        assert [reply.status for reply in refused] == [401] * 4
        assert {reply.headers["WWW-Authenticate"] for reply in refused} == {"Bearer"}
        assert made.door.events == {("shop", "accepted", ""): 2, ("web", "accepted", ""): 1}
    assert len(await records_of(broker, "keyed")) == 3


async def test_origins(client: Client, broker: str) -> None:
    shop = "https://shop.example"
    assert (await client.post(view("page"), Origin=shop)).status == 403  # no page may, unless it is said
    async with gateway(broker, gateway_origins=f"{shop}/, https://b.example") as (_, allowing):
        reply = await allowing.post(view("page"), Origin=shop)
        assert (reply.status, reply.headers["Access-Control-Allow-Origin"]) == (202, shop)
        assert (await allowing.post([BAD], Origin=shop)).headers["Access-Control-Allow-Origin"] == shop
        reply = await allowing.ask("OPTIONS", "/v1/events", headers={"Origin": shop})
        assert (reply.status, reply.headers["Access-Control-Allow-Methods"]) == (204, "POST")
        for method in ("POST", "OPTIONS"):
            reply = await allowing.ask(method, "/v1/events", headers={"Origin": "https://evil.example"})
            assert reply.status == 403
            assert "Access-Control-Allow-Origin" not in reply.headers
        assert (await allowing.post(view("page"))).status == 202  # a server
    assert len(await records_of(broker, "page")) == 2


async def test_rates(broker: str) -> None:
    async with gateway(broker, gateway_rate=0.2, gateway_proxies=1) as (_, client):
        first = {"X_Forwarded_For": "6.6.6.6, 9.9.9.1"}
        assert (await client.post([view("fast")] * 60, **first)).status == 202  # read before it could be known
        reply = await client.post(view("fast"), **first)
        assert reply.status == 429
        assert 100 < int(reply.headers["Retry-After"]) <= 300
        assert (await client.post(view("fast"), X_Forwarded_For="9.9.9.1, 9.9.9.2")).status == 202


async def test_a_full_queue_is_503_and_memory_is_given_back(broker: str) -> None:
    async with gateway(broker, gateway_queue_mb=4) as (made, client):
        room = made.inlet.room
        with room.growing() as hold:
            hold(room.most - 1_000)
            assert (await client.ask("GET", "/readyz")).status == 503
            reply = await client.post([view("full")] * 100)
            assert (reply.status, reply.said["error"]) == (503, "the queue towards Kafka is full")
            assert reply.headers["Retry-After"] == "2"
        assert (await client.ask("GET", "/readyz")).status == 200
        assert (await client.post([view("full")] * 100)).status == 202
        assert room.held == 0
    assert len(await records_of(broker, "full")) == 100


async def until_held(made: Gateway, client: Client, size: int) -> None:
    """Wait until the door has so many bytes in hand, and no more."""
    async with asyncio.timeout(PATIENCE_S):
        while made.inlet.room.held < size:
            await client.ask("GET", "/healthz")
    assert made.inlet.room.held == size


async def test_slow_bodies_leave_the_door_open_and_are_not_waited_for(broker: str) -> None:
    """As many as would fill the queue if each held the room of the longest body."""

    async def slow() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    async with gateway(broker, gateway_queue_mb=4, gateway_body_s=8) as (made, client):
        url = client.base + "/v1/events"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            posts = [asyncio.create_task(session.post(url, data=slow())) for _ in range(8)]
            await until_held(made, client, len(posts))  # what has arrived
            assert (await client.post(view("quick"))).status == 202
            assert not any(post.done() for post in posts)
            assert {answer.status for answer in await asyncio.gather(*posts)} == {408}
        assert made.inlet.room.held == 0


async def test_requests_that_came_in_together_count_for_what_they_carry(broker: str) -> None:
    """All are let in before the first is read; the rate is that of their events nevertheless."""
    async with gateway(broker, gateway_rate=20, gateway_keys=KEYS, gateway_key_rate=0.5) as (made, client):
        gate = asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            yield b"["
            await gate.wait()
            yield json.dumps([view("crowd")] * 40).encode()[1:]

        headers = {"Authorization": "Bearer server-key-00002"}
        posts = [asyncio.create_task(client.ask("POST", "/v1/events", data=held(), headers=headers)) for _ in range(2)]
        await until_held(made, client, len(posts))
        gate.set()
        assert sorted(reply.status for reply in await asyncio.gather(*posts)) == [202, 429]
        assert made.door.events == {("shop", "accepted", ""): 40}
    assert len(await records_of(broker, "crowd")) == 40


async def test_pages_and_metrics(broker: str) -> None:
    async with gateway(broker) as (_, client):
        await client.post([view("metered"), BAD])
        await client.post({"client_id": "metered", "events": [{"name": "search"}]})
        await client.post(b"{")
        assert (await client.ask("GET", "/readyz")).said == {"ok": True, "failing": {}}
        families = {f.name: f for f in text_string_to_metric_families(await client.text("/metrics"))}
        events = {(s.labels["outcome"], s.labels["reason"]): s.value for s in families["rivulet_door_events"].samples}
        assert events == {("accepted", ""): 2, ("refused", "schema"): 1, ("refused", "not_json"): 1}
        assert {s.labels["status"]: s.value for s in families["rivulet_door_requests"].samples} == {"202": 2, "400": 1}
        assert [s.value for s in families["rivulet_door_mapped"].samples] == [1]
        assert families["rivulet_door_queue_bytes"].samples[0].value == 0


async def test_what_is_inside_is_told_on_the_private_port_only(broker: str) -> None:
    async with gateway(broker) as (made, client), aiohttp.ClientSession() as session:

        async def status(port: int, method: str, path: str) -> int:
            async with session.request(method, f"http://127.0.0.1:{port}{path}", data=b"{}") as answer:
                return answer.status

        public, private = made.settings.gateway_port, made.settings.gateway_private_port
        assert client.base.endswith(f":{public}")
        asked = [("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/metrics"), ("POST", "/v1/events")]
        assert [await status(public, *each) for each in asked] == [200, 404, 404, 400]
        assert [await status(private, *each) for each in asked] == [200, 200, 200, 404]
        other = made.settings.model_copy(update={"gateway_port": free_ports(1)[0]})
        with pytest.raises(ConfigurationError, match=f"RIVULET_GATEWAY_PRIVATE_PORT=127.0.0.1:{private}: .*in use"):
            await Gateway(other).serve()
        async with gateway(broker, gateway_private_port=0) as (_, alone):
            assert (await alone.post(view("alone-with-one-port"))).status == 202


async def test_a_producer_that_hangs_is_replaced_and_what_it_held_is_given_up(broker: str) -> None:
    async with gateway(broker, gateway_ack_s=3, gateway_rate=0) as (made, client):
        assert (await client.post(view("hung"))).status == 202
        made.inlet._producer._sender.sender_task.cancel()
        assert (await client.post(view("hung"))).status == 503
        assert made.inlet.room.held > 0
        async with asyncio.timeout(PATIENCE_S):
            while (reply := await client.post(view("hung"))).status == 503:
                pass
        assert (reply.status, made.inlet.room.held) == (202, 0)
    assert len(await records_of(broker, "hung")) == 2


async def test_without_keys_only_a_loopback_is_open() -> None:
    with pytest.raises(ConfigurationError, match="GATEWAY_KEYS"):
        Gateway(Settings(gateway_host="0.0.0.0"))
    Gateway(Settings(gateway_host="0.0.0.0", gateway_keys="*"))
    closed = Gateway(Settings())
    door = Door(closed.settings, closed.inlet, "0.0.0.0")  # a worker's pages go on without it
    assert "RIVULET_GATEWAY_KEYS" in door.access.closed
    with pytest.raises(ConfigurationError, match="entry 2") as error:
        Gateway(Settings(gateway_keys="web:browser-key-0001,shop:secret"))
    assert "secret" not in str(error.value)


async def test_no_broker_at_the_start_is_one_line() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError, match="does not answer"):
        await Gateway(Settings(kafka=f"127.0.0.1:{port}")).serve()


async def test_a_connection_without_further_requests_is_closed() -> None:
    (port,) = free_ports(1)
    served = Port("127.0.0.1", port, Pages(dict, dict, ()).health(), 1, idle_s=0.1)
    await served.start()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            told = await reader.read()  # up to the end
        writer.close()
    finally:
        await served.stop()
    assert told.startswith(b"HTTP/1.1 200")
    assert b"close" not in told

"""What the producer accepts, adds, refuses and promises; on the embedded broker."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiokafka.partitioner import murmur2  # type: ignore[import-untyped]  # no py.typed

from stream.demo.embedded import EmbeddedKafka
from stream.drafts import prepare, uuid7
from stream.errors import BadInputError, ConfigurationError, UnavailableError
from stream.events import Event
from stream.producer import EventProducer
from tests.brokers import free_ports
from tests.records import read_events

NOW_NS = 1_700_000_000_123_456_789
VIEW = {"event_name": "view_item", "user_id": "u1", "item_id": "i1"}


@pytest.fixture
def broker() -> Iterator[str]:
    with EmbeddedKafka({"events": 4}) as embedded:
        yield embedded.bootstrap


def test_missing_id_and_time_are_added_and_unknown_fields_kept() -> None:
    event = {**VIEW, "shelf": {"row": 3}}
    key, value = prepare(event, NOW_NS)
    sent = json.loads(value)
    assert key == b"u1"
    assert sent.pop("event_timestamp") == NOW_NS // 1000
    assert uuid.UUID(sent.pop("event_id")).version == 7
    assert sent == event
    assert "event_id" not in event


@pytest.mark.parametrize("form", [dict, msgspec.json.encode, lambda fields: msgspec.convert(fields, Event)])
def test_all_forms_of_an_event_give_the_same_record(form: Any) -> None:
    complete = {"event_name": "purchase", "event_id": "e1", "event_timestamp": 1_600_000_000_000_000, "user_id": "u1"}
    key, value = prepare(form(complete), NOW_NS)
    assert (key, json.loads(value)) == (b"u1", complete)
    _, completed = prepare(form(VIEW), NOW_NS)
    assert json.loads(completed).keys() == {*VIEW, "event_id", "event_timestamp"}


def test_bytes_that_are_complete_are_sent_untouched() -> None:
    text = b'{ "event_name":"search", "event_id":"e","event_timestamp":1600000000, "user_pseudo_id":"c7" }'
    assert prepare(text, NOW_NS) == (b"c7", text)


def test_the_customer_goes_before_the_cookie() -> None:
    assert prepare({**VIEW, "user_pseudo_id": "cookie"}, NOW_NS)[0] == b"u1"


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"event_name": "view_item", "item_id": "i1"}, "user_id"),
        ({"user_id": "u1"}, "event_name"),
        ({**VIEW, "user_id": 7}, "user_id"),
        ({**VIEW, "user_id": ""}, "user_id"),
        ({**VIEW, "user_id": "u" * 257}, "user_id"),
        ({**VIEW, "user_id": "a\nb"}, "user_id"),
        ({**VIEW, "items": [{"item_id": 3}]}, "item_id"),
        ({**VIEW, "event_timestamp": "yesterday"}, "event_timestamp"),
        ({**VIEW, "event_timestamp": 1}, "time_absurd"),
        ({**VIEW, "event_timestamp": NOW_NS // 1000 + 2 * 3_600_000_000}, "time_absurd"),
        ({**VIEW, "consent": {"analytics_storage": "maybe"}}, "analytics_storage"),
        ({**VIEW, "event_params": {"text": "x" * 1_100_000}}, "bytes"),
        ({**VIEW, "event_params": {"a": object()}}, "not JSON"),
        (b"{", "not_json"),
        (b'[{"event_name":"a","user_id":"u"}]', "one event is expected"),
        (b'[{"event_name":"a","user_id":"u"},{"event_name":"b","user_id":"u"}]', "one event is expected"),
        (b'{"control":"rank_all"}', "one event is expected"),
    ],
)
def test_what_the_worker_would_refuse_is_refused_here_and_named(event: Any, named: str) -> None:
    with pytest.raises(BadInputError, match=named) as refused:
        prepare(event, NOW_NS)
    assert "\n" not in str(refused.value)


def test_uuid7_sorts_by_time_and_is_well_formed() -> None:
    ids = [uuid7(NOW_NS // 1_000_000 + i) for i in range(100)]
    assert ids == sorted(set(ids))
    for text in ids:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)


async def test_records_stand_where_every_kafka_client_would_put_them(broker: str) -> None:
    users = [f"user-{i}" for i in range(50)] + ["ünïcode", "x"]
    async with EventProducer(broker) as producer:
        receipts = {
            user: await producer.send({**VIEW, "user_id": user}, timestamp_ms=NOW_NS // 10**6) for user in users
        }
    for user, receipt in receipts.items():
        assert receipt.partition == (murmur2(user.encode()) & 0x7FFFFFFF) % 4
    records = await read_events(broker)
    assert {(r.partition, r.offset): r.key.decode() for r in records} == {tuple(r): u for u, r in receipts.items()}
    assert {r.timestamp for r in records} == {NOW_NS // 10**6}


async def test_send_soon_keeps_each_users_order_with_few_in_flight(broker: str) -> None:
    async with EventProducer(broker, max_in_flight=10) as producer:
        for i in range(400):
            await producer.send_soon({**VIEW, "user_id": f"u{i % 3}", "event_params": {"i": i}})
            assert len(producer._pending) <= 10
    seen: dict[bytes, list[int]] = {}
    for record in await read_events(broker):
        seen.setdefault(record.key, []).append(json.loads(record.value)["event_params"]["i"])
    assert seen == {f"u{u}".encode(): list(range(u, 400, 3)) for u in range(3)}


async def test_a_bad_event_does_not_disturb_the_others(broker: str) -> None:
    async with EventProducer(broker) as producer:
        await producer.send_soon(VIEW)
        with pytest.raises(BadInputError):
            await producer.send_soon({"event_name": "view_item"})
        await producer.send_soon(VIEW)
    assert len(await read_events(broker)) == 2


async def test_a_missing_topic_is_named(kafka: str, topic_prefix: str) -> None:
    with pytest.raises(ConfigurationError, match=f"topic {topic_prefix}x does not exist: run `rivulet topics`"):
        async with EventProducer(kafka, topic_prefix + "x"):
            pass


async def test_no_broker_is_one_clear_line() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{port}"):
        async with EventProducer(f"127.0.0.1:{port}"):
            pass


async def test_a_wrong_option_is_one_clear_line() -> None:
    with pytest.raises(ConfigurationError, match="SCRAM"):
        async with EventProducer("127.0.0.1:1", security_protocol="SASL_PLAINTEXT", sasl_mechanism="NO"):
            pass


def test_time_comes_from_the_given_clock() -> None:
    before = time.time_ns()
    assert json.loads(prepare(VIEW, before)[1])["event_timestamp"] == before // 1000

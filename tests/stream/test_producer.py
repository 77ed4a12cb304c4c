"""What the producer accepts, adds and refuses; what it promises is in `tests/contracts`."""

import json
import time
import uuid
from typing import Any

import msgspec
import pytest

from stream.drafts import prepare, uuid7
from stream.errors import BadInputError, ConfigurationError, UnavailableError
from stream.events import Event
from stream.producer import EventProducer
from tests.brokers import free_ports

NOW_NS = 1_700_000_000_123_456_789
VIEW = {"event_name": "view_item", "user_id": "u1", "item_id": "i1"}


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

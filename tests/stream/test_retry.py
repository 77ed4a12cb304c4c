"""What a dead letter becomes when it is sent again, and which letters a filter means."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from stream.decoding import DeadLetter, decode
from stream.errors import BadInputError
from stream.letters import Filter, Letter, Number
from stream.recordings.records import Raw
from stream.retry import sendings
from stream.settings import Settings
from stream.stages.outgoing import dead_letter
from tests.records import T0_US, event

SETTINGS = Settings()
MS = T0_US // 1000


def letter(value: bytes, **fields: Any) -> Letter:
    made = Letter(Number(0, 5), MS + 9, "schema", "why", "events", 2, 7, 0, MS, b"key", value, (), "open")
    return made._replace(**fields)


def test_what_names_itself_goes_byte_by_byte_to_its_user() -> None:
    value = b' {"event_name":"view_item","event_id":"e","user_id":"u","event_timestamp":"2024-01-01"}'
    assert sendings(letter(value, headers=(("h", b"1"),)), MS, SETTINGS) == [(b"u", value, (("h", b"1"),))]


def test_without_id_and_time_it_gets_those_of_its_place_and_record() -> None:
    value = b'{"event_name":"view_item","user_id":"u"}'
    named = b',"event_id":"rekeyed-2-7-3","event_timestamp":%d}' % (MS * 1000)
    assert sendings(letter(value, index=3), MS + 10**9, SETTINGS) == [(b"u", value[:-1] + named, ())]


def test_a_letter_that_is_a_batch_becomes_its_events() -> None:
    value = msgspec.json.encode([event("a", "x"), event("b", "y", event_id="own")])
    found = sendings(letter(value), MS, SETTINGS)
    assert isinstance(found, list)
    ids = [(user, msgspec.json.decode(each)["event_id"]) for user, each, _ in found]
    assert ids == [(b"a", "rekeyed-2-7-0"), (b"b", "own")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"value": b"{nonsense"}, "not_json"),
        ({"value": b""}, "empty"),
        ({"value": msgspec.json.encode([event("a", "x"), {}])}, "schema"),
        ({"value": msgspec.json.encode(event("a", "x", at=7200))}, "time_absurd"),
        ({"topic": "elsewhere"}, "no_origin"),
        ({"offset": -1}, "no_origin"),
        ({"topic": "privacy", "value": b"{}"}, "schema"),
        ({"value": b'{"control":"link","source":0,"moving":[]}'}, "no_retry"),
        ({"value": b'{"control":"joined","source":0,"moving":[]}'}, "no_retry"),
        ({"value": b'{"control":"returned","source":0,"moving":[]}'}, "no_retry"),
        ({"value": b'{"control":"disowned","person":"0123456789abcdef"}'}, "no_retry"),
    ],
)
def test_what_would_be_refused_again_is_not_sent(fields: dict[str, Any], reason: str) -> None:
    found = sendings(letter(b'{"event_name":"login","user_id":"u"}')._replace(**fields), MS, SETTINGS)
    assert isinstance(found, DeadLetter)
    assert found.reason == reason


def test_a_request_of_the_privacy_topic_goes_as_it_stands() -> None:
    value = b'{"control":"forget","user":"u"}'
    assert sendings(letter(value, topic="privacy"), MS, SETTINGS) == [(b"key", value, ())]


def test_a_binary_cloud_event_keeps_its_headers_through_the_dead_letters() -> None:
    said = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"shop.view_item"))
    value = b'{"user_id":"u","event_timestamp":%d}' % (T0_US + 7_200_000_000)
    (dead,) = decode([Raw(7, MS, b"k", value, said)]).dead
    assert dead.reason == "time_absurd"
    headers = dead_letter("events", 2, dead).headers
    assert headers[-4:] == said
    assert ("timestamp", b"%d" % MS) in headers
    found = sendings(letter(value, headers=headers[-4:]), MS + 7_200_000, SETTINGS)
    assert found == [(b"u", value, said)]
    (batch,) = decode([Raw(8, MS + 7_200_000, b"u", value, said)]).raw
    assert msgspec.json.decode(batch)["event_id"] == "s#1"


def test_of_a_binary_cloud_event_only_attributes_go_with_its_dead_letter() -> None:
    null: Any = None  # Kafka's headers may be
    told = (("ce_specversion", b"1.0"), ("ce_type", null), ("reason", b"mine"))
    (dead,) = decode([Raw(7, MS, b"k", b'{"user_id":"u"}', told)]).dead
    assert (dead.reason, dead.headers) == ("schema", told[:1])
    assert dict(dead_letter("events", 2, dead).headers)["reason"] == b"schema"


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Filter(), True),
        (Filter(numbers=frozenset({Number(0, 5)})), True),
        (Filter(numbers=frozenset({Number(1, 5)})), False),
        (Filter(reasons=frozenset({"schema", "empty"})), True),
        (Filter(reasons=frozenset({"empty"})), False),
        (Filter(since_ms=MS + 9, until_ms=MS + 10), True),
        (Filter(until_ms=MS + 9), False),
        (Filter(topic="events", partition=2, offsets=range(7, 8)), True),
        (Filter(offsets=range(8, 9)), False),
        (Filter(partition=0), False),
    ],
)
def test_filters(wanted: Filter, meant: bool) -> None:
    assert wanted.covers(letter(b"")) is meant
    assert bool(wanted) is (wanted != Filter())


def test_numbers() -> None:
    for text in ("5", "3:12"):
        assert str(Number.parse(text)) == text
    for text in ("", "x", "1:2:3", "-1"):
        with pytest.raises(BadInputError, match="no number of a dead letter"):
            Number.parse(text)

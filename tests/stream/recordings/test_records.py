"""Records as lines of a recording and back: not a byte differs, and what is replayed is what was there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.decoding import decode
from stream.recordings.records import Raw, decode_line, encode_line, events_of, is_line, restore
from tests.records import T0_US, event

CALL = {"type": "track", "event": "Product Added", "userId": "u", "messageId": "m", "properties": {"product_id": "p"}}
MS = T0_US // 1000

contents = st.none() | st.binary(max_size=40) | st.text(st.characters(codec="utf-8"), max_size=20).map(str.encode)
headers = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.binary(max_size=9)), max_size=3)


@given(st.integers(0, 9), st.integers(0, 2**62), st.integers(0, 2**50), contents, contents, headers.map(tuple))
def test_a_line_holds_a_record_exactly(
    partition: int, offset: int, ms: int, key: bytes | None, value: bytes | None, said: Any
) -> None:
    raw = Raw(offset, ms, key, value, said)
    line = encode_line("events", partition, raw)
    assert line.count(b"\n") == 1
    assert is_line(line)
    assert decode_line(line) == (partition, raw)


values = st.sampled_from(
    [
        msgspec.json.encode(event("u", "tent", event_id="e1")),
        b' {"event_id":"e2", "event_name":"view_item","user_pseudo_id":"c","event_timestamp":"2024-01-01","x":1.0} ',
        msgspec.json.encode([event("u", "a", event_id="1"), event("u", "b", event_id="2")]),
        msgspec.json.encode({"events": [event("u", "a", event_id="1"), {"bad": 1}]}),
        msgspec.json.encode(CALL | {"timestamp": "2024-01-01T00:00:00Z"}),
        b"{nonsense",
        b"",
        None,
        b"\xff\xfe",
    ]
)


@given(values, st.none() | st.binary(max_size=9), headers.map(tuple))
def test_what_names_itself_or_is_nothing_is_replayed_byte_by_byte(
    value: bytes | None, key: bytes | None, said: Any
) -> None:
    line = encode_line("events", 3, Raw(7, MS, key, value, said))
    (parcel,), left_out = restore(*decode_line(line))
    assert (parcel.value, parcel.key, parcel.headers, parcel.recorded_ms) == (value, key, said, MS)
    assert left_out == 0


def test_an_event_without_id_and_time_gets_those_that_a_worker_gives_it() -> None:
    raw = b'{"event_name":"view_item","user_id":"u","item_id":"i"}'
    (parcel,), _ = restore(2, Raw(7, MS, b"k", raw))
    assert parcel.value == raw[:-1] + b',"event_id":"rekeyed-2-7-0","event_timestamp":%d}' % (MS * 1000)
    assert parcel.key == b"u"
    assert restore(2, Raw(9, MS + 5, b"u", parcel.value))[0][0].value == parcel.value


def test_a_batch_of_events_without_ids_is_cut_and_its_bad_elements_stay_bad() -> None:
    value = msgspec.json.encode([event("u", "a"), {"bad": 1}, event("u", "b", event_id="own")])
    parcels, _ = restore(0, Raw(4, MS, b"u", value))
    assert [msgspec.json.decode(parcel.value or b"").get("event_id") for parcel in parcels] == [
        "rekeyed-0-4-0",
        "own",
        None,
    ]
    batch = decode([Raw(n, MS, parcel.key, parcel.value) for n, parcel in enumerate(parcels)])
    assert (len(batch.raw), len(batch.dead)) == (2, 1)


def test_requests_to_forget_are_dated_and_other_controls_left_out() -> None:
    (parcel,), left_out = restore(0, Raw(4, MS, b"u", b'{"control":"forget","user":"u"}'))
    assert msgspec.json.decode(parcel.value or b"")["asked_ms"] == MS
    assert left_out == 0
    for control in (b'{"control":"rank_all"}', b'{"control":"export","user":"u"}', b'{"control":"rank","users":["u"]}'):
        assert restore(0, Raw(4, MS, b"u", control)) == ([], 1)


def test_events_of_other_shapes_are_events_of_ours() -> None:
    (raw,) = events_of(1, Raw(4, MS, b"u", msgspec.json.encode(CALL)))
    found = msgspec.json.decode(raw)
    assert (found["event_name"], found["event_id"], found["event_timestamp"]) == ("add_to_cart", "m", MS * 1000)


@pytest.mark.parametrize("line", [b'{"event_name":"x","offset":1}', b"{}", b"1", b'{"topic":1,"offset":2}', b"{"])
def test_events_are_no_records(line: bytes) -> None:
    assert not is_line(line)

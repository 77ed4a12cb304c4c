from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.decoding import Batch, decode
from stream.events import (
    KINDS,
    MAX_ELEMENTS,
    MAX_ID_BYTES,
    MAX_ITEMS,
    MAX_RECORD_BYTES,
    MAX_RECORD_ITEMS,
    RankAgain,
    RankAll,
)
from stream.local import LocalRecord
from stream.taking import HOUR_US, YEAR_2000_US
from tests.records import T0_US, event, record

GOOD = msgspec.json.encode(event("u", "tent"))


def one(value: bytes | dict[str, Any] | list[Any]) -> Batch:
    return decode([record(7, value)])


def reason_of(value: bytes | dict[str, Any] | list[Any]) -> str:
    batch = one(value)
    assert not batch.user
    assert not batch.controls
    (letter,) = batch.dead
    original = value if isinstance(value, bytes) else msgspec.json.encode(value)
    assert (letter.offset, letter.index, letter.key, letter.original) == (7, 0, b"key", original)
    return letter.reason


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"hello", "not_json"),
        (GOOD[:-1], "not_json"),
        (GOOD[: len(GOOD) // 2], "not_json"),
        (GOOD + b"x", "not_json"),
        (GOOD + GOOD, "not_json"),
        (b"\xef\xbb\xbf" + GOOD, "not_json"),
        (b"[" + GOOD, "not_json"),
        (b"\xff\xfe", "not_json"),
        (GOOD.replace(b"tent", b"\xc3\x28"), "not_json"),
        (GOOD.replace(b"tent", b"\\ud800"), "not_json"),  # half of a surrogate pair
        (GOOD.replace(b"10.0", b"NaN"), "not_json"),
        (GOOD.replace(b"10.0", b"Infinity"), "not_json"),
        (GOOD.replace(b"10.0", b"1e400"), "not_json"),
        (b"", "empty"),
        (b"[]", "empty"),
        (b'{"events":[]}', "empty"),
        (b" \n[ ]", "empty"),
        (b"null", "unknown_shape"),
        (b"5", "unknown_shape"),
        (b'"text"', "unknown_shape"),
        (b'{"control":"dance"}', "unknown_shape"),
        (b'{"control":null}', "unknown_shape"),
        (b"{}", "schema"),
        (b'{"events":5}', "schema"),
        (b'{"events":5,"events":[]}', "empty"),
        (b'{"events":[1],"events":null}', "schema"),
        (b'{"event_params":{"control":"rank_all"}}', "schema"),
        (b"x" * (MAX_RECORD_BYTES + 1), "too_large"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else value,
)
def test_what_is_no_event_at_all_is_a_dead_letter(value: bytes, reason: str) -> None:
    assert reason_of(value) == reason


def test_a_tombstone_is_a_dead_letter() -> None:
    (letter,) = decode([LocalRecord(3, 0, None, None)]).dead
    assert (letter.reason, letter.offset, letter.key, letter.original) == ("empty", 3, None, b"")


@pytest.mark.parametrize("largest", [MAX_RECORD_BYTES - 1, MAX_RECORD_BYTES])
def test_the_largest_record_is_still_read(largest: int) -> None:
    padding = largest - len(msgspec.json.encode(event("u", "tent", event_params={"x": ""})))
    assert one(event("u", "tent", event_params={"x": "x" * padding})).user == ["u"]


LONG = "x" * (MAX_ID_BYTES + 1)
WIDE = "ü" * (MAX_ID_BYTES // 2 + 1)  # fits in characters, not in bytes


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"event_name": None}, "schema"),
        ({"event_name": 5}, "schema"),
        ({"event_name": ""}, "schema"),
        ({"event_name": LONG}, "schema"),
        ({"user_id": 5}, "schema"),
        ({"user_id": ""}, "schema"),
        ({"user_id": LONG}, "schema"),
        ({"user_id": WIDE}, "id_invalid"),
        ({"user_id": "a\0b"}, "id_invalid"),
        ({"user_id": "a\nb"}, "id_invalid"),
        ({"user_id": "a\x7f"}, "id_invalid"),
        ({"user_id": "a\x9b"}, "id_invalid"),
        ({"user_id": None}, "missing_user"),
        ({"user_id": None, "user_pseudo_id": "c\t"}, "id_invalid"),
        ({"event_id": WIDE}, "id_invalid"),
        ({"event_id": "\x1b"}, "id_invalid"),
        ({"event_id": ""}, "schema"),
        ({"items": [{}]}, "schema"),
        ({"items": {}}, "schema"),
        ({"items": [{"item_id": "a"}, {"item_id": "b\0"}]}, "id_invalid"),
        ({"items": [{"item_id": WIDE}]}, "id_invalid"),
        ({"items": [{"item_id": "a", "price": "cheap"}]}, "schema"),
        ({"items": [{"item_id": "a", "price": 1e13}]}, "schema"),
        ({"items": None, "item_id": "b\0"}, "id_invalid"),
        ({"items": None, "item_id": LONG}, "schema"),
        ({"value": "5"}, "schema"),
        ({"value": 1e300}, "schema"),
        ({"consent": {"analytics_storage": "maybe"}}, "schema"),
        ({"event_timestamp": True}, "schema"),
        ({"event_timestamp": "soon"}, "time_absurd"),
        ({"event_timestamp": "9" * 5000}, "time_absurd"),
        ({"event_timestamp": "9999-12-31T23:59:59"}, "time_absurd"),
        ({"event_timestamp": "0001-01-01T00:00:00+14:00"}, "time_absurd"),
        ({"event_timestamp": YEAR_2000_US - 1}, "time_absurd"),
        ({"event_timestamp": T0_US + HOUR_US + 1}, "time_absurd"),
        ({"event_timestamp": -5}, "time_absurd"),
        ({"event_timestamp": 0}, "time_absurd"),
        ({"event_timestamp": 1e300}, "time_absurd"),
    ],
    ids=str,
)
def test_bad_fields_are_dead_letters(fields: dict[str, Any], reason: str) -> None:
    value = event("u", "tent") | fields
    assert reason_of(value) == reason
    batch = one([event("v"), value, event("w", "mat")])  # the neighbours in a batch do not suffer
    assert (batch.user, batch.index) == (["v", "w"], [0, 2])
    assert [(letter.reason, letter.index) for letter in batch.dead] == [(reason, 1)]
    assert batch.dead[0].original == msgspec.json.encode(value)


@pytest.mark.parametrize("bad", [b'{"event_name":"\xff"}', b'{"event_name":"a","value":1e400}', b"5", b"null", b"[]"])
def test_one_bad_element_does_not_spoil_a_batch(bad: bytes) -> None:
    for frame in (b"[%s,%s,%s]", b' {"events" : [%s,%s,%s], "sent": 5}'):
        batch = one(frame % (GOOD, bad, GOOD))
        assert (batch.index, batch.offset) == ([0, 2], [7, 7])
        assert [(letter.index, letter.original) for letter in batch.dead] == [(1, bad)]


@pytest.mark.parametrize(
    "frame", [b'{"event_params":%s}', b'[{"event_params":%s}]', b'{"events":[%s]}', b'{"control":%s}']
)
def test_no_depth_of_nesting_stops_the_stream(frame: bytes) -> None:
    # every depth around the interpreter's limit: each call of ours moves the edge by one
    records = [record(depth, frame % nested(depth)) for depth in [*range(300, 1100), 100_000]]
    batch = decode(records)
    assert [letter.offset for letter in batch.dead] == [r.offset for r in records]
    assert {letter.reason for letter in batch.dead} <= {"schema", "not_json", "unknown_shape"}


def test_unknown_names_and_fields_are_taken() -> None:
    batch = one(event("u", "tent", name="dance", shoes=[1, {"red": None}], event_params={"any": ["thing"]}))
    assert (batch.user, batch.kind, batch.dead) == (["u"], [KINDS[""]], [])


def test_of_two_equal_names_the_last_counts() -> None:
    batch = one(GOOD[:-1] + b',"user_id":"v"}')
    assert batch.user == ["v"]


def test_a_short_detail_goes_with_a_long_fault() -> None:
    (letter,) = one(event("u", event_timestamp="9" * 100_000)).dead
    assert len(letter.detail) <= 200


def test_controls_keep_their_offset() -> None:
    again = {"control": "rank", "users": ["a", "b"]}
    everyone = {"control": "rank_all", "request": "r"}
    batch = decode([record(3, GOOD), record(4, everyone), record(5, GOOD), record(6, again)])
    assert batch.controls == [(4, RankAll(request="r")), (6, RankAgain(users=["a", "b"]))]
    assert (batch.offset, batch.dead) == ([3, 5], [])


def test_columns() -> None:
    grants = {"analytics_storage": "granted", "personalization_storage": "denied", "ad_personalization": "granted"}
    first = event("u", "tent", "mat", at=1.5, name="purchase", event_id="e", value=35.5, session_id=12, consent=grants)
    first["items"][1] |= {"quantity": 2, "item_category": None}
    second = {"event_name": "view_item", "user_pseudo_id": "c", "item_id": "stove", "value": 5}
    source = {"traffic_source": {"medium": "email"}, "event_timestamp": T0_US // 1_000_000}
    batch = decode([record(3, first, at=2), record(4, [second, second | source], at=4)])
    assert batch.dead == []
    assert (batch.offset, batch.index) == ([3, 4, 4], [0, 0, 1])
    assert (batch.user, batch.event_id, batch.without_id) == (["u", "c", "c"], ["e", "", ""], 2)
    assert batch.ts == [T0_US + 1_500_000, T0_US + 4_000_000, T0_US]
    assert batch.recorded == [T0_US + 2_000_000, T0_US + 4_000_000, T0_US + 4_000_000]
    assert batch.kind == [KINDS["purchase"], KINDS["view_item"], KINDS["view_item"]]
    assert (batch.value, batch.session) == ([35.5, 5.0, 5.0], ["12", "", ""])
    assert batch.consent == [0b01_10_01, 0, 0]
    assert [channel > 0 for channel in batch.channel] == [False, False, True]
    assert (batch.touch_event, batch.touch_item) == ([0, 0, 1, 2], ["tent", "mat", "stove", "stove"])
    assert (batch.touch_category, batch.touch_price) == (["cat-t", "", "", ""], [10.0, 20.0, 5.0, 5.0])
    assert batch.raw[0] == msgspec.json.encode(first)
    assert batch.raw[1] == msgspec.json.encode(second)


@pytest.mark.parametrize(
    "stamp",
    [T0_US, T0_US // 1000, T0_US // 1_000_000, T0_US / 1e6, "2025-06-15T15:06:40Z", "2025-06-15T17:06:40+02:00"],
)
def test_times_in_every_shape(stamp: int | float | str) -> None:
    assert one(event("u", event_timestamp=stamp)).ts == [T0_US]


@pytest.mark.parametrize("timestamp", [-1, 0, 4_102_444_800_000, 2**63 - 1])
def test_a_record_without_a_sensible_time_gives_none_to_its_event(timestamp: int) -> None:
    bare = msgspec.json.encode({"event_name": "view_item", "user_id": "u"})
    (letter,) = decode([LocalRecord(0, timestamp, None, bare)]).dead
    assert letter.reason == "time_absurd"


def test_a_record_from_the_far_future_does_not_spoil_its_events() -> None:
    batch = decode([LocalRecord(0, 2**63 - 1, None, GOOD)])
    assert (batch.ts, batch.recorded) == ([T0_US], [4_102_444_800_000_000])
    late = msgspec.json.encode(event("u", event_timestamp=2**53))
    assert [letter.reason for letter in decode([LocalRecord(0, 2**63 - 1, None, late)]).dead] == ["time_absurd"]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | st.just("events"), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["event_name", "event_id", "event_timestamp", "user_id", "items", "item_id", "value", "consent", "control"]
EVENTS = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3).map(lambda fields: event("u", "tent") | fields)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    data = bytearray(msgspec.json.encode(draw(EVENTS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data)


VALUES = (
    st.none() | st.binary(max_size=64) | mutants() | JSON.map(msgspec.json.encode) | EVENTS.map(msgspec.json.encode)
)


@settings(deadline=None)
@given(st.lists(VALUES, max_size=8))
def test_nothing_raises_and_nothing_is_lost(values: list[bytes | None]) -> None:
    batch = decode([LocalRecord(offset, T0_US // 1000, None, value) for offset, value in enumerate(values)])
    units = [*zip(batch.offset, batch.index, strict=True), *((d.offset, d.index) for d in batch.dead)]
    units += [(offset, 0) for offset, _ in batch.controls]
    assert len(set(units)) == len(units)
    for offset, value in enumerate(values):
        indexes = sorted(index for at, index in units if at == offset)
        assert indexes == list(range(len(indexes)))
        assert indexes, value  # each record ends somewhere
    columns = [getattr(batch, name) for name in ("user", "event_id", "ts", "kind", "value", "consent", "raw")]
    assert {len(column) for column in columns} == {len(batch.offset)}
    assert all(0 <= at < len(batch.offset) for at in batch.touch_event)


@settings(deadline=None)
@given(st.lists(JSON | EVENTS, max_size=6), st.booleans())
def test_every_element_of_a_batch_is_accounted_for(elements: list[Any], enveloped: bool) -> None:
    batch = one({"events": elements} if enveloped else elements)
    dead = {letter.index: json.loads(letter.original) for letter in batch.dead}
    taken = dict(zip(batch.index, map(json.loads, batch.raw), strict=True))
    assert batch.controls == []
    if elements:
        assert dead | taken == dict(enumerate(json.loads(msgspec.json.encode(elements))))
        assert not dead.keys() & taken.keys()
    else:
        assert [letter.reason for letter in batch.dead] == ["empty"]


def crowd(items: int, user: str = "u") -> dict[str, Any]:
    return event(user, *(f"i{n}" for n in range(items)))


@pytest.mark.parametrize(
    "value",
    [
        crowd(MAX_ITEMS + 1),
        {"event": "view_item", "userId": "u", "ecommerce": {"items": [{"item_id": "i"}] * (MAX_ITEMS + 1)}},
        b"[" + b"0," * 500_000 + b"0]",
        [GOOD.decode()] * (MAX_ELEMENTS + 1),
        {"events": [event("u", "i")] * (MAX_ELEMENTS + 1)},
        {"type": "batch", "batch": [{"type": "page", "userId": "u"}] * (MAX_ELEMENTS + 1)},
    ],
)
def test_crowds_are_one_dead_letter(value: Any) -> None:
    assert reason_of(value) == "too_many"


def test_a_crowd_in_a_batch_spoils_none_of_the_others() -> None:
    batch = one([event("u", "i"), crowd(MAX_ITEMS + 1), event("v", "i")])
    assert batch.user == ["u", "v"]
    assert [(letter.index, letter.reason) for letter in batch.dead] == [(1, "too_many")]


def test_as_much_as_is_allowed_is_taken() -> None:
    assert len(one(crowd(MAX_ITEMS)).touch_item) == MAX_ITEMS
    assert len(one([event("u", "i")] * MAX_ELEMENTS).user) == MAX_ELEMENTS


def test_a_record_brings_only_so_many_items_and_the_rest_is_refused() -> None:
    fitting = MAX_RECORD_ITEMS // 100
    crowds = [crowd(100)] * (fitting + 3)
    batch = decode([record(7, crowds), record(8, crowds)])
    assert (len(batch.user), len(batch.touch_item)) == (2 * fitting, 2 * MAX_RECORD_ITEMS)
    places = [(letter.offset, letter.index, letter.reason) for letter in batch.dead]
    assert places == [(offset, fitting + n, "too_many") for offset in (7, 8) for n in range(3)]


@pytest.mark.parametrize("field", ["price", "quantity"])
def test_an_amount_below_0_is_refused_by_name(field: str) -> None:
    batch = one(event("u", items=[{"item_id": "i", field: -1}]))
    (letter,) = batch.dead
    assert (letter.reason, f"$.items[0].{field}" in letter.detail) == ("schema", True)

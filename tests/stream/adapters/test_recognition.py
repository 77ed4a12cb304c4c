"""No value is taken for a shape that it does not have, none is lost, and none stops the stream."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.hashing import partition_of
from stream.adapters import beginnings, recognise
from stream.adapters.marks import Marks
from stream.decoding import Batch, decode, json_of
from stream.keys import Keys
from stream.local import LocalRecord
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from tests.records import T0_US, event

RECORDED_MS = T0_US // 1000
SENT: list[Any] = [
    case["sent"]
    for file in sorted(Path(__file__).with_name("golden").glob("*.json"))
    for case in json.loads(file.read_text(encoding="utf-8"))["cases"]
]
CE = (("ce_specversion", b"1.0"), ("ce_type", b"shop.view_item"), ("ce_source", b"/shop"), ("ce_id", b"1"))


def one(value: Any, headers: tuple[tuple[str, bytes], ...] = ()) -> Batch:
    data = value if isinstance(value, bytes) else msgspec.json.encode(value)
    return decode([LocalRecord(7, RECORDED_MS, b"key", data, headers)])


@pytest.mark.parametrize(
    "fields",
    [
        {"client_id": "c", "type": "track", "userId": "u"},
        {"ecommerce": {"items": [{"item_id": "x"}]}},
        {"event": "interaction", "timestamp": 5, "id": "i"},
        {"specversion": "1.0", "type": "a", "source": "b", "id": "c", "data": {"user_id": "v"}},
        {"e": "pv", "tv": "js"},
        {"batch": [1], "schema": {"any": "thing"}},
        {"event_date": None, "collector_tstamp": None},
        {"event_date": "20250615", "event_params": {"a": 1}},
    ],
    ids=str,
)
def test_our_own_event_stays_ours_whatever_it_says_besides(fields: dict[str, Any]) -> None:
    batch = one(event("u", "tent", **fields))
    assert (batch.user, batch.touch_item, batch.dead, batch.shapes) == (["u"], ["tent"], [], [])


@pytest.mark.parametrize("fields", [{"client_id": "c"}, {"type": {"a": 1}}, {"batch": 5}, {"schema": ["x"]}], ids=str)
def test_our_own_batch_stays_ours(fields: dict[str, Any]) -> None:
    batch = one({"events": [event("u"), event("v")], **fields})
    assert (batch.user, batch.index, batch.shapes) == (["u", "v"], [0, 1], [])


def test_a_request_stays_one_whatever_its_parameters_are_called() -> None:
    batch = one({"client_id": "c", "events": [{"name": "search", "params": {"event_name": "x"}}]})
    assert (batch.user, batch.dead, batch.shapes) == (["c"], [], ["ga4_measurement_protocol"])


MARKS = st.fixed_dictionaries(
    {},
    optional={
        "event_name": st.sampled_from(["view_item", "", None, 5]),
        "event_date": st.sampled_from(["20250615", None, ""]),
        "collector_tstamp": st.sampled_from(["2025-06-15T12:20:00Z", None]),
        "event_params": st.sampled_from([[], {}, None, [{"key": "event_name", "value": {"int_value": 1}}]]),
        "items": st.sampled_from([[{"item_id": "a"}], [{"item_id": "a", "quantity": "3"}], None]),
        "user_id": st.just("u"),
        "user_properties": st.sampled_from([[], {"event_name": "x"}]),
        "specversion": st.just("1.0"),
        "type": st.sampled_from(["track", "shop.view_item"]),
        "source": st.just("/shop"),
        "id": st.just("1"),
        "data": st.just({"event_name": "search", "user_id": "v"}),
        "userId": st.just("w"),
        "client_id": st.just("c"),
        "events": st.sampled_from([[{"name": "search"}], [{"name": "search", "event_name": "x"}]]),
    },
)


@settings(deadline=None, max_examples=400)
@given(MARKS)
def test_short_cuts_find_what_the_marks_say(fields: dict[str, Any]) -> None:
    value = msgspec.json.encode(fields)
    shape, marks = recognise(value)
    batch = one([fields])
    if shape is None or shape.split is not None:
        assert not batch.shapes
    else:
        judged = batch.shapes or [dead.detail.partition(":")[0] for dead in batch.dead if ":" in dead.detail]
        told = [dead.reason for dead in batch.dead]
        assert judged == [shape.name] or told in (["missing_user"], ["time_absurd"], ["id_invalid"])
    if not (shape and shape.split) and not (marks and marks.events is not None and shape is None):
        alone = one(fields)
        assert (alone.shapes, alone.raw, alone.user) == (batch.shapes, batch.raw, batch.user)
        assert [(dead.reason, dead.detail) for dead in alone.dead] == [(d.reason, d.detail) for d in batch.dead]


def test_shapes_mix_in_an_array() -> None:
    segment = {"type": "page", "anonymousId": "a", "messageId": "m"}
    request = {"client_id": "c", "events": [{"name": "search"}]}
    batch = one([event("u"), segment, {"what": 1}, request, {**request, "events": []}])
    assert (batch.user, batch.index) == (["u", "a", "c"], [0, 1, 3])
    assert [(dead.index, dead.reason) for dead in batch.dead] == [(2, "schema"), (4, "unmapped")]
    assert batch.shapes == ["segment", "ga4_measurement_protocol"]


def test_headers_of_a_cloudevent_give_our_event_an_id() -> None:
    native = {"event_name": "view_item", "user_id": "u", "item_id": "tent"}
    assert one(native, CE).event_id == ["/shop#1"]
    assert one({**native, "event_id": "own"}, CE).event_id == ["own"]
    assert one(native, (("traceparent", b"00"),)).event_id == [""]
    assert one({"control": "rank_all"}, CE).controls


def test_elements_do_not_take_the_id_of_their_record() -> None:
    native = {"event_name": "view_item", "user_id": "u", "item_id": "tent"}
    assert one([native, native], CE).event_id == ["", ""]


def test_a_foreign_shape_in_a_wrong_partition_travels_on_as_our_event() -> None:
    stage = UserStage(ItemSpace(1), Keys(), UserRules(), 4)
    stage.open(0, None)
    user = next(name for name in map(str, range(99)) if partition_of(name.encode(), 4) == 1)
    call = {"type": "track", "event": "Product Viewed", "userId": user, "properties": {"product_id": "p"}}
    calls = {"batch": [{**call, "messageId": "m"}, call]}
    sends = stage.learn(0, [LocalRecord(7, RECORDED_MS, b"key", msgspec.json.encode(calls))]).sends
    assert [(send.role, send.key) for send in sends] == [("events", user.encode())] * 2
    events = [json.loads(send.value) for send in sends]
    assert [(e["event_name"], e["event_id"]) for e in events] == [("view_item", "m"), ("view_item", "rekeyed-0-7-1")]
    assert stage.shards[0].counts["shape:segment"] == 2
    arrived = decode([LocalRecord(0, RECORDED_MS, send.key, send.value) for send in sends])
    assert (arrived.user, arrived.touch_item, arrived.dead) == ([user] * 2, ["p", "p"], [])


ODD = st.sampled_from(
    [None, True, 0, -1, 2**70, 1e300, "", "x" * 300, "\0", "null", [], {}, [1], {"a": 1}, "12", "2025-06-15", "ü" * 200]
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to every part of a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in paths(part, (*path, key)))]


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A golden value with parts replaced or removed, or with bytes changed."""
    value = copy.deepcopy(draw(st.sampled_from(SENT)))
    if not isinstance(value, str):
        for _ in range(draw(st.integers(0, 3))):
            path = draw(st.sampled_from(paths(value)))
            if not path:
                continue
            parent = value
            for step in path[:-1]:
                parent = parent[step]
            if draw(st.booleans()):
                parent[path[-1]] = copy.deepcopy(draw(ODD))
            else:
                del parent[path[-1]]
    data = bytearray(value.encode() if isinstance(value, str) else json.dumps(value).encode())
    for _ in range(draw(st.integers(0, 1))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(data)


@settings(deadline=None, max_examples=400)
@given(st.lists(mutants(), max_size=4), st.sampled_from([(), CE, (("ce_specversion", b"\xff"),)]))
def test_every_mutant_is_taken_or_refused_with_a_reason(
    values: list[bytes], headers: tuple[tuple[str, bytes], ...]
) -> None:
    batch = decode([LocalRecord(offset, RECORDED_MS, None, value, headers) for offset, value in enumerate(values)])
    units = [*zip(batch.offset, batch.index, strict=True), *((dead.offset, dead.index) for dead in batch.dead)]
    assert len(set(units)) == len(units)
    for offset, value in enumerate(values):
        indexes = sorted(index for at, index in units if at == offset)
        assert indexes == list(range(len(indexes)))
        assert indexes or not value
    assert all(dead.reason and dead.detail for dead in batch.dead)
    # what was taken is ours: in our schema it is taken again, and says the same
    again = decode([LocalRecord(0, RECORDED_MS, None, json_of(raw)) for raw in batch.raw])
    assert again.dead == []
    assert (again.user, again.touch_item, again.ts) == (batch.user, batch.touch_item, batch.ts)


@st.composite
def overstated(draw: st.DrawFn) -> Any:
    """A golden value that says some of what another shape says."""
    value = draw(st.sampled_from(SENT))
    said = draw(st.dictionaries(st.sampled_from(Marks.__struct_fields__), ODD, max_size=2)) | draw(MARKS)
    return {**said, **value} if isinstance(value, dict) else value


def sent_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def unguessed(record: LocalRecord) -> Batch:
    beginnings.clear()
    return decode([record])


@settings(deadline=None, max_examples=600)
@given(st.lists(mutants() | overstated().map(sent_bytes) | MARKS.map(sent_bytes), min_size=2, max_size=5))
def test_a_guess_decides_nothing(values: list[bytes]) -> None:
    records = [LocalRecord(n, RECORDED_MS, None, value) for n, value in enumerate(values)]
    with pytest.MonkeyPatch.context() as patch:
        for module in ("stream.decoding", "stream.adapters.recognition"):
            patch.setattr(f"{module}.BEGINNING", 1)  # every value is taken for what the one before it was
        together = decode(records)
    alone = [unguessed(record) for record in records]
    for column in (
        "offset",
        "index",
        "user",
        "event_id",
        "ts",
        "kind",
        "value",
        "channel",
        "consent",
        "session",
        "raw",
    ):
        assert getattr(together, column) == [value for one in alone for value in getattr(one, column)], column
    for column in ("touch_item", "touch_category", "touch_price", "dead", "shapes"):
        assert getattr(together, column) == [value for one in alone for value in getattr(one, column)], column


@pytest.mark.parametrize("mark", [b'"type":1e999', b'"e":-1e400', b'"schema":"\xff"'])
def test_an_exported_event_is_one_whatever_is_unreadable_beside_it(mark: bytes) -> None:
    exported = [sent for sent in SENT if isinstance(sent, dict) and {"event_date", "collector_tstamp"} & sent.keys()]
    shapes = set()
    for value in map(sent_bytes, exported):
        broken = LocalRecord(1, RECORDED_MS, None, b"{" + mark + b"," + value.removeprefix(b"{"))
        alone = unguessed(broken)
        shapes.update(alone.shapes)
        with pytest.MonkeyPatch.context() as patch:
            for module in ("stream.decoding", "stream.adapters.recognition"):
                patch.setattr(f"{module}.BEGINNING", 1)
            behind = decode([LocalRecord(0, RECORDED_MS, None, value), broken])
        for column in ("user", "touch_item", "dead", "shapes"):
            found, own = getattr(behind, column), getattr(alone, column)
            assert found[len(found) - len(own) :] == own, column
    assert shapes == {"ga4_bigquery", "snowplow_enriched"}


def test_what_began_alike_is_kept_while_it_helps_and_within_bounds() -> None:
    beginnings.clear()
    push = {"user_id": "u", "ecommerce": {}, "event": "view_item"}
    assert one(push).shapes == ["gtm_data_layer"]
    assert len(beginnings) == 1
    one({"user_id": "u", "event_name": "view_item"})
    assert not beginnings  # it cost one of ours a pass, and no second one
    for name in range(3_000):
        one({f"{name:04}": 0, **push})
    assert 0 < len(beginnings) <= 1_024

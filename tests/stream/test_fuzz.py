"""Whatever is sent, each element is accepted, mapped or refused with a reason; nothing crashes and nothing is lost."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.adapters import UNREADABLE, Refused, adapt, cut, recognise, recognition
from stream.adapters.cloudevents import binary
from stream.adapters.recognition import Shape
from stream.decoding import Batch, decode, json_of
from stream.events import MAX_ID_BYTES, Event
from stream.intake import Judged, judge
from stream.local import LocalRecord
from stream.web.inflating import inflate
from stream.web.refusing import TurnedAway
from tests.mutations import Headers, mutated, mutated_binary, seeds

NOW_NS = 1_750_000_000_000_000_000
CORPUS = 10_000
REASONS = {"empty", "too_large", "too_many", "not_json", "unknown_shape", "unmapped"}
REASONS |= {"schema", "missing_user", "id_invalid", "time_absurd"}
SHAPES = [found for found in vars(recognition).values() if isinstance(found, Shape)]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = sorted({name for seed in seeds() if isinstance(seed, dict) for name in seed})
events = st.dictionaries(st.sampled_from(FIELDS), json_values | st.sampled_from(seeds()), max_size=6)


def elements_of(value: bytes) -> int | None:
    """How many elements a record has by its form alone; None where that is its shape's business."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list):
        return max(len(found), 1)
    return None if isinstance(found, dict) and ({"events", "batch"} & found.keys() or "schema" in found) else 1


def check_batch(value: bytes, headers: Headers = ()) -> Batch:
    """Decode one record and hold the books of it."""
    batch = decode([LocalRecord(3, NOW_NS // 1_000_000, b"k", value, headers)])
    indices = sorted([*batch.index, *(dead.index for dead in batch.dead)])
    assert indices == list(range(len(indices)))  # each element is in exactly one place
    assert len(indices) + len(batch.controls) >= 1
    count = elements_of(value)
    if count is not None and len(indices) + len(batch.controls) != count:  # then all of it is refused, as no JSON
        assert [(dead.index, dead.reason) for dead in batch.dead] == [(0, "schema" if binary(headers) else "not_json")]
        assert not batch.raw
        assert not batch.controls
    assert all(dead.reason in REASONS and dead.offset == 3 and dead.key == b"k" for dead in batch.dead)
    assert all(len(dead.detail) <= 200 for dead in batch.dead)
    assert all(0 < len(user.encode()) <= MAX_ID_BYTES for user in batch.user)
    assert len(batch.shapes) <= len(batch.raw) == len(batch.user) == len(batch.ts)
    return batch


def check_judged(value: bytes, batch: Batch, headers: Headers = ()) -> Judged:
    """The door's verdict is the worker's, and what the door passes on is taken there as the same event."""
    judged = judge(value, NOW_NS, 4, 1_000, headers)
    assert len(judged.entries) == len(batch.raw)
    dead = Counter(letter.reason for letter in batch.dead) + Counter(unknown_shape=len(batch.controls))
    assert Counter(refusal.reason for refusal in judged.refused) == dead
    assert sum(judged.mapped.values()) == len(batch.shapes)
    records = [LocalRecord(n, NOW_NS // 1_000_000, e.key, e.value) for n, e in enumerate(judged.entries)]
    again = decode(records)
    assert not again.dead
    assert not again.controls
    assert again.user == batch.user == [entry.key.decode() for entry in judged.entries]
    for column in ("ts", "kind", "value", "channel", "consent", "session", "touch_event", "touch_item", "touch_price"):
        assert getattr(again, column) == getattr(batch, column), column
    told = headers and batch.shapes == ["cloudevents"]  # what the headers have told stands in the event itself now
    assert again.shapes == batch.shapes or (told and not again.shapes)
    assert all(mine == its or not its for mine, its in zip(again.event_id, batch.event_id, strict=True))
    msgspec.json.encode(judged.refused)
    return judged


def check_adapters(value: bytes) -> Counter[str]:
    """Every adapter on its own: events, or a refusal; nothing else comes out, whatever goes in."""
    outcomes: Counter[str] = Counter()
    for shape in SHAPES:
        found = outcome(shape, value)
        if isinstance(found, Refused):
            assert found.reason in REASONS
            assert found.detail.startswith(shape.name)
        else:
            outcomes[shape.name] += 1
    return outcomes


def outcome(shape: Shape, value: bytes) -> Refused | tuple[str, Event] | list[bytes]:
    try:
        found = adapt(value, shape) if shape.split is None else cut(value, shape)
    except Refused as refused:
        return refused
    assert found is not None
    return found


def unpacked(value: bytes, encoding: str, most: int) -> bytes | int:
    """What a body is unpacked to, or the status of its refusal."""
    try:
        return inflate(value, encoding, most)
    except TurnedAway as verdict:
        return verdict.status


def test_ten_thousand_mutated_events() -> None:
    total: Counter[str] = Counter()
    adapted: Counter[str] = Counter()
    for value in mutated(CORPUS, seed=20_261_126):
        batch = check_batch(value)
        judged = check_judged(value, batch)
        adapted += check_adapters(value)
        total.update(accepted=len(judged.entries), mapped=sum(judged.mapped.values()))
        total.update(refusal.reason for refusal in judged.refused)
    # the corpus reaches every verdict and every adapter, or it would prove little
    assert all(total[what] >= 20 for what in (REASONS | {"accepted", "mapped"}) - {"too_large", "too_many", "empty"}), (
        total
    )
    assert adapted.keys() == {shape.name for shape in SHAPES}
    assert total.total() - total["mapped"] >= CORPUS


def test_ten_thousand_mutated_events_with_mutated_attributes_beside_them() -> None:
    total: Counter[str] = Counter()
    for value, headers in mutated_binary(CORPUS, seed=20_261_128):
        batch = check_batch(value, headers)
        judged = check_judged(value, batch, headers)
        total.update(accepted=len(judged.entries), **judged.mapped)
        for letter in batch.dead:
            total[letter.reason] += 1
            assert all(name.startswith("ce_") and isinstance(said, bytes) for name, said in letter.headers), headers
    assert all(total[what] >= 20 for what in ("accepted", "cloudevents", "schema", "not_json", "time_absurd")), total
    assert sum(total[what] for what in REASONS | {"accepted"}) >= CORPUS * 0.9  # the rest are control records


def test_what_is_accepted_can_be_told_in_our_schema() -> None:
    for value in mutated(2_000, seed=7):
        for raw in check_batch(value).raw:
            again = decode([LocalRecord(0, NOW_NS // 1_000_000, None, json_of(raw))])
            assert (len(again.raw), again.dead) == (1, [])


@settings(max_examples=300, deadline=None)
@given(events | st.lists(events, max_size=3) | json_values)
def test_any_json(value: Any) -> None:
    record = json.dumps(value).encode(errors="surrogatepass")
    check_judged(record, check_batch(record))
    check_adapters(record)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(value: bytes) -> None:
    check_judged(value, check_batch(value))
    check_adapters(value)
    for encoding in ("gzip", "deflate", "identity"):
        found = unpacked(value, encoding, 300)
        assert found in (400, 413) if isinstance(found, int) else len(found) <= 300


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=2_000), st.integers(0, 3_000))
def test_packed_bodies_are_unpacked_up_to_the_limit(value: bytes, most: int) -> None:
    assert unpacked(gzip.compress(value), "gzip", most) == (value if len(value) <= most else 413)


def test_nesting_without_end() -> None:
    for value in (b"[" * 100_000, b'{"a":' * 100_000, b'{"event_params":' + b"[" * 50_000 + b"]" * 50_000 + b"}"):
        assert check_judged(value, check_batch(value)).entries == []
        check_adapters(value)


def test_readable_faults_are_the_only_ones() -> None:
    """`recognise` never raises: what it cannot read has no shape."""
    assert [recognise(value) for value in (b"\xff", b"{", b"[" * 100_000)] == [(None, None)] * 3
    assert all(issubclass(fault, Exception) for fault in UNREADABLE)


def test_a_name_that_is_spelt_with_escapes_is_still_ours() -> None:
    value = b'{"event\\u005fname":"view_item","user_id":"u1","item_id":"i1"}'
    for record in (value, b"[%s]" % value, b'{"events":[%s]}' % value):
        batch = check_batch(record)
        assert (batch.user, batch.touch_item, len(batch.shapes)) == (["u1"], ["i1"], 0)

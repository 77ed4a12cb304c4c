"""Each shape's published form becomes exactly these events, or is refused for exactly this reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stream.decoding import Batch, decode, json_of
from stream.local import LocalRecord

GOLDEN = Path(__file__).with_name("golden")
RECORDED_MS = 1_750_000_000_000
CASES = [
    pytest.param(file.stem, case, id=f"{file.stem}: {case['case']}")
    for file in sorted(GOLDEN.glob("*.json"))
    for case in json.loads(file.read_text(encoding="utf-8"))["cases"]
]


def decoded(case: dict[str, Any]) -> Batch:
    sent = case["sent"]
    value = sent.encode() if isinstance(sent, str) else json.dumps(sent).encode()
    headers = tuple((name, text.encode()) for name, text in case.get("headers", {}).items())
    return decode([LocalRecord(7, RECORDED_MS, b"key", value, headers)])


@pytest.mark.parametrize(("shape", "case"), CASES)
def test_a_shape_becomes(shape: str, case: dict[str, Any]) -> None:
    batch = decoded(case)
    assert [json.loads(json_of(raw)) for raw in batch.raw] == case["becomes"]
    refused = [{"index": dead.index, "reason": dead.reason, "detail": dead.detail} for dead in batch.dead]
    assert refused == case["refused"]
    assert sorted([*batch.index, *(dead.index for dead in batch.dead)]) == list(
        range(len(batch.index) + len(batch.dead))
    )
    assert {*batch.offset, *(dead.offset for dead in batch.dead)} == {7}
    assert all(name.startswith(shape) for name in batch.shapes)
    assert len(batch.shapes) == len(batch.raw)


@pytest.mark.parametrize(("shape", "case"), CASES)
def test_what_it_becomes_is_taken_as_our_own(shape: str, case: dict[str, Any]) -> None:
    """A foreign shape that is re-keyed travels on in our schema: the columns must not change on the way."""
    there = decoded(case)
    again = decode([LocalRecord(0, RECORDED_MS, None, json_of(raw)) for raw in there.raw])
    assert again.dead == []
    assert not again.shapes
    for column in ("user", "event_id", "ts", "kind", "value", "channel", "consent", "session", "touch_event"):
        assert getattr(again, column) == getattr(there, column), (shape, column)
    for column in ("touch_item", "touch_category", "touch_price"):
        assert getattr(again, column) == getattr(there, column), (shape, column)


@pytest.mark.parametrize(("shape", "case"), CASES)
def test_a_dead_letter_can_be_sent_again(shape: str, case: dict[str, Any]) -> None:
    """What is refused carries enough of its own to be judged alone, and is refused for the same reason again."""
    headers = tuple((name, text.encode()) for name, text in case.get("headers", {}).items())
    for dead in decoded(case).dead:
        again = decode([LocalRecord(0, RECORDED_MS, None, dead.original, headers)])
        assert [letter.reason for letter in again.dead] == [dead.reason], shape
        assert again.raw == []

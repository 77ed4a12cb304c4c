"""``rivulet check`` as it is typed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.cli import build
from stream.errors import BadInputError
from stream.recordings.records import Raw, encode_line

VIEW = {"event_name": "view_item", "user_id": "u1", "item_id": "i1", "event_timestamp": 1_700_000_000_000_000}
CALL = {"type": "track", "event": "Product Added", "userId": "u", "messageId": "m", "properties": {"product_id": "p"}}


def check(file: Path, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(build(), ["check", str(file), "--json"], catch_exceptions=False)
    assert result.exit_code == code
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_shapes_names_and_refusals_are_counted_by_line(tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl.gz"
    lines: list[Any] = [VIEW, CALL, {"batch": [CALL, {**CALL, "type": "group"}]}, {"control": "rank_all"}, [VIEW, VIEW]]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "\n{nonsense\n" + '{"user_id":"u"}\n' * 9
    file.write_bytes(gzip.compress(text.encode()))
    report = check(file, code=4)
    assert (report["lines"], report["taken"], report["refused"], report["controls"]) == (15, 5, 11, 1)
    assert report["shapes"] == {"rivulet": 3, "segment": 2}
    assert report["events"] == {"view_item": 3, "add_to_cart": 2}
    assert {reason: found["count"] for reason, found in report["reasons"].items()} == {
        "unmapped": 1,
        "not_json": 1,
        "schema": 9,
    }
    assert report["reasons"]["unmapped"]["first"] == [[3, "segment: a group call: it says nothing about a visitor"]]
    assert [line for line, _ in report["reasons"]["not_json"]["first"]] == [7]
    assert [line for line, _ in report["reasons"]["schema"]["first"]] == [8, 9, 10, 11, 12]


def test_a_file_without_faults_ends_with_0(tmp_path: Path) -> None:
    file = tmp_path / "good.jsonl"
    file.write_text(json.dumps(VIEW) + "\n")
    assert check(file)["refused"] == 0
    result = CliRunner().invoke(build(), ["check", str(file)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "1 lines: 1 events taken, 0 refused" in result.output


def test_headers_of_recorded_records_are_part_of_the_event(tmp_path: Path) -> None:
    """A CloudEvent in binary mode says in its headers what it is."""
    said = {"specversion": "1.0", "type": "shop.view_item", "source": "/shop", "id": "1"}
    headers = tuple((f"ce_{name}", value.encode()) for name, value in said.items())
    value = b'{"user_id":"u","item_id":"tent"}'
    file = tmp_path / "recorded.jsonl"
    records = [Raw(0, 1_700_000_000_000, b"u", value, headers), Raw(1, 1_700_000_000_000, b"u", value)]
    file.write_bytes(b"".join(encode_line("events", 0, record) for record in records))
    report = check(file, code=4)
    assert (report["taken"], report["shapes"], report["events"]) == (1, {"cloudevents": 1}, {"view_item": 1})
    assert [line for line, _ in report["reasons"]["schema"]["first"]] == [2]


def test_csv_in_our_columns_and_rows_of_retailrocket(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.csv", tmp_path / "events.csv"
    ours.write_text("ts,user,session,item,type,value\n1700000000000,u,s,i,view,\nsoon,u,s,i,view,\n")
    report = check(ours, code=4)
    assert (report["shapes"], report["events"]) == ({"rivulet": 1}, {"view_item": 1})
    ((line, detail),) = report["reasons"]["schema"]["first"]
    assert line == 3
    assert "ts: 'soon' is not a time" in detail
    theirs.write_text("timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n")
    report = check(theirs)
    assert (report["shapes"], report["lines"]) == ({"retailrocket": 1}, 1)  # the header is no event


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"events\.xml"):
        CliRunner().invoke(build(), ["check", str(tmp_path / "events.xml")], catch_exceptions=False)

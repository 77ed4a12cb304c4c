from __future__ import annotations

import gzip
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from stream.decoding import decode
from stream.drafts import prepare
from stream.errors import BadInputError
from stream.events import Event
from stream.local import LocalRecord
from stream.recordings import open_recording, read_table
from stream.recordings.records import Raw, encode_line

HEADER = "ts,user,session,item,type,value"
LINES = [
    "1600000001000,ann,s1,tent,view,",
    "1600000002000,ann,s1,mat,purchase,9.5",
    "1600000003000,bob,,tent,rating,4",
    "1600000004000,,s9,tent,cart,",
    "1600000005000,bob,,mat,return,9.5",
    "1600000006000,ann,s2,tent,fav,",
    "1600000007000,ann,s2,tent,wave,",
]
EVENTS = [
    {
        "event_name": "view_item",
        "event_timestamp": 1_600_000_001_000_000,
        "user_id": "ann",
        "session_id": "s1",
        "item_id": "tent",
    },
    {
        "event_name": "purchase",
        "event_timestamp": 1_600_000_002_000_000,
        "user_id": "ann",
        "session_id": "s1",
        "items": [{"item_id": "mat", "price": 9.5}],
    },
    {"event_name": "rate", "event_timestamp": 1_600_000_003_000_000, "user_id": "bob", "item_id": "tent", "value": 4.0},
    {
        "event_name": "add_to_cart",
        "event_timestamp": 1_600_000_004_000_000,
        "user_pseudo_id": "s9",
        "session_id": "s9",
        "item_id": "tent",
    },
    {
        "event_name": "refund",
        "event_timestamp": 1_600_000_005_000_000,
        "user_id": "bob",
        "items": [{"item_id": "mat", "price": 9.5}],
    },
    {
        "event_name": "add_to_wishlist",
        "event_timestamp": 1_600_000_006_000_000,
        "user_id": "ann",
        "session_id": "s2",
        "item_id": "tent",
    },
    {
        "event_name": "wave",
        "event_timestamp": 1_600_000_007_000_000,
        "user_id": "ann",
        "session_id": "s2",
        "item_id": "tent",
    },
]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    data = text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def test_a_spreadsheets_csv_begins_with_a_mark(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", f"\ufeff{HEADER}\n1600000005000,bob,,debt,purchase,1\n")
    assert [event["user_id"] for event in open_recording(path)] == ["bob"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv_becomes_events_of_the_schema(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name, "\n".join([HEADER, *LINES]) + "\n")
    events = list(open_recording(path))
    assert events == EVENTS
    for event in events:
        msgspec.convert(event, Event)


def test_an_amount_below_0_is_no_price(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", f"{HEADER}\n1600000005000,bob,,debt,purchase,-11062.06\n")
    assert [event["items"] for event in open_recording(path)] == [[{"item_id": "debt"}]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines_are_passed_on(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(event | {"own_field": [1]}) for event in EVENTS]
    path = written(tmp_path, name, "\n\n".join(lines))
    assert list(open_recording(path)) == [event | {"own_field": [1]} for event in EVENTS]


def test_json_lines_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    data = "\n".join(json.dumps(event) for event in EVENTS).encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert list(open_recording("-")) == EVENTS


def test_a_csv_table_has_columns_by_first_appearance(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a.csv", "\n".join([HEADER, *LINES])))
    assert table.key.tolist() == [0, 0, 1, 2, 1, 3, 3]
    assert table.keys == 4
    assert [table.item_ids[i] for i in table.item] == ["tent", "mat", "tent", "tent", "mat", "tent", "tent"]
    assert table.ts_ms.tolist() == [1_600_000_000_000 + 1000 * n for n in range(1, 8)]
    assert [table.kinds[k] for k in table.kind] == [event["event_name"] for event in EVENTS]
    assert table.value[[1, 2, 4]].tolist() == [9.5, 4.0, 9.5]
    assert math.isnan(table.value[0])


def test_json_and_csv_give_the_same_table(tmp_path: Path) -> None:
    csv = read_table(written(tmp_path, "a.csv", "\n".join([HEADER, *LINES])))
    jsonl = read_table(written(tmp_path, "a.jsonl", "\n".join(json.dumps(event) for event in EVENTS)))
    for name in ("key", "item", "ts_ms", "kind"):
        assert getattr(csv, name).tolist() == getattr(jsonl, name).tolist()
    assert (csv.item_ids, csv.kinds, csv.keys) == (jsonl.item_ids, jsonl.kinds, jsonl.keys)


def test_an_event_of_several_items_gives_several_rows_and_one_of_none_gives_none(tmp_path: Path) -> None:
    basket = {"event_name": "purchase", "event_timestamp": 1e9, "user_id": "u", "items": [{"item_id": "a"}] * 2}
    search = {"event_name": "search", "event_timestamp": 1e9, "user_id": "u"}
    path = written(tmp_path, "a.jsonl", f"{json.dumps(basket)}\n{json.dumps(search)}")
    assert len(read_table(path)) == 2


def test_the_same_session_name_of_two_users_is_two_keys(tmp_path: Path) -> None:
    text = f"{HEADER}\n1,ann,1,tent,view,\n2,bob,1,tent,view,"
    assert read_table(written(tmp_path, "a.csv", text)).keys == 2


def test_an_empty_recording_is_empty(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", HEADER)
    assert list(open_recording(path)) == []
    assert len(read_table(path)) == 0


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[int] = []
    read_table(written(tmp_path, "a.csv", "\n".join([HEADER, *LINES])), seen.append)
    assert seen == [7]


GOOD = '{"event_name": "view_item", "event_timestamp": 1, "user_id": "u", "item_id": "i"}'

BAD = [
    ("a.csv", "time,user\n", "line 1, header: must be ts,user,session,item,type,value, not time,user"),
    ("a.csv", f"{HEADER}\n\n1,a,s,i,view,\nx,a,s,i,view,", "line 4, ts: 'x' is not a time"),
    ("a.csv", f"{HEADER}\n99999999999999999999,a,s,i,view,", "line 2, ts: "),
    ("a.csv", f"{HEADER}\n1,a,s,i,view,cheap", "line 2, value: 'cheap' is not a number"),
    ("a.csv", f"{HEADER}\n1,,,i,view,", "line 2, user: is empty, and so is the session"),
    ("a.csv", f"{HEADER}\n1,a,s,,view,", "line 2, item: is empty"),
    ("a.csv", f"{HEADER}\n1,a,s,i,,", "line 2, type: is empty"),
    ("a.csv", f"{HEADER}\n1,a,s,i,view,\n1,a,s", "line 3, row: 6 fields are needed, not 3"),
    ("a.jsonl", f"{GOOD}\n{{", "line 2, event: "),
    ("a.jsonl", '{"event_name": 3, "user_id": "u"}', "line 1, event_name: "),
    ("a.jsonl", GOOD[:-1] + ', "x": ' + "[" * 1_200 + "]" * 1_200 + "}", "line 1, event: "),
    ("a.jsonl", GOOD.replace('"user_id": "u"', '"x": 1'), "line 1, user_id: user_id or user_pseudo_id is needed"),
    ("a.jsonl", GOOD.replace("1,", '"yesterday",', 1), "line 1, event_timestamp: "),
    ("a.csv.gz", "", ""),
    ("a.txt", "", "not .csv or .jsonl (also .gz and .zst), .parquet or -"),
]


@pytest.mark.parametrize("read", [lambda path: list(open_recording(path)), read_table], ids=["events", "table"])
@pytest.mark.parametrize(("name", "text", "problem"), BAD)
def test_errors_name_file_line_and_field(tmp_path: Path, read: object, name: str, text: str, problem: str) -> None:
    path = written(tmp_path, name, text)
    if name.endswith(".gz"):
        path.write_bytes(b"not gzip at all")
    assert callable(read)
    with pytest.raises(BadInputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        list(open_recording(tmp_path / "none.csv"))


def test_a_truncated_file_is_said_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv.gz", "\n".join([HEADER, *LINES * 100]))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(BadInputError, match="ended before"):
        list(open_recording(path))


UNREADABLE = [b"1e999", b"[" * 500 + b"]" * 500, b'{"a":[-1e999]}']


@pytest.mark.parametrize("value", UNREADABLE, ids=lambda value: value[:9].decode())
def test_what_a_worker_passes_over_unread_is_left_out(tmp_path: Path, value: bytes) -> None:
    raw = b'{"event_name":"view_item","user_id":"u","item_id":"tent","theirs":%s,"other":[1]}' % value
    record = LocalRecord(7, 1_750_000_000_000, b"u", raw)
    assert decode([record]).user == ["u"]
    for name, line in (
        ("a.jsonl", raw + b"\n"),
        ("b.jsonl", encode_line("events", 0, Raw(7, record.timestamp, b"u", raw, ()))),
    ):
        (tmp_path / name).write_bytes(line)
        (event,) = open_recording(tmp_path / name)
        assert (event["item_id"], event["other"]) == ("tent", [1])
        assert json.dumps(event.get("theirs", 0)) in ("0", value.decode())
    key, sent = prepare(raw, 1_750_000_000_000_000_000)
    assert (key, sent.startswith(raw[:-1])) == (b"u", True)
    assert decode([LocalRecord(7, 1_750_000_000_000, key, sent)]).without_id == 0


def test_names_and_texts_of_others_need_not_be_utf_8(tmp_path: Path) -> None:
    raw = b'{"event_name":"view_item","user_id":"u","item_id":"tent","their\xffs":1,"other":"\xfe"}'
    assert decode([LocalRecord(7, 1_750_000_000_000, b"u", raw)]).user == ["u"]
    (tmp_path / "a.jsonl").write_bytes(raw + b"\n")
    (event,) = open_recording(tmp_path / "a.jsonl")
    assert (event["item_id"], event["their\ufffds"], event["other"]) == ("tent", 1, "\ufffd")

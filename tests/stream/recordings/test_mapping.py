"""Columns of any table as events: CSV, JSON Lines and Parquet alike."""

from __future__ import annotations

import builtins
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # no py.typed
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # no py.typed
import pytest

from stream.errors import BadInputError, ConfigurationError
from stream.recordings import lines_of, open_recording
from stream.recordings.files import Meter, OnBad, stop
from stream.recordings.mapping import FieldMap
from stream.recordings.reading import read

ROWS = [
    {"at": 1_700_000_000, "who": "ann", "what": "view", "thing": "tent", "eur": None, "rest": "x"},
    {"at": 1_700_000_001, "who": "ben", "what": "purchase", "thing": "bag", "eur": 9.5, "rest": "y"},
]
MAP = [
    "at=event_timestamp",
    "who=user_id",
    "what=event_name",
    "thing=items.item_id",
    "eur=items.price",
    "rest=event_params.r",
]
EVENTS = [
    {
        "event_timestamp": 1_700_000_000,
        "user_id": "ann",
        "event_name": "view_item",
        "items": [{"item_id": "tent"}],
        "event_params": {"r": "x"},
    },
    {
        "event_timestamp": 1_700_000_001,
        "user_id": "ben",
        "event_name": "purchase",
        "items": [{"item_id": "bag", "price": 9.5}],
        "event_params": {"r": "y"},
    },
]


def written(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"a.{kind}"
    if kind == "csv":
        lines = [list(rows[0]), *(row.values() for row in rows)]
        path.write_text("\n".join(",".join("" if v is None else str(v) for v in line) for line in lines))
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def mapped(path: Path, columns: list[str], constants: list[str] | None = None, on_bad: OnBad = stop) -> list[Any]:
    return [event for _, event in read(path, on_bad, FieldMap.parse(columns, constants or []))]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_tables_of_every_kind_become_the_same_events(tmp_path: Path, kind: str) -> None:
    assert mapped(written(tmp_path, kind, ROWS), MAP) == EVENTS


def test_constants_and_columns_that_bear_a_fields_name(tmp_path: Path) -> None:
    rows = [{"user_id": 7.0, "item_id": 12, "event_timestamp": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "stars": 4}]
    path = written(tmp_path, "parquet", rows)
    (found,) = mapped(path, ["stars=value"], ["event_name=rate", "consent.analytics_storage=granted"])
    assert found == {
        "event_name": "rate",
        "consent": {"analytics_storage": "granted"},
        "user_id": "7",
        "item_id": "12",
        "event_timestamp": "2024-01-01T00:00:00+00:00",
        "value": 4.0,
    }
    complete = written(tmp_path, "parquet", [rows[0] | {"event_name": "addtocart"}])
    assert [each["event_name"] for each in open_recording(complete)] == ["add_to_cart"]
    assert [line.number for line in lines_of(complete)] == [1]


@pytest.mark.parametrize(
    ("columns", "constants", "problem"),
    [
        (["at"], [], "--map takes column=field, not 'at'"),
        (["at=when"], [], "--map: our events have no field 'when'"),
        (["at=items.colour"], [], "no field 'items.colour'"),
        ([], ["event_name"], "--set takes field=value"),
        (["none=user_id"], [], "--map: there is no column 'none', only at, who"),
        (["who=event_timestamp", *MAP[1:]], [], "line 2, event_timestamp: "),
        ([*MAP[:4], "rest=value"], [], "line 2, value: 'x' is not a number"),
        (MAP[1:], ["event_timestamp=0", "platform=web"], ""),
    ],
)
def test_what_cannot_be_mapped_is_said_in_one_line(
    tmp_path: Path, columns: list[str], constants: list[str], problem: str
) -> None:
    path = written(tmp_path, "csv", ROWS)
    if not problem:
        assert len(mapped(path, columns, constants)) == 2
        return
    with pytest.raises(BadInputError) as caught:
        mapped(path, columns, constants)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_rows_are_skipped_and_counted_if_they_may_be(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    head = b"ts,user,session,item,type,value\n"
    path.write_bytes(head + b"1,a,,i,view,\nsoon,a,,i,view,\n\xff\xfe\n1,a\n2,b,,i,view,\n")
    told: list[str] = []
    found = list(open_recording(path, lambda error: told.append(str(error))))
    assert [each["user_id"] for each in found] == ["a", "b"]
    assert [text.split(": ")[0].rpartition(", line ")[2] for text in told] == ["3, ts", "4, row", "5, row"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"at":1,"who":"a"}\n[1]\n{"at":"x","who":"a"}\n{"at":2,"who":"b"}')
    told.clear()
    events = mapped(lines, MAP[:2], ["event_name=login"], lambda error: told.append(str(error)))
    assert [each["event_timestamp"] for each in events] == [1, 2]
    assert len(told) == 2


def test_parquet_without_pyarrow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "parquet", ROWS)
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigurationError, match=r"pip install pyarrow"):
        mapped(path, MAP)


def test_a_damaged_parquet_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing of the kind")
    with pytest.raises(BadInputError, match=r"a\.parquet: "):
        mapped(path, MAP)


def test_a_meter_counts_bytes_on_disk(tmp_path: Path) -> None:
    meter = Meter()
    for kind in ("csv", "jsonl"):
        list(read(written(tmp_path, kind, ROWS), fields=FieldMap.parse(MAP), meter=meter))
    assert meter.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())

"""Catalogue and offers, changed at random: each record is one, or refused with a reason; none crashes a worker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from models.offers import OfferError, decode_offer
from stream.catalogue import CatalogueItem, decode_item, decode_record
from stream.cli import build
from stream.cli.catalogue import withdraw
from stream.decoding import decode
from stream.errors import BadInputError
from stream.feeds import read_feed
from stream.local import LocalRecord
from tests.mutations import OURS, mutated

CORPUS = 10_000
ITEMS: list[dict[str, Any]] = [
    {"item_id": "tent", "title": "Tent", "price": 149.5, "currency": "EUR", "stock": 3, "tags": ["two", "red"]},
    {"item_id": "日本", "text": "帐篷", "category": "Camping > Tents", "availability": "in_stock", "url": "/t", "x": 1},
]
OFFERS: list[dict[str, Any]] = [
    {"id": "spring", "items": ["tent"], "value": 3.0, "valid_until": "2030-01-01T00:00:00Z"},
    {"id": "rich", "categories": ["home"], "value": 5.0, "segments": [3, "high spend"], "min_cart": 20.0},
    {"id": "fond", "categories": ["camping"], "value": 1.0, "min_category_affinity": {"camping": 0.2}},
]
ROWS: list[dict[str, Any]] = [
    {"at": 1_700_000_000, "who": "v", "film": "f1", "eur": 3.5, "did": "view_item", "x": [1, {"y": None}]},
    {"at": "2023-11-14T22:13:20Z", "who": 7, "film": "日本", "eur": "4", "did": "transaction", "session_id": 3},
]
COLUMNS = ("at=event_timestamp", "who=user_id", "film=item_id", "eur=items.price", "did=event_name")
DEEP = b'{"item_id":"p","id":"p","x":' + b"[" * 1_200 + b"]" * 1_200 + b"}"


def test_each_line_of_a_feed_is_an_item_or_a_named_fault(tmp_path: Path) -> None:
    lines = [DEEP, *(value.replace(b"\n", b" ") for value in mutated(CORPUS, 3, ITEMS))]
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\n".join(lines))
    found = list(read_feed(str(path)))
    assert len(found) == sum(1 for line in lines if not (line + b"\n").isspace())
    kinds = Counter(type(row) for row in found)
    assert set(kinds) == {CatalogueItem, BadInputError}
    assert min(kinds.values()) > CORPUS // 10, kinds
    assert all(f"{path}, line " in str(row) for row in found if isinstance(row, BadInputError))


def test_what_no_event_could_name_is_not_withdrawn_either() -> None:
    assert decode_record(b"tent", None) == ("tent", None)
    for key in (b"a\0b", b"\xff", b"x" * 257, b"", None):
        with pytest.raises(ValueError, match=r"item_id|utf-8"):
            decode_record(key, None)
    with pytest.raises(BadInputError, match=r"'a\\nb': an item's id has a control character"):
        withdraw(["tent", "a\nb"])


@pytest.mark.parametrize(("known", "columns"), [(ROWS, COLUMNS), (OURS, ())])
def test_each_row_is_sent_or_skipped(known: Sequence[Any], columns: Sequence[str], tmp_path: Path) -> None:
    rows = [value.replace(b"\n", b" ") for value in mutated(CORPUS, 6, known)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(rows))
    mapping = [part for column in columns for part in ("--map", column)]
    arguments = ["replay", str(path), *mapping, "--dry-run", "--skip-bad", "--json"]
    result = CliRunner().invoke(build(), arguments, catch_exceptions=False)
    found = json.loads(result.stdout)
    assert result.exit_code == BadInputError.exit_code  # of what is sent, workers would refuse some
    assert found["taken"] + found["refused"] == found["lines"]
    assert found["lines"] + found["skipped"] == sum(1 for row in rows if not (row + b"\n").isspace())
    assert min(found["taken"], found["skipped"]) > CORPUS // 20, found


def test_each_record_of_a_table_is_read_or_refused() -> None:
    read = Counter[str]()
    for value in (DEEP, *mutated(CORPUS, 4, ITEMS)):
        try:
            item = decode_item(value)
            read["items"] += 1
            named = json.dumps({"event_name": "view_item", "user_id": "u", "item_id": item.item_id}).encode()
            assert not decode([LocalRecord(0, 1_750_000_000_000, None, named)]).dead, item  # ids are judged alike
        except ValueError:
            pass
    for value in (DEEP, *mutated(CORPUS, 5, OFFERS)):
        try:
            assert decode_offer(value).id in json.loads(value)["id"]
            read["offers"] += 1
        except OfferError:
            pass
    assert CORPUS // 10 < read["items"] < CORPUS
    assert CORPUS // 10 < read["offers"] < CORPUS

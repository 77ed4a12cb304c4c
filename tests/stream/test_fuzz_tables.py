"""Catalogue and offers, changed at random: each record is one, or refused with a reason; none crashes a worker."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from models.offers import OfferError, decode_offer
from stream.catalogue import CatalogueItem, decode_item
from stream.errors import BadInputError
from stream.feeds import read_feed
from tests.mutations import mutated

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


def test_each_record_of_a_table_is_read_or_refused() -> None:
    read = Counter[str]()
    for value in (DEEP, *mutated(CORPUS, 4, ITEMS)):
        try:
            assert isinstance(decode_item(value), CatalogueItem)
            read["items"] += 1
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

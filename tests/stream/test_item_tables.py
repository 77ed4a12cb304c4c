from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from models.text_features import Facts
from stream.errors import BadInputError
from stream.item_tables import read_facts, table_beside


def test_columns_by_their_usual_names(tmp_path: Path) -> None:
    path = tmp_path / "shop.items.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write("item,category,description,brand,tags,median_price\n")
        file.write("i1,a.b,Tent,Acme,red|new,9.5\ni2,,,,,\ni3,x,y,z,,nan\n")
    found = read_facts(str(path), ["i2", "i1", "i9"])
    assert found == [Facts(), Facts("", "Tent", "a.b", ("Acme", "red", "new"), 9.5), Facts()]


def test_records_of_topic_items_the_last_of_each_counts(tmp_path: Path) -> None:
    path = tmp_path / "shop.items.jsonl"
    path.write_text('{"item_id":"i1","title":"old"}\n\n{"item_id":"i1","title":"帐篷","tags":["a"],"price":2}\n')
    assert read_facts(str(path), ["i1"]) == [Facts("帐篷", tags=("a",), price=2.0)]


def test_a_catalogue_lies_beside_its_recording(tmp_path: Path) -> None:
    recording = str(tmp_path / "shop.csv.gz")
    assert table_beside(recording) is None
    (tmp_path / "shop.items.csv.gz").touch()
    assert table_beside(recording) == str(tmp_path / "shop.items.csv.gz")


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("i.csv", "sku,title\n", "line 1, header: needs a column item, not sku,title"),
        ("i.csv", "item,price\ni1,1\ni2,cheap\n", "line 3, price: 'cheap' is not a number"),
        ("i.jsonl", '{"item_id":"a"}\n{"item_id":5}\n', "line 2, item_id"),
        ("i.jsonl", "{", "line 1, item"),
        ("i.xls", "", "not .csv"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInputError, match=problem):
        read_facts(str(tmp_path / name), ["i1"])

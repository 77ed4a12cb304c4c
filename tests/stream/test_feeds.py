"""Catalogue files of every kind, and what is wrong with them."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from xml.sax.saxutils import escape

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.catalogue import CatalogueItem
from stream.errors import BadInputError
from stream.feeds import item_of, money, read_feed

RSS = """<?xml version="1.0"?>
<rss xmlns:g="http://base.google.com/ns/1.0" version="2.0"><channel>
<title>Shop</title><link>http://shop.example</link><description>All</description>
<item><g:id>tent-1</g:id><g:title>Tunnel &amp; tent</g:title><title>Other</title>
<g:description><![CDATA[For <b>two</b>]]></g:description><link>http://shop.example/tent-1</link><g:image_link>http://shop.example/t.jpg</g:image_link>
<g:price>199.00 EUR</g:price><g:sale_price>149.50 EUR</g:sale_price><g:availability>in stock</g:availability>
<g:product_type>Camping &gt; Tents</g:product_type><g:shipping><g:price>5 EUR</g:price></g:shipping></item>
<item><g:id>bag</g:id><g:title>Bag</g:title><g:price>20 EUR</g:price><g:sale_price>10 EUR</g:sale_price>
<g:sale_price_effective_date>2016-01-01T00:00Z/2016-02-01T00:00Z</g:sale_price_effective_date>
<g:availability>out_of_stock</g:availability></item>
</channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom" xmlns:x="http://base.google.com/ns/1.0"><title>Shop</title>
<entry><x:id>tent-1</x:id><title>Tent</title><link href="http://shop.example/1"/><summary>Good</summary>
<x:price>1,299.00 USD</x:price></entry></feed>"""


def written(folder: Path, name: str, text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return str(path)


def items(path: str) -> list[CatalogueItem]:
    found = list(read_feed(path))
    assert [row for row in found if isinstance(row, BadInputError)] == []
    return [row for row in found if isinstance(row, CatalogueItem)]


@pytest.mark.parametrize("name", ["feed.xml", "feed.XML.gz"])
def test_a_merchant_feed_in_rss(tmp_path: Path, name: str) -> None:
    tent, bag = items(written(tmp_path, name.lower(), RSS))
    assert tent == CatalogueItem(
        item_id="tent-1",
        title="Tunnel & tent",
        text="For <b>two</b>",
        category="Camping > Tents",
        price=149.5,
        currency="EUR",
        availability="in_stock",
        url="http://shop.example/tent-1",
        image="http://shop.example/t.jpg",
    )
    assert (bag.price, bag.availability, bag.hidden) == (20.0, "out_of_stock", True)


def test_a_merchant_feed_in_atom_under_any_prefix(tmp_path: Path) -> None:
    (tent,) = items(written(tmp_path, "feed.xml", ATOM))
    assert (tent.item_id, tent.title, tent.text) == ("tent-1", "Tent", "Good")
    assert (tent.url, tent.price, tent.currency) == ("http://shop.example/1", 1299.0, "USD")


@pytest.mark.parametrize(
    "entity",
    [
        '<!ENTITY x SYSTEM "file:///etc/passwd">',
        '<!ENTITY x SYSTEM "http://127.0.0.1:1/x">',
        '<!ENTITY a "aaaaaaaaaa"><!ENTITY x "&a;&a;&a;&a;&a;&a;&a;&a;">',
    ],
)
def test_entities_are_never_looked_at(tmp_path: Path, entity: str) -> None:
    text = f"<!DOCTYPE rss [{entity}]><rss><channel><item><id>a</id><title>&x;</title></item></channel></rss>"
    with pytest.raises(BadInputError, match="DOCTYPE"):
        list(read_feed(written(tmp_path, "feed.xml", text)))


def test_json_lines_and_columns_give_the_same(tmp_path: Path) -> None:
    whole = CatalogueItem(
        item_id="a,b",
        title='The "tent"',
        price=9.5,
        currency="EUR",
        stock=3,
        availability="preorder",
        tags=["new", "red"],
        url="http://shop.example/",
    )
    lines = msgspec.json.encode(whole) + b"\n\n" + b'{"item_id":"c","unknown":1}\n'
    assert items(written(tmp_path, "a.jsonl", lines)) == [whole, CatalogueItem(item_id="c")]
    assert items(written(tmp_path, "a.jsonl.gz", lines)) == [whole, CatalogueItem(item_id="c")]
    row = ["a,b", 'The "tent"', "9.50 EUR", "3", "pre-order", "new|red", "http://shop.example/", "x"]
    for names in (
        ["item_id", "title", "price", "stock", "availability", "tags", "url", "unknown"],
        ["\ufeffID", "Title", "price", "Quantity", "g:availability", "labels", "Link", "unknown"],
    ):
        for name, delimiter in (("a.csv", ","), ("a.tsv.gz", "\t")):
            text = io.StringIO()
            csv.writer(text, delimiter=delimiter).writerows([names, row, ["c", *[""] * 7]])
            assert items(written(tmp_path, name, text.getvalue())) == [whole, CatalogueItem(item_id="c")]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '{"item_id":"a"}\n{"item_id":5}\n', "a.jsonl, line 2: Expected `str`, got `int` - at `$.item_id`"),
        ("a.jsonl", '\n{"item_id":"a","availability":"never"}', "line 2: Invalid enum value 'never'"),
        ("a.jsonl", "{", "line 1: Input data was truncated"),
        ("a.jsonl", '{"item_id":"a\\u0000b"}', "a.jsonl, line 1: item_id has a control character"),
        ("a.csv", f"id,title\n{'帐' * 86},x\n", "line 2: item_id is longer than 256 bytes"),
        ("a.csv", "id,price\na,free\n", "a.csv, line 2: no price: 'free'"),
        ("a.csv", "id,price\na,-5\n", "line 2: no price: '-5'"),
        ("a.csv", "id,stock\na,many\n", "line 2: stock is no number: 'many'"),
        ("a.csv", "id,availability\na,perhaps\n", "line 2: unknown availability 'perhaps'"),
        ("a.csv", "id,stock\na,-2\n", "line 2: stock is -2.0, not a number from 0 on"),
        ("a.csv", "id,stock\na,nan\n", "line 2: stock is nan, not a number from 0 on"),
        ("a.csv", "id,link\na,javascript:alert(1)\n", "line 2: url is 'javascript:alert(1)', not an address"),
        ("a.csv", 'id,image_link\na,"data:text/html,x"\n', "line 2: image is 'data:text/html,x', not an address"),
        ("a.csv", "id,currency\na,euro\n", "line 2: currency is 'euro', not an ISO-4217 code"),
        ("a.jsonl", '{"item_id":"a","price":-1}', "line 1: price is -1.0, not a number from 0 on"),
        ("a.jsonl", '{"item_id":"a","currency":"EUR\\n"}', "line 1: currency is 'EUR\\n', not an"),
        ("a.jsonl", '{"item_id":"a","url":"\\tjavascript:x"}', "line 1: url is '\\tjavascript:x', not an"),
        ("a.csv", "id,price\na,1,2\n", "line 2: 1 values more than columns"),
        ("a.csv", "id,title\n,x\n", "line 2: Object missing required field `item_id`"),
        ("a.xml", "<rss><item>\n<title>x</title></item></rss>", "line 1: Object missing required field `item_id`"),
    ],
)
def test_one_bad_item_is_named_and_read_on_behind(tmp_path: Path, name: str, text: str, words: str) -> None:
    more = {"csv": "b,\n", "xml": "", "jsonl": '\n{"item_id":"b"}'}[name.split(".")[1]]
    rows = list(read_feed(written(tmp_path, name, text + more)))
    (error,) = [row for row in rows if isinstance(row, BadInputError)]
    assert words in str(error)
    assert [row.item_id for row in rows if isinstance(row, CatalogueItem)][-1:] == ([] if name == "a.xml" else ["b"])


@pytest.mark.parametrize("url", ["https://shop.example/t", "HTTP://shop.example", "/t", "/"])
def test_an_address_is_whole_or_a_path(tmp_path: Path, url: str) -> None:
    row = {"item_id": "a", "url": url, "image": url}
    assert items(written(tmp_path, "a.jsonl", msgspec.json.encode(row))) == [msgspec.convert(row, CatalogueItem)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "name,price\n", "line 1: no column item_id or id among name, price"),
        ("a.csv", "", "no column item_id or id"),
        ("a.csv", b"id\n\xff\n", "utf-8"),
        ("a.xml", "<rss><item><id>a</id>", "Premature end"),
        ("a.xml", "<html/>", "is it a Merchant feed?"),
        ("a.xml.gz", "", "a.xml.gz"),
        ("a.parquet", "", "expected a name ending in .jsonl, .csv, .tsv or .xml"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, text: str | bytes, words: str) -> None:
    with pytest.raises(BadInputError, match="a\\.") as error:
        list(read_feed(written(tmp_path, name, text)))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_damaged_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        list(read_feed(str(tmp_path / "no.csv")))
    (tmp_path / "a.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(BadInputError, match="gzip"):
        list(read_feed(str(tmp_path / "a.csv.gz")))


@given(st.integers(0, 10_000_000), st.sampled_from(["{:.2f}", "{:,.2f}", "{:,}"]), st.sampled_from(["", " EUR", " $"]))
def test_prices_are_read_as_they_were_written(cents: int, form: str, currency: str) -> None:
    amount = cents if form == "{:,}" else cents / 100
    text = form.format(amount)
    german = text.translate(str.maketrans(",.", ".,"))
    named = "EUR" if "EUR" in currency else None
    assert money(text + currency) == (amount, named)
    if form != "{:,}":
        assert money(german + currency) == (amount, named)


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["id", "title", "price", "stock", "tags"]), texts), max_size=4))
def test_any_columns_give_an_item_or_an_error_each(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    """The same of CSV and of XML, whatever the values are."""
    folder = tmp_path_factory.mktemp("feed")
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "title", "price", "stock", "tags"])
    writer.writeheader()
    writer.writerows(rows)
    entries = "".join(
        f"<item><x/>{''.join(f'<{name}>{escape(value)}</{name}>' for name, value in row.items())}</item>"
        for row in rows
    )
    expected: list[CatalogueItem | None] = []
    for row in rows:
        try:
            expected.append(item_of(row))
        except ValueError:
            expected.append(None)
    blank = [not any(row.values()) for row in rows]
    found = list(read_feed(written(folder, "a.xml", f"<rss>{entries}<item><id>end</id></item></rss>")))[:-1]
    assert [row if isinstance(row, CatalogueItem) else None for row in found] == expected
    if not any(blank):
        found = list(read_feed(written(folder, "a.csv", text.getvalue())))
        assert [row if isinstance(row, CatalogueItem) else None for row in found] == expected

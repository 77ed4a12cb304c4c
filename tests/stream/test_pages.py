"""Product pages as shops write them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.catalogue import CatalogueItem
from stream.pages import NoProductError, _without_tags, product_of

URL = "https://shop.example/p/tent-1.html?x=1"
PRODUCT = {
    "@context": "https://schema.org/",
    "@type": "Product",
    "sku": "tent-1",
    "name": "Tunnel &amp; tent",
    "description": "<p>For  two</p>",
    "image": ["/t.jpg", "/u.jpg"],
    "category": "Camping",
    "keywords": "red, new",
    "offers": {
        "@type": "Offer",
        "price": "149.50",
        "priceCurrency": "EUR",
        "availability": "https://schema.org/InStock",
    },
}
OPEN_GRAPH = """<meta property="og:type" content="product"><meta property="og:title" content="Open tent">
<meta property="og:description" content="Open text"><meta property="og:image" content="//cdn.example/o.jpg">
<meta property="product:price:amount" content="99,90"><meta property="product:price:currency" content="CHF">
<meta property="product:availability" content="oos"><meta property="product:retailer_item_id" content="og-1">
<meta property="product:category" content="Tents">"""


def page(*blocks: Any, head: str = "") -> bytes:
    scripts = "".join(
        f'<script type="application/ld+json">{block if isinstance(block, str) else json.dumps(block)}</script>'
        for block in blocks
    )
    return f"<!doctype html><html><head><title>Page</title>{head}{scripts}</head><body>x</body></html>".encode()


def offered(offers: Any, **more: Any) -> CatalogueItem:
    return product_of(page(PRODUCT | {"offers": offers} | more), URL)


def test_a_product_in_json_ld() -> None:
    assert product_of(page(PRODUCT), URL) == CatalogueItem(
        item_id="tent-1",
        title="Tunnel & tent",
        text="For two",
        category="Camping",
        price=149.5,
        currency="EUR",
        availability="in_stock",
        url=URL,
        image="https://shop.example/t.jpg",
        tags=["red", "new"],
    )


@pytest.mark.parametrize(
    "block",
    [
        {"@context": "https://schema.org", "@graph": [{"@type": "WebSite", "name": "Shop"}, PRODUCT]},
        [{"@type": "BreadcrumbList"}, PRODUCT],
        {"@type": "WebPage", "mainEntity": PRODUCT},
        PRODUCT | {"@type": ["Thing", "Product"]},
        PRODUCT | {"@type": "http://schema.org/Product"},
        PRODUCT | {"@type": "schema:Product"},
        f"<!--{json.dumps(PRODUCT)}-->",
        json.dumps(PRODUCT).replace("For  two", "For\n two"),  # a raw line break in a string is no JSON, and common
    ],
)
def test_where_a_product_may_stand(block: Any) -> None:
    assert product_of(page("{broken", [], "null", block), URL).item_id == "tent-1"


@pytest.mark.parametrize(
    ("offers", "expected"),
    [
        ({"price": 5, "priceCurrency": "USD"}, (5.0, "USD", None)),
        ({"price": "1,299.00"}, (1299.0, None, None)),
        ([{"price": 9, "availability": "InStock"}, {"price": 7, "availability": "SoldOut"}], (9.0, None, "in_stock")),
        ([{"price": 9, "availability": "SoldOut"}, {"price": 7}], (7.0, None, None)),
        ([{"price": 9, "availability": "Discontinued"}], (9.0, None, "discontinued")),
        ({"@type": "AggregateOffer", "lowPrice": 3, "highPrice": 8, "priceCurrency": "EUR"}, (3.0, "EUR", None)),
        ({"lowPrice": 3, "offers": [{"price": 4, "priceCurrency": "EUR"}, {"price": 6}]}, (4.0, "EUR", None)),
        ({"lowPrice": 3, "priceCurrency": "EUR", "offers": [{"availability": "InStock"}]}, (3.0, "EUR", None)),
        ({"priceSpecification": [{"price": "12.00", "priceCurrency": "GBP"}]}, (12.0, "GBP", None)),
        ({"price": "on request", "availability": {"@id": "http://schema.org/PreOrder"}}, (None, None, "preorder")),
        ({"price": 5, "priceCurrency": "usd"}, (5.0, "USD", None)),
        ({"price": 5, "priceCurrency": "€"}, (5.0, None, None)),
        ([], (None, None, None)),
        ("nonsense", (None, None, None)),
    ],
)
def test_offers_of_every_form(offers: Any, expected: tuple[float | None, str | None, str | None]) -> None:
    item = offered(offers)
    assert (item.price, item.currency, item.availability) == expected


def test_a_group_has_the_offers_of_its_variants() -> None:
    group = {"@type": "ProductGroup", "productGroupID": "g1", "name": "Tents"}
    variants = [{"@type": "Product", "sku": n, "offers": {"price": 20 - n}} for n in range(3)]
    item = product_of(page(group | {"hasVariant": variants}), URL)
    assert (item.item_id, item.price) == ("g1", 18.0)


def test_open_graph_alone_and_as_a_filling() -> None:
    item = product_of(page(head=OPEN_GRAPH), URL)
    assert item == CatalogueItem(
        item_id="og-1",
        title="Open tent",
        text="Open text",
        category="Tents",
        price=99.9,
        currency="CHF",
        availability="out_of_stock",
        url=URL,
        image="https://cdn.example/o.jpg",
    )
    bare = {"@type": "Product", "sku": "tent-1", "name": "Tent", "offers": {"availability": "InStock"}}
    item = product_of(page(bare, head=OPEN_GRAPH), URL)
    assert (item.item_id, item.title, item.text, item.price) == ("tent-1", "Tent", "Open text", 99.9)
    assert item.availability == "in_stock"


def test_meta_tags_fill_what_is_left() -> None:
    head = '<meta name="description" content="From the page"><link rel="canonical" href="/p/tent-1">'
    item = product_of(page({"@type": "Product", "sku": "t"}, head=head), URL)
    assert (item.title, item.text, item.url) == ("Page", "From the page", "https://shop.example/p/tent-1")


def test_addresses_are_of_the_web() -> None:
    item = product_of(
        page(PRODUCT | {"image": "data:image/png;base64,AA"}, head='<link rel="canonical" href="javascript:x">'), URL
    )
    assert (item.image, item.url) == (None, URL)
    picture = {"@type": "ImageObject", "contentUrl": "https://cdn.example/i.jpg"}
    assert product_of(page(PRODUCT | {"image": picture}), URL).image == "https://cdn.example/i.jpg"


def test_the_id_is_what_the_shop_says() -> None:
    found = page(PRODUCT | {"gtin13": "4006381333931", "mpn": 77})
    assert product_of(found, URL, id_from="gtin").item_id == "4006381333931"
    assert product_of(found, URL, id_from="mpn").item_id == "77"
    assert product_of(found, URL, id_from="url").item_id == "tent-1.html"
    assert product_of(found, "https://shop.example/p/a%20b/", id_from="url").item_id == "a b"
    with pytest.raises(NoProductError, match="does not tell its productID"):
        product_of(found, URL, id_from="productID")


@pytest.mark.parametrize("charset", [None, "iso-8859-1", "no-such-charset", "idna"])
def test_charsets(charset: str | None) -> None:
    text = page({"@type": "Product", "sku": "x"}, head='<meta property="og:title" content="Zelt für drei €">').decode()
    data = text.encode("iso-8859-15" if charset == "iso-8859-1" else "utf-8")
    title = product_of(data, URL, charset).title
    assert title is not None
    assert title.startswith("Zelt für drei")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no HTML"),
        (b"\x00\x01", "no"),
        (page(), "no schema.org Product"),
        (page({"@type": "Article", "name": "x"}), "no schema.org Product"),
        (page({"@type": "Product", "name": "x"}), "no id"),
        (page({"@type": "Product", "sku": "x" * 300}), "item_id"),
    ],
)
def test_what_is_no_product_says_why(data: bytes, words: str) -> None:
    with pytest.raises(NoProductError, match=words):
        product_of(data, URL)


class Measured(str):
    """A text that counts the characters which its `find` looks at."""

    __slots__ = ("looked_at",)
    looked_at: int

    def find(self, sub: str, start: Any = 0, end: Any = None) -> int:
        at = super().find(sub, start)
        self.looked_at = getattr(self, "looked_at", 0) + (at + 1 if at >= 0 else len(self)) - start
        return at


@pytest.mark.parametrize("text", ["<" * 50_000, "<a" * 50_000 + ">", "<>" * 50_000, "a>" * 50_000, "<b>x" * 50_000])
def test_tags_are_taken_out_in_one_pass(text: str) -> None:
    """Whatever a page says of itself: a pattern looked at the rest once for each ``<``, a minute for 100 kB."""
    measured = Measured(text)
    _without_tags(measured)
    assert measured.looked_at <= 2 * len(text) + 2


@given(st.text(st.sampled_from("<>a b/")))
def test_tags_are_what_the_pattern_says(text: str) -> None:
    assert _without_tags(text) == re.sub(r"<[^>]*>", " ", text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["@type", "@graph", "offers", "price", "image", "name", "hasVariant", "category", "sku"]),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from([*PRODUCT, "hasVariant"]), values), st.booleans())
def test_any_json_ld_is_an_item_or_refused(odd: dict[str, Any], keep: bool) -> None:
    block = json.dumps((PRODUCT if keep else {}) | odd)
    try:
        item = product_of(page(block.replace("</", "<\\/")), URL)
    except NoProductError:
        return
    assert item.item_id
    assert item.image is None or item.image.startswith("http")


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_an_item(data: bytes) -> None:
    try:
        found = product_of(page(PRODUCT)[:150] + data + page(PRODUCT)[150:], URL)
    except NoProductError:
        return
    assert found.item_id

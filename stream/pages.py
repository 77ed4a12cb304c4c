"""A product page as a catalogue item: from JSON-LD (schema.org/Product), else OpenGraph, else meta tags.

Pure: bytes in, item out. Each field is taken from the first of the three that has it.
"""

from __future__ import annotations

import codecs
import html
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, Literal
from urllib.parse import unquote, urljoin, urlsplit

import msgspec
from lxml import etree
from lxml import html as lxml_html

from stream.catalogue import CURRENCY, CatalogueItem, availability_of
from stream.feeds import money
from stream.keys import Availability

IdFrom = Literal["auto", "sku", "productID", "gtin", "mpn", "url"]
PRODUCTS: Final = frozenset(("Product", "IndividualProduct", "ProductModel", "ProductGroup", "SomeProducts"))
TEXT_LENGTH: Final = 5_000
DEPTH: Final = 8  # of JSON-LD that is looked into
_IDS: Final = ("sku", "productID", "gtin13", "gtin14", "gtin12", "gtin8", "gtin", "mpn", "productGroupID")
_SPACE: Final = re.compile(r"\s+")


class NoProductError(ValueError):
    """The page does not describe a product, or leaves out what is needed; says what."""


def product_of(page: bytes, url: str, charset: str | None = None, id_from: IdFrom = "auto") -> CatalogueItem:
    """The product that a page is about.

    Parameters
    ----------
    page, charset
        HTML; without a charset of the transport's, the page's own word counts.
    url
        Its address, which relative addresses in it are relative to.
    id_from
        Which property is the ``item_id`` that events name: ``auto`` is the first of sku, productID, gtin, mpn and
        OpenGraph's ``product:retailer_item_id``; ``url`` is the last part of the address' path.

    Raises
    ------
    NoProductError
        If there is no product in it, no id, or a field is not valid.
    """
    tree = _parsed(page, charset)
    data = next(iter(_products(tree)), {})
    meta = _meta(tree)
    if not data and not meta.get("og:type", "").startswith("product") and "product:price:amount" not in meta:
        raise NoProductError("no schema.org Product in JSON-LD and no OpenGraph product")
    price, currency, availability = _offer(data, meta)
    fields = {
        "item_id": _id(data, meta, url, id_from),
        "title": _first(_text(data.get("name")), meta.get("og:title"), meta.get("<title>")),
        "text": _first(_text(data.get("description")), meta.get("og:description"), meta.get("description")),
        "category": _first(_category(data.get("category")), meta.get("product:category")),
        "price": price,
        "currency": _code(currency),
        "availability": availability,
        "url": _address(_first(meta.get("<canonical>"), meta.get("og:url")), url) or url,
        "image": _address(_first(_image(data.get("image")), meta.get("og:image"), meta.get("og:image:url")), url),
        "tags": _tags(data.get("keywords")),
    }
    try:
        return msgspec.convert({name: value for name, value in fields.items() if value is not None}, CatalogueItem)
    except msgspec.ValidationError as error:
        raise NoProductError(str(error)) from error


def _parsed(page: bytes, charset: str | None) -> Any:
    try:
        parser = lxml_html.HTMLParser(encoding=_charset(page, charset), no_network=True, huge_tree=False)
    except LookupError:  # a codec of Python's that is no charset, such as idna
        parser = lxml_html.HTMLParser(encoding=_charset(page, None), no_network=True, huge_tree=False)
    try:
        return lxml_html.document_fromstring(page, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
        raise NoProductError(f"no HTML: {error}") from error


def _charset(page: bytes, named: str | None) -> str | None:
    """The transport's word if it means something; else UTF-8 if the bytes are, which hardly anything is by chance."""
    if named is not None:
        with suppress(LookupError):
            return codecs.lookup(named).name
    with suppress(UnicodeDecodeError):
        page.decode()
        return "utf-8"
    return None


def _products(tree: Any) -> Iterator[dict[str, Any]]:
    """Products of all JSON-LD blocks, in order; a block that is no JSON is passed over, as browsers do."""
    for script in tree.iter("script"):
        if (script.get("type") or "").split(";")[0].strip().lower() != "application/ld+json":
            continue
        text = (script.text or "").strip().removeprefix("<!--").removesuffix("-->").strip()
        try:
            found = json.loads(text, strict=False)
        except (ValueError, RecursionError):
            continue
        yield from _walk(found, DEPTH)


def _walk(node: Any, depth: int) -> Iterator[dict[str, Any]]:
    if depth == 0:
        return
    if isinstance(node, list):
        for each in node:
            yield from _walk(each, depth - 1)
    elif isinstance(node, dict):
        kinds = node.get("@type")
        names = {str(kind).rstrip("/").rpartition("/")[2].rpartition("#")[2] for kind in _list(kinds)}
        names = {name.removeprefix("schema:") for name in names}
        if names & PRODUCTS:
            yield _whole(node)
        for inner in ("@graph", "mainEntity", "mainEntityOfPage"):
            yield from _walk(node.get(inner), depth - 1)


def _whole(node: dict[str, Any]) -> dict[str, Any]:
    """A product; a group of variants without an offer of its own gets those of its variants."""
    variants = [variant for variant in _list(node.get("hasVariant")) if isinstance(variant, dict)]
    if not variants or node.get("offers"):
        return node
    return node | {"offers": [offer for variant in variants for offer in _list(variant.get("offers"))]}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _meta(tree: Any) -> dict[str, str]:
    """Meta tags by property or name in lower case, the first of each; and title and canonical address."""
    found: dict[str, str] = {}
    for tag in tree.iter("meta"):
        name = (tag.get("property") or tag.get("name") or "").strip().lower()
        content = _text(tag.get("content"))
        if name and content:
            found.setdefault(name, content)
    title = _text(tree.findtext(".//title"))
    if title:
        found["<title>"] = title
    for link in tree.iter("link"):
        if "canonical" in (link.get("rel") or "").lower().split() and link.get("href"):
            found.setdefault("<canonical>", link.get("href"))
    return found


def _first(*values: str | None) -> str | None:
    return next((value for value in values if value), None)


def _text(value: Any) -> str | None:
    """A text without tags and entities, at most `TEXT_LENGTH` long; of several (or of a language map) the first."""
    value = next(iter(_list(value)), None)
    if isinstance(value, Mapping):
        value = value.get("@value")
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return None
    return _SPACE.sub(" ", html.unescape(_without_tags(value))).strip()[:TEXT_LENGTH] or None


def _without_tags(text: str) -> str:
    """A text with a space for each ``<...>``. A pattern would look for the end of each ``<`` anew: quadratic.

    Examples
    --------
    >>> _without_tags("a<br/>b < c")
    'a b < c'
    """
    kept, at = [], 0
    while (start := text.find("<", at)) >= 0 and (end := text.find(">", start)) >= 0:
        kept.append(text[at:start])
        at = end + 1
    return " ".join((*kept, text[at:]))


def _category(value: Any) -> str | None:
    value = next(iter(_list(value)), None)
    return _text(value.get("name")) if isinstance(value, Mapping) and "name" in value else _text(value)


def _tags(value: Any) -> list[str] | None:
    words = [_text(each) or "" for each in _list(value)]
    found = [tag.strip() for word in words for tag in word.split(",") if tag.strip()]
    return found or None


def _image(value: Any) -> str | None:
    value = next(iter(_list(value)), None)
    if isinstance(value, Mapping):
        value = value.get("url") or value.get("contentUrl") or value.get("@id")
    return _text(value)


def _address(value: str | None, base: str) -> str | None:
    """An absolute web address; None for anything else, such as ``data:`` or ``javascript:``."""
    if value is None:
        return None
    try:
        whole = urljoin(base, value)
        parts = urlsplit(whole)
    except ValueError:
        return None
    return whole if parts.scheme in ("http", "https") and parts.hostname else None


def _code(currency: str | None) -> str | None:
    """An ISO-4217 code; None for anything else, such as a sign."""
    code = (currency or "").upper()
    return code if CURRENCY.fullmatch(code) else None


def _id(data: Mapping[str, Any], meta: Mapping[str, str], url: str, id_from: IdFrom) -> str:
    if id_from == "url":
        names = [unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])]
    else:
        wanted = [name for name in _IDS if id_from == "auto" or name.startswith(id_from)]
        names = [_text(data.get(name)) or "" for name in wanted]
        if id_from == "auto":
            names.append(meta.get("product:retailer_item_id", ""))
    found = _first(*names)
    if found is None:
        what = "sku, productID, gtin, mpn or product:retailer_item_id" if id_from == "auto" else id_from
        raise NoProductError(f"no id: the page does not tell its {what}; see --id")
    return found


def _offer(data: Mapping[str, Any], meta: Mapping[str, str]) -> tuple[float | None, str | None, Availability | None]:
    """Price, currency and availability: the lowest price of what can be had, else of anything."""
    offers = list(_offers(data.get("offers"), DEPTH))
    able = [offer for offer in offers if offer[2] not in ("out_of_stock", "discontinued")] or offers
    priced = [offer for offer in able if offer[0] is not None]
    price, currency, availability = min(priced or able, key=lambda offer: offer[0] or 0.0, default=(None, None, None))
    availability = next((offer[2] for offer in [(price, currency, availability), *able] if offer[2]), None)
    if price is None:
        amount = meta.get("product:price:amount") or meta.get("og:price:amount")
        price, _ = _money(amount)
        currency = currency or meta.get("product:price:currency") or meta.get("og:price:currency")
    word = meta.get("product:availability") or meta.get("og:availability") or ""
    return price, currency, availability or availability_of(word)


def _offers(node: Any, depth: int) -> Iterator[tuple[float | None, str | None, Availability | None]]:
    """Price, currency and availability of each single offer; of an aggregate, what is inside it, else its lowest."""
    if depth == 0:
        return
    for offer in _list(node):
        if not isinstance(offer, Mapping):
            continue
        inner = list(_offers(offer.get("offers"), depth - 1))
        if any(price is not None for price, _, _ in inner):
            yield from inner
            continue
        terms = next((each for each in _list(offer.get("priceSpecification")) if isinstance(each, Mapping)), {})
        amount = next(
            (offer[name] for name in ("price", "lowPrice") if offer.get(name) is not None), terms.get("price")
        )
        price, currency = _money(amount)
        named = _text(offer.get("priceCurrency")) or _text(terms.get("priceCurrency"))
        word = offer.get("availability")
        word = word.get("@id") if isinstance(word, Mapping) else word
        yield price, named or currency, availability_of(_text(word) or "")


def _money(value: Any) -> tuple[float | None, str | None]:
    text = _text(value)
    try:
        return money(text) if text else (None, None)
    except ValueError:
        return None, None

"""Catalogue files: JSON Lines in the schema of topic ``items``, CSV or TSV, and Google Merchant feeds (RSS or Atom).

Columns of CSV and elements of XML may have our names or those of Google's product data specification.
"""

from __future__ import annotations

import csv
import gzip
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec
from lxml import etree

from stream.catalogue import CatalogueItem, availability_of
from stream.errors import BadInputError

MERCHANT: Final = "http://base.google.com/ns/1.0"
ENTRIES: Final = frozenset(("item", "entry"))  # of RSS 2.0 and of Atom

# Google's names, and some that shop systems export, to ours.
NAMES: Final[Mapping[str, str]] = {
    "id": "item_id",
    "name": "title",
    "description": "text",
    "summary": "text",
    "link": "url",
    "image_link": "image",
    "image_url": "image",
    "product_type": "category",
    "google_product_category": "category",
    "quantity": "stock",
    "inventory": "stock",
    "labels": "tags",
}
_FIELDS: Final = frozenset(CatalogueItem.__struct_fields__)
_MONEY: Final = re.compile(r"[0-9][0-9.,' \u00a0\u202f]*")
_CURRENCY: Final = re.compile(r"(?<![A-Za-z])[A-Z]{3}(?![A-Za-z])")

Row = CatalogueItem | BadInputError
T = TypeVar("T")


def read_feed(path: str) -> Iterator[Row]:
    """Items of a catalogue file, one by one.

    Parameters
    ----------
    path
        ``.jsonl``, ``.csv``, ``.tsv`` or ``.xml``, each also with ``.gz``; ``-`` is JSON Lines from standard input.

    Yields
    ------
    CatalogueItem or BadInputError
        An error names file, line and field; reading goes on behind it.

    Raises
    ------
    BadInputError
        If the file cannot be read at all, or from some place on.
    """
    name = path.lower().removesuffix(".gz")
    kind = "jsonl" if path == "-" else name.rpartition(".")[2]
    reader = _READERS.get(kind)
    if reader is None:
        raise BadInputError(f"{path}: expected a name ending in .jsonl, .csv, .tsv or .xml, each also with .gz")
    try:
        with _opened(path) as file:
            yield from reader(path, file)
    except (OSError, EOFError) as error:
        raise BadInputError(f"{path}: {getattr(error, 'strerror', None) or error}") from error


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
    elif path.lower().endswith(".gz"):
        with gzip.open(path, "rb") as unpacked:
            yield unpacked  # type: ignore[misc]  # a GzipFile reads as a BinaryIO does
    else:
        with Path(path).open("rb") as file:
            yield file


def money(text: str) -> tuple[float, str | None]:
    """Amount and currency of a price as people and feeds write it.

    Raises
    ------
    ValueError
        If there is no amount in it.

    Examples
    --------
    >>> money("1,299.00 EUR"), money("USD 15"), money("19,99 €"), money("1.299,00")
    ((1299.0, 'EUR'), (15.0, 'USD'), (19.99, None), (1299.0, None))
    """
    found = _MONEY.search(text)
    if found is None or text[: found.start()].rstrip().endswith("-"):
        raise ValueError(f"no price: {text!r}")
    digits = re.sub(r"[' \u00a0\u202f]", "", found[0]).rstrip(".,")
    whole, mark, cents = digits.rpartition(max(".,", key=digits.rfind))
    # one comma before three digits separates thousands; one point never does: it is the decimal one of every standard
    decimal = mark and mark not in whole and not (mark == "," and len(cents) == 3 and "." not in whole)
    digits = re.sub("[.,]", "", whole) + (f".{cents}" if decimal else cents)
    currency = _CURRENCY.search(text)
    return float(digits), currency[0] if currency else None


def item_of(fields: Mapping[str, str]) -> CatalogueItem:
    """An item from texts by their names in our schema or Google's; unknown names and empty texts are left out.

    A ``sale_price`` counts if it is not bound to dates.

    Raises
    ------
    ValueError
        If a field is not valid; names the field.

    Examples
    --------
    >>> item = item_of({"id": "t1", "title": "Tent", "price": "99 EUR", "availability": "in stock"})
    >>> item.item_id, item.price, item.currency, item.availability
    ('t1', 99.0, 'EUR', 'in_stock')
    """
    made: dict[str, Any] = {}
    given = {name: text.strip() for name, text in fields.items() if text and text.strip()}
    if "sale_price" in given and "sale_price_effective_date" not in given:
        given["price"] = given["sale_price"]
    for theirs, text in given.items():
        name = NAMES.get(theirs, theirs)
        if name not in _FIELDS or (name in made and theirs != name):  # our own name wins
            continue
        made[name] = _value(name, text, made)
    return msgspec.convert(made, CatalogueItem)


def _value(name: str, text: str, made: dict[str, Any]) -> Any:
    if name == "price":
        amount, currency = money(text)
        if currency:
            made.setdefault("currency", currency)
        return amount
    if name == "stock":
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"stock is no number: {text!r}") from None
    if name == "availability":
        found = availability_of(text)
        if found is None:
            raise ValueError(f"unknown availability {text!r}")
        return found
    if name == "tags":
        return [tag.strip() for tag in re.split(r"[,;|]", text) if tag.strip()]
    return text


def _judged(path: str, line: int | None, make: Callable[[T], CatalogueItem], raw: T) -> Row:
    try:
        return make(raw)
    except (ValueError, RecursionError) as error:  # msgspec's errors are the former, too
        return BadInputError(f"{path}, line {line}: {error}")


def _json_lines(path: str, file: BinaryIO) -> Iterator[Row]:
    decoder = msgspec.json.Decoder(CatalogueItem)
    for line, raw in enumerate(file, 1):
        if not raw.isspace():
            yield _judged(path, line, decoder.decode, raw)


def _separated(path: str, file: BinaryIO, delimiter: str) -> Iterator[Row]:
    try:
        rows = csv.DictReader((line.decode("utf-8-sig") for line in file), delimiter=delimiter, strict=True)
        names = {name: name.strip().lower().replace(" ", "_").removeprefix("g:") for name in rows.fieldnames or ()}
        if not {NAMES.get(name, name) for name in names.values()} >= {"item_id"}:
            raise BadInputError(f"{path}, line 1: no column item_id or id among {', '.join(names)}")
        for row in rows:
            fields = {names[name]: text for name, text in row.items() if name in names and text}
            extra = row.get(None)
            if extra:
                yield BadInputError(f"{path}, line {rows.line_num}: {len(extra)} values more than columns")
            else:
                yield _judged(path, rows.line_num, item_of, fields)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInputError(f"{path}: {error}") from error


def _merchant(path: str, file: BinaryIO) -> Iterator[Row]:
    """Entries of an RSS or Atom feed, with Google's namespace or without; nothing outside the file is ever read."""
    found = 0
    try:
        for _, element in etree.iterparse(
            file, events=("end",), resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False
        ):
            if not found:
                refuse_doctype(element)
            if etree.QName(element).localname not in ENTRIES or not len(element):
                continue
            found += 1
            yield _judged(path, element.sourceline, item_of, _texts(element))
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]
    except (etree.XMLSyntaxError, ValueError) as error:
        raise BadInputError(f"{path}: {error}") from error
    if not found:
        raise BadInputError(f"{path}: neither <item> nor <entry> in it: is it a Merchant feed?")


def refuse_doctype(element: Any) -> None:
    """Raise ``ValueError`` if the element's document has a document type, which may define entities without end."""
    if element.getroottree().docinfo.doctype:
        raise ValueError("it has a DOCTYPE, which no feed or sitemap needs")


def _texts(entry: Any) -> dict[str, str]:
    """Texts of an entry's elements by name; Google's namespace wins over RSS' and Atom's own elements."""
    own: dict[str, str] = {}
    theirs: dict[str, str] = {}
    for child in entry.iterchildren(tag=etree.Element):
        name = etree.QName(child)
        text = child.get("href", "") if name.localname == "link" and child.get("href") else "".join(child.itertext())
        (own if name.namespace == MERCHANT else theirs).setdefault(name.localname, text)
    return theirs | own


_READERS: Final[Mapping[str, Callable[[str, BinaryIO], Iterator[Row]]]] = {
    "jsonl": _json_lines,
    "csv": lambda path, file: _separated(path, file, ","),
    "tsv": lambda path, file: _separated(path, file, "\t"),
    "xml": _merchant,
}

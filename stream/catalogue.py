"""Records of topic ``items``: the catalogue's word on an item; a record without value withdraws it."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import inf
from typing import Annotated, Any, Final

import msgspec

from models.text_features import Facts
from stream.events import Id
from stream.identity import id_fault
from stream.keys import CONTRACT_VERSION, Availability, ItemDetails

GONE: Final = frozenset(("out_of_stock", "discontinued"))
ADDRESS: Final = re.compile("([Hh][Tt][Tt][Pp][Ss]?://|/)")  # no javascript: or data: into a shop's pages
CURRENCY: Final = re.compile("[A-Z]{3}")

# What fits in fields. Judged here, as msgspec's own constraints would not tell the value that they refuse.
_Rule = tuple[Callable[[Any], object], str]
_WEB: Final[_Rule] = (ADDRESS.match, "an address that begins with https://, http:// or /")
_CODE: Final[_Rule] = (CURRENCY.fullmatch, "an ISO-4217 code such as EUR")
_COUNT: Final[_Rule] = (lambda value: 0 <= value < inf, "a number from 0 on")
_RULES: Final[dict[str, _Rule]] = {"price": _COUNT, "currency": _CODE, "stock": _COUNT, "url": _WEB, "image": _WEB}

Address = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{ADDRESS.pattern}"})]
Currency = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": f"^{CURRENCY.pattern}$"})]
Count = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0})]

# schema.org's ItemAvailability, Google Merchant's and OpenGraph's words, without punctuation and in lower case.
_AVAILABILITY: Final[dict[str, Availability]] = {
    "instock": "in_stock",
    "available": "in_stock",
    "instoreonly": "in_stock",
    "onlineonly": "in_stock",
    "madetoorder": "in_stock",
    "reserved": "out_of_stock",
    "outofstock": "out_of_stock",
    "oos": "out_of_stock",
    "soldout": "out_of_stock",
    "preorder": "preorder",
    "presale": "preorder",
    "pending": "preorder",
    "backorder": "backorder",
    "availablefororder": "backorder",
    "limitedavailability": "limited",
    "limited": "limited",
    "discontinued": "discontinued",
}


class CatalogueItem(msgspec.Struct, gc=False, omit_defaults=True):
    """One item of the catalogue. Unknown fields are accepted; ids are judged as those of events.

    Attributes
    ----------
    item_id
        The record's key.
    title, text, category, tags
        What the shop says of it.
    price, currency
        Money, not below 0, and its ISO-4217 code.
    url, image
        Addresses of its page and of a picture: ``https://``, ``http://``, or a path from ``/`` on.
    stock
        Pieces left; 0 hides the item, None = not counted.
    availability
        ``out_of_stock`` and ``discontinued`` hide the item, whatever its stock.
    """

    item_id: Id
    title: str | None = None
    text: str | None = None
    category: str | None = None
    price: Count | None = None
    currency: Currency | None = None
    stock: Count | None = None
    availability: Availability | None = None
    url: Address | None = None
    image: Address | None = None
    tags: list[str] | None = None

    def __post_init__(self) -> None:
        """Refuse an id that no event could have, and what a page must not show; msgspec makes its own error of it."""
        _check(self.item_id)
        for name, (fits, wanted) in _RULES.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ValueError(f"{name} is {value!r:.80}, not {wanted}")

    @property
    def hidden(self) -> bool:
        """Whether it must not be recommended now."""
        return (self.stock is not None and self.stock <= 0) or self.availability in GONE

    @property
    def facts(self) -> Facts:
        """What models read of it."""
        return Facts(self.title or "", self.text or "", self.category or "", tuple(self.tags or ()), self.price)


_decode: Final = msgspec.json.Decoder(CatalogueItem).decode


def decode_item(data: bytes | str) -> CatalogueItem:
    """Read an item; ``ValueError`` if it is none, also for what is nested too deeply to be read."""
    try:
        return _decode(data)
    except RecursionError as error:
        raise ValueError(str(error)) from None


def decode_record(key: bytes | None, value: bytes | None) -> tuple[str, CatalogueItem | None]:
    """Id of a record's item, and what is said of it: None if it is withdrawn; ``ValueError`` if it is none of these."""
    if value is not None:
        item = decode_item(value)
        return item.item_id, item
    name = (key or b"").decode()
    _check(name)
    return name, None


def item_id_fault(item_id: str) -> str:
    """What is wrong with an item's id; empty if nothing is."""
    return id_fault(item_id) or ("" if item_id else "is empty")


def _check(item_id: str) -> None:
    if fault := item_id_fault(item_id):
        raise ValueError(f"item_id {fault}")


def availability_of(text: str) -> Availability | None:
    """Availability by its name in schema.org, Google Merchant feeds or OpenGraph; None if it is none of theirs.

    Examples
    --------
    >>> availability_of("https://schema.org/OutOfStock"), availability_of("in stock"), availability_of("perhaps")
    ('out_of_stock', 'in_stock', None)
    """
    word = text.strip().rstrip("/").rpartition("/")[2].lower()
    return _AVAILABILITY.get("".join(character for character in word if character.isalnum()))


def details_of(item: CatalogueItem | None, ts_ms: int) -> bytes:
    """Value of the key ``item:<item>`` for a catalogue record of a time (ms UTC); None = withdrawn."""
    if item is None:
        return msgspec.json.encode(ItemDetails(v=CONTRACT_VERSION, ts=ts_ms, hidden=True))
    return msgspec.json.encode(
        ItemDetails(
            v=CONTRACT_VERSION,
            ts=ts_ms,
            hidden=item.hidden,
            title=item.title,
            category=item.category,
            price=item.price,
            currency=item.currency,
            availability=item.availability,
            url=item.url,
            image=item.image,
        )
    )

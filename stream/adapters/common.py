"""What the adapters share: how a value is refused, and the loose types of ids, words and times that shops send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from stream.events import MAX_ID_BYTES, Count, Item

Word = str | int | None  # shops send ids and categories as numbers, too
Ident = Annotated[str, msgspec.Meta(max_length=MAX_ID_BYTES)] | int | None
Stamp = str | int | float | None
LetterReason = Literal[
    "empty",
    "too_large",
    "not_json",
    "unknown_shape",
    "too_many",
    "unmapped",
    "schema",
    "missing_user",
    "id_invalid",
    "time_absurd",
]


class Product(msgspec.Struct, gc=False):
    """A product under the names of Enhanced Ecommerce and of Snowplow."""

    id: Ident = None
    name: str | None = None
    category: Word = None
    price: Count | None = None
    quantity: Count | None = None


class Refused(Exception):
    """A value that cannot be taken: the dead letter's reason and detail."""

    def __init__(self, reason: LetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def text(value: Word | UnsetType) -> str | None:
    """An id or word as text; empty is the same as absent."""
    if type(value) is str:  # as nearly always
        return value or None
    return None if value is None or value is UNSET else str(value)


def required(value: Word | UnsetType, field: str) -> str:
    """An id or word that must be there."""
    found = text(value)
    if found is None:
        raise Refused("schema", f"{field} is missing or empty")
    return found


def moment(value: Stamp) -> Stamp:
    """A time as `Event.event_timestamp` takes it: digits sent as text become a number.

    Examples
    --------
    >>> moment("1599391467000"), moment("2020-09-06T11:24:27Z"), moment(5.5)
    (1599391467000, '2020-09-06T11:24:27Z', 5.5)
    """
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    return value or None


def items_of(products: Sequence[Product], field: str) -> list[Item] | None:
    """Our items; None for none. `field` names the id that each must have."""
    items = []
    for product in products:
        item_id = text(product.id)
        if item_id is None:
            raise Refused("schema", f"{field} is missing or empty")
        items.append(Item(item_id, product.name, text(product.category), product.price, product.quantity))
    return items or None

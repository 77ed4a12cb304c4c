"""Calls of Segment and RudderStack: track, identify, page, screen and alias, one by one or in a batch.

Sources: https://segment.com/docs/connections/spec/ and https://www.rudderstack.com/docs/event-spec/
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from stream.adapters.common import Ident, Refused, Stamp, Word, moment, required, text
from stream.adapters.marks import Marks
from stream.events import Amount, Count, Event, Item, TrafficSource

NAMES: Final = {
    "products searched": "search",
    "product list viewed": "view_item_list",
    "product list filtered": "view_item_list",
    "promotion viewed": "view_promotion",
    "promotion clicked": "select_promotion",
    "product clicked": "select_item",
    "product viewed": "view_item",
    "product added": "add_to_cart",
    "product removed": "remove_from_cart",
    "cart viewed": "view_cart",
    "checkout started": "begin_checkout",
    "payment info entered": "add_payment_info",
    "order completed": "purchase",
    "order refunded": "refund",
    "order cancelled": "refund",
    "product added to wishlist": "add_to_wishlist",
    "product removed from wishlist": "remove_from_wishlist",
    "wishlist product added to cart": "add_to_cart",
    "product shared": "share",
    "cart shared": "share",
    "product reviewed": "comment",
    "email opened": "email_open",
    "email link clicked": "email_click",
    "signed in": "login",
    "signed up": "sign_up",
}


class _Product(msgspec.Struct, gc=False):
    product_id: Ident = None
    sku: Ident = None
    name: str | None = None
    category: Word = None
    price: Count | None = None
    quantity: Count | None = None
    coupon: str | None = None


class _Properties(_Product):
    products: list[_Product] | None = None
    revenue: Amount | None = None
    value: Amount | None = None
    total: Amount | None = None
    currency: str | None = None
    order_id: Word = None
    query: str | None = None
    promotion_id: str | None = None
    list_id: str | None = None


class _Context(msgspec.Struct, gc=False, rename="camel"):
    campaign: TrafficSource | None = None
    session_id: Word = None
    traits: dict[str, Any] | None = None


class _Call(Marks, kw_only=True, rename="camel"):
    type: Literal["track", "identify", "page", "screen", "alias", "group"]
    event: Ident = None
    userId: Ident | UnsetType = UNSET
    anonymousId: Ident | UnsetType = UNSET
    previousId: Ident | UnsetType = UNSET
    messageId: Ident | UnsetType = UNSET
    timestamp: Stamp = None
    original_timestamp: Stamp = None
    properties: _Properties | None = None
    traits: dict[str, Any] | None = None
    context: _Context | None = None
    channel: str | None = None


class _Batch(msgspec.Struct, gc=False):
    batch: list[msgspec.Raw]


decode: Final = msgspec.json.Decoder(_Call, strict=False).decode
_NO_CONTEXT: Final = _Context()
_NO_PROPERTIES: Final = _Properties()
_decode_batch: Final = msgspec.json.Decoder(_Batch).decode


def split(value: bytes) -> list[bytes]:
    """The calls of a batch; each says for itself who called."""
    return [bytes(call) for call in _decode_batch(value).batch]


def adapt(call: _Call) -> Event:
    """The event of a call."""
    context = call.context or _NO_CONTEXT
    said = call.properties or _NO_PROPERTIES
    if call.type == "identify":
        said = _NO_PROPERTIES  # what an identify says is in its traits
    event = Event(  # fifteen keywords: with one more CPython makes a dictionary of them first, which costs 0.4 us
        event_name=_name(call),
        event_id=text(call.messageId),
        event_timestamp=moment(call.timestamp or call.original_timestamp),
        user_id=text(call.userId),
        user_pseudo_id=text(call.previousId if call.type == "alias" else call.anonymousId),
        session_id=text(context.session_id),
        items=_items(said),
        value=said.revenue if said.revenue is not None else said.value if said.value is not None else said.total,
        currency=said.currency,
        transaction_id=text(said.order_id),
        search_term=said.query,
        promotion_id=said.promotion_id,
        item_list_id=said.list_id,
        platform=call.channel,
        traffic_source=context.campaign,
    )
    if call.type == "identify":
        event.user_properties = call.traits or context.traits
    return event


def _name(call: _Call) -> str:
    """Our name of a call; a name that is not in the table stays as it is."""
    if call.type == "track":
        name = required(call.event, "event")
        return NAMES.get(name.replace("_", " ").lower(), name)
    if call.type == "group":
        raise Refused("unmapped", "a group call: it says nothing about a visitor")
    return {"page": "page_view", "screen": "screen_view"}.get(call.type, call.type)


def _items(said: _Properties) -> list[Item] | None:
    """The products of an order or list, else the one that the properties are of."""
    if said.products is not None:
        return [_item(product) for product in said.products] or None
    return None if said.product_id is said.sku is None else [_item(said)]


def _item(product: _Product) -> Item:
    return Item(
        item_id=required(product.sku if product.product_id is None else product.product_id, "product_id"),
        item_name=product.name,
        item_category=text(product.category),
        price=product.price,
        quantity=product.quantity,
        coupon=product.coupon,
    )

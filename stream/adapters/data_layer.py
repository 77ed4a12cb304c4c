"""What a shop pushes to Google Tag Manager's ``dataLayer``: GA4's ``ecommerce`` and the older Enhanced Ecommerce.

Sources: https://developers.google.com/analytics/devguides/collection/ga4/ecommerce and
https://developers.google.com/analytics/devguides/collection/ua/gtm/enhanced-ecommerce
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from stream.adapters.common import Ident, Product, Refused, Stamp, Word, items_of, moment, text
from stream.adapters.ga4 import Parameters, event_of
from stream.adapters.marks import Marks
from stream.events import Amount, Event


class _Promotion(msgspec.Struct, gc=False):
    id: Word = None


class _Field(msgspec.Struct, gc=False):
    id: Word = None
    revenue: Amount | None = None
    list: str | None = None


class _Action(msgspec.Struct, gc=False, rename="camel"):
    action_field: _Field | None = None
    products: list[Product] = []
    promotions: list[_Promotion] = []


class _Ecommerce(
    Parameters, rename={"currency_code": "currencyCode", "promo_click": "promoClick", "promo_view": "promoView"}
):
    """GA4's parameters, or one of Enhanced Ecommerce's actions."""

    currency_code: str | None = None
    purchase: _Action | None = None
    refund: _Action | None = None
    add: _Action | None = None
    remove: _Action | None = None
    checkout: _Action | None = None
    click: _Action | None = None
    detail: _Action | None = None
    promo_click: _Action | None = None
    promo_view: _Action | None = None
    impressions: list[Product] | None = None


class _Push(Marks):
    ecommerce: _Ecommerce | UnsetType | None = UNSET
    event: Ident = None
    event_id: Ident = None
    event_timestamp: Stamp = None
    user_id: Ident = None
    userId: Ident | UnsetType = UNSET
    user_pseudo_id: Ident = None
    client_id: Ident | UnsetType = UNSET


decode: Final = msgspec.json.Decoder(_Push, strict=False).decode
_ID: Final = "products[].id"
_ACTIONS: Final = {  # what a visitor did comes before what was merely shown beside it
    "purchase": "purchase",
    "refund": "refund",
    "add": "add_to_cart",
    "remove": "remove_from_cart",
    "checkout": "begin_checkout",
    "click": "select_item",
    "detail": "view_item",
    "promo_click": "select_promotion",
    "promo_view": "view_promotion",
}


def adapt(push: _Push) -> Event:
    """The event of a push."""
    if not push.ecommerce:
        raise Refused("unmapped", "a push that only clears ecommerce")
    user, cookie = push.user_id or push.userId or None, push.user_pseudo_id or push.client_id or None
    event = _enhanced(push.ecommerce) if push.ecommerce.items is None else None
    if event is None:
        event = event_of(push.event, push.ecommerce, user, cookie, None)
    event.user_id, event.user_pseudo_id = text(user), text(cookie)
    event.event_id, event.event_timestamp = text(push.event_id), moment(push.event_timestamp)
    return event


def _enhanced(ecommerce: _Ecommerce) -> Event | None:
    """The event of an Enhanced Ecommerce push; None if it is not one."""
    for field, name in _ACTIONS.items():
        action: _Action | None = getattr(ecommerce, field)
        if action is not None:
            return _acted(name, action, ecommerce.currency_code)
    if ecommerce.impressions is None:
        return None
    return Event(
        event_name="view_item_list", items=items_of(ecommerce.impressions, _ID), currency=ecommerce.currency_code
    )


def _acted(name: str, action: _Action, currency: str | None) -> Event:
    said = action.action_field or _Field()
    return Event(
        event_name=name,
        items=items_of(action.products, _ID),
        value=said.revenue,
        currency=currency,
        transaction_id=text(said.id),
        item_list_id=said.list,
        promotion_id=text(action.promotions[0].id) if action.promotions else None,
    )

"""What GA4's shapes have in common: the parameters and items of an e-commerce event, which are nearly ours."""

from __future__ import annotations

import msgspec
from msgspec import UnsetType

from stream.adapters.common import Ident, Refused, Stamp, Word, required, text
from stream.events import Amount, Event, Id, Item

NOT_SET = "(not set)"  # what GA4 exports in the place of an absent id


class LooseItem(Item):
    """An item whose id or category may be a number."""

    item_id: Id | int  # type: ignore[assignment]  # narrowed by `ours`
    item_category: Word = None  # type: ignore[assignment]


class Parameters(msgspec.Struct, gc=False):
    """Parameters of an e-commerce event."""

    items: list[LooseItem] | None = None
    value: Amount | None = None
    currency: str | None = None
    transaction_id: Word = None
    search_term: str | None = None
    promotion_id: str | None = None
    item_list_id: str | None = None
    session_id: Word = None


def ours(items: list[LooseItem] | None) -> list[Item] | None:
    """Items whose ids and categories have become text."""
    for item in items or ():
        item.item_id = str(item.item_id)
        item.item_category = text(item.item_category)
        if item.item_id == NOT_SET:
            raise Refused("id_invalid", "items[].item_id is (not set)")
    return items  # type: ignore[return-value]  # each is an Item


def event_of(name: Ident | UnsetType, parameters: Parameters, user: Ident, cookie: Ident, stamp: Stamp) -> Event:
    """Our event of a name, its parameters and who did it."""
    return Event(
        event_name=required(name, "the event's name"),
        event_timestamp=stamp,
        user_id=text(user),
        user_pseudo_id=text(cookie),
        session_id=text(parameters.session_id),
        items=ours(parameters.items),
        value=parameters.value,
        currency=parameters.currency,
        transaction_id=text(parameters.transaction_id),
        search_term=parameters.search_term,
        promotion_id=parameters.promotion_id,
        item_list_id=parameters.item_list_id,
    )

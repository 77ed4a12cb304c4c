"""Metarank's events: interactions, rankings and what is known of a user; items belong to topic ``items``.

Source: https://docs.metarank.ai/reference/event-schema
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from stream.adapters.common import Ident, Refused, Stamp, moment, required, text
from stream.adapters.marks import Marks
from stream.events import Event, Item

NAMES: Final = {
    "click": "select_item",
    "view": "view_item",
    "impression": "view_item_list",
    "cart": "add_to_cart",
    "wishlist": "add_to_wishlist",
    "rating": "rate",
}


class _Field(msgspec.Struct, gc=False):
    name: str
    value: Any = None


class _Ranked(msgspec.Struct, gc=False):
    id: Ident = None


class _Event(Marks, kw_only=True):
    event: Literal["interaction", "ranking", "user", "item"]
    id: Ident = None
    timestamp: Stamp | UnsetType = UNSET
    user: Ident = None
    session: Ident = None
    type: Ident = None
    item: Ident = None
    items: list[_Ranked] | None = None
    fields: list[_Field] | None = None


decode: Final = msgspec.json.Decoder(_Event, strict=False).decode


def adapt(sent: _Event) -> Event:
    """The event of an interaction, a ranking or a user's metadata."""
    if sent.event == "item":
        raise Refused("unmapped", "metadata of an item: publish it to topic items")
    event = Event(
        event_name="identify" if sent.event == "user" else "view_item_list",
        event_id=text(sent.id),
        event_timestamp=moment(sent.timestamp or None),
        user_id=text(sent.user),
        user_pseudo_id=None if sent.user else text(sent.session),  # both are optional, one is needed
        session_id=text(sent.session),
    )
    if sent.event == "interaction":
        name = required(sent.type, "type")
        event.event_name, event.item_id = NAMES.get(name, name), required(sent.item, "item")
    elif sent.event == "ranking":
        event.items = [Item(item_id=required(item.id, "items[].id")) for item in sent.items or ()]
    else:
        event.user_properties = {field.name: field.value for field in sent.fields or ()}
    return event

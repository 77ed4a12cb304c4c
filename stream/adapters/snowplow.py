"""Snowplow e-commerce: events of the tracker protocol (one, or a payload of many), and enriched events as JSON.

Sources: https://docs.snowplow.io/docs/events/ootb-data/ecommerce-events/ and
https://docs.snowplow.io/docs/fundamentals/canonical-event/
"""

from __future__ import annotations

import functools
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from stream.adapters.common import Ident, Product, Refused, Stamp, Word, items_of, moment, required, text
from stream.adapters.marks import Exported, Marks
from stream.events import Amount, Event

PAYLOAD: Final = "iglu:com.snowplowanalytics.snowplow/payload_data/"
NAMES: Final = {
    "product_view": "view_item",
    "list_view": "view_item_list",
    "list_click": "select_item",
    "checkout_step": "begin_checkout",
    "transaction": "purchase",
    "promo_view": "view_promotion",
    "promo_click": "select_promotion",
}

_VENDOR: Final = "com.snowplowanalytics.snowplow.ecommerce"
_ACTION: Final = f"iglu:{_VENDOR}/snowplow_ecommerce_action/"
_PAGE_VIEW: Final = ("page_view", None)  # name and list
_SHORT: Final = 1_000  # characters of an action's JSON; longer ones are not kept


class _Entity(Product):
    """What entities say: a product, a promotion or user its id, the others money."""

    transaction_id: Word = None
    currency: str | None = None
    revenue: Amount | None = None
    refund_amount: Amount | None = None
    total_value: Amount | None = None


_Entities = list[_Entity] | None


class _Action(msgspec.Struct, gc=False):
    type: Ident = None
    name: Word = None


class _Kinds(Exported, rename=lambda name: f"contexts_com_snowplowanalytics_snowplow_ecommerce_{name}_1"):
    """An event's entities under their names in enriched events."""

    product: _Entities = None
    transaction: _Entities = None
    refund: _Entities = None
    cart: _Entities = None
    promotion: _Entities = None
    user: _Entities = None


class _Enriched(_Kinds, kw_only=True, rename=None):
    """Who, where and when, under the names of enriched events; the tracker protocol's are in `_Tracked`."""

    event_name: Ident
    event_id: Ident = None
    derived_tstamp: Stamp = None
    collector_tstamp: Stamp | UnsetType = UNSET
    user_id: Ident = None
    domain_userid: Ident = None
    network_userid: Ident = None
    domain_sessionid: Ident = None
    platform: str | None = None
    action: _Action | None = msgspec.field(
        name="unstruct_event_com_snowplowanalytics_snowplow_ecommerce_snowplow_ecommerce_action_1", default=None
    )


class _Tracked(Marks, kw_only=True):
    e: str
    eid: Ident = None
    dtm: Stamp = None
    ttm: Stamp = None
    uid: Ident = None
    duid: Ident = None
    nuid: Ident = None
    sid: Ident = None
    p: str | None = None
    ue_pr: str | None = None
    ue_px: str | None = None
    co: str | None = None
    cx: str | None = None


class _Acted(msgspec.Struct, gc=False):
    data: _Action
    schema: str = ""


class _Unstructured(msgspec.Struct, gc=False):
    data: _Acted


class _Context(msgspec.Struct, gc=False):
    schema: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")  # others' mean something else by the same names


class _Contexts(msgspec.Struct, gc=False):
    data: list[_Context]


class _Payload(msgspec.Struct, gc=False):
    data: list[msgspec.Raw]


decode_enriched: Final = msgspec.json.Decoder(_Enriched, strict=False).decode
decode_tracked: Final = msgspec.json.Decoder(_Tracked, strict=False).decode
_decode_base64: Final = msgspec.json.Decoder(bytes).decode
_decode_payload: Final = msgspec.json.Decoder(_Payload).decode
_decode_unstructured: Final = msgspec.json.Decoder(_Unstructured).decode
_decode_contexts: Final = msgspec.json.Decoder(_Contexts).decode
_decode_entity: Final = msgspec.json.Decoder(_Entity, strict=False).decode
_ENTITY_KINDS: Final = {  # by their schemas without the version
    f"{_VENDOR}/{kind}/jsonschema": kind for kind in ("product", "transaction", "refund", "cart", "promotion", "user")
}


def split(value: bytes) -> list[bytes]:
    """Events of a tracker's payload."""
    return [bytes(event) for event in _decode_payload(value).data]


def adapt_enriched(sent: _Enriched) -> Event:
    """The event of an enriched event's JSON."""
    if sent.action is not None:
        name, item_list = _named(sent.action)
    elif sent.event_name == "page_view":
        name, item_list = _PAGE_VIEW
    else:
        called = text(sent.event_name) or ""
        raise Refused("unmapped", f"event_name is {called[:40]!r}: no page view or e-commerce action")
    event = Event(
        event_name=name,
        event_id=text(sent.event_id),
        event_timestamp=moment(sent.derived_tstamp or sent.collector_tstamp or None),
        user_id=text(sent.user_id),
        user_pseudo_id=text(sent.domain_userid or sent.network_userid),
        session_id=text(sent.domain_sessionid),
        items=items_of(sent.product or (), "product.id"),
        item_list_id=item_list,
        platform=sent.platform,
    )
    _add(event, sent.transaction or sent.refund or sent.cart, sent.promotion, sent.user)
    return event


def adapt_tracked(sent: _Tracked) -> Event:
    """The event of the tracker protocol: a page view, or the e-commerce action."""
    if sent.e == "ue":
        read = _known_action if len(sent.ue_pr or sent.ue_px or "") <= _SHORT else _action
        name, item_list = read(sent.ue_pr, sent.ue_px)
    elif sent.e == "pv":
        name, item_list = _PAGE_VIEW
    else:
        raise Refused("unmapped", f"e is {sent.e[:20]!r}: neither a page view nor an e-commerce action")
    products: list[_Entity] = []
    others: dict[str, list[_Entity]] = {}
    contexts = _json(sent.co, sent.cx)
    for context in _decode_contexts(contexts).data if contexts else ():
        kind = _ENTITY_KINDS.get(context.schema.removeprefix("iglu:").rpartition("/")[0])
        if kind == "product":
            products.append(_decode_entity(context.data))
        elif kind:
            others.setdefault(kind, []).append(_decode_entity(context.data))
    event = Event(
        event_name=name,
        event_id=text(sent.eid),
        event_timestamp=moment(sent.ttm or sent.dtm),
        user_id=text(sent.uid),
        user_pseudo_id=text(sent.duid or sent.nuid),
        session_id=text(sent.sid),
        items=items_of(products, "product.id"),
        item_list_id=item_list,
        platform=sent.p,
    )
    if others:
        paid = others.get("transaction") or others.get("refund") or others.get("cart")
        _add(event, paid, others.get("promotion"), others.get("user"))
    return event


def _named(action: _Action) -> tuple[str, str | None]:
    """Name and list of an action's event."""
    kind = required(action.type, "the action's type")
    return NAMES.get(kind, kind), text(action.name)


def _add(event: Event, paid: _Entities, promotions: _Entities, users: _Entities) -> None:
    """Money, promotion and customer; the first entity of each kind counts."""
    if paid:
        money = paid[0]
        event.transaction_id, event.currency = text(money.transaction_id), money.currency
        event.value = money.revenue if money.revenue is not None else money.refund_amount
        event.value = event.value if event.value is not None else money.total_value
    if promotions:
        event.promotion_id = text(promotions[0].id)
    if users and event.user_id is None:
        event.user_id = text(users[0].id)


def _json(plain: str | None, encoded: str | None) -> str | bytes | None:
    """A self-describing JSON, sent as text or in base64 for URLs."""
    if encoded is None or plain is not None:
        return plain
    try:
        standard, padding = encoded.replace("-", "+").replace("_", "/"), "=" * (-len(encoded) % 4)
        return _decode_base64(f'"{standard}{padding}"')  # half the time of binascii
    except msgspec.DecodeError as error:
        raise Refused("schema", f"ue_px or cx: {error}") from None


def _action(plain: str | None, encoded: str | None) -> tuple[str, str | None]:
    """Name and list of the e-commerce action inside a self-describing event."""
    value = _json(plain, encoded)
    if not value:
        raise Refused("schema", "ue_pr or ue_px is missing")
    event = _decode_unstructured(value).data
    if not event.schema.startswith(_ACTION):
        raise Refused("unmapped", f"schema {event.schema[:80]!r} is not the e-commerce action")
    return _named(event.data)


_known_action: Final = functools.lru_cache(1024)(_action)  # all views of a product say the same

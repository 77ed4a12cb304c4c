"""Snowplow e-commerce: events of the tracker protocol (one, or a payload of many), and enriched events as JSON.

Sources: https://docs.snowplow.io/docs/events/ootb-data/ecommerce-events/ and
https://docs.snowplow.io/docs/fundamentals/canonical-event/
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from stream.adapters.common import Ident, Product, Refused, Stamp, Word, items_of, moment, required, text
from stream.adapters.marks import Marks
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
_SHORT: Final = 1_000  # characters of an action's JSON; longer ones are not kept


class _Entity(Product):
    """What entities say: a product, a promotion or user its id, the others money."""

    transaction_id: Word = None
    currency: str | None = None
    revenue: Amount | None = None
    refund_amount: Amount | None = None
    total_value: Amount | None = None


class _Action(msgspec.Struct, gc=False):
    type: Ident = None
    name: Word = None


class _Entities(Marks, rename=lambda name: f"contexts_com_snowplowanalytics_snowplow_ecommerce_{name}_1"):
    """An event's entities under their names in enriched events."""

    product: list[_Entity] | None = None
    transaction: list[_Entity] | None = None
    refund: list[_Entity] | None = None
    cart: list[_Entity] | None = None
    promotion: list[_Entity] | None = None
    user: list[_Entity] | None = None


class _Enriched(_Entities, rename=None):
    """Who, where and when, under the names of enriched events; the tracker protocol's are in `_Tracked`."""

    event_name: Ident | UnsetType = UNSET
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
_decode_payload: Final = msgspec.json.Decoder(_Payload).decode
_decode_unstructured: Final = msgspec.json.Decoder(_Unstructured).decode
_decode_contexts: Final = msgspec.json.Decoder(_Contexts).decode
_decode_entity: Final = msgspec.json.Decoder(_Entity, strict=False).decode
_KINDS: Final = ("product", "transaction", "refund", "cart", "promotion", "user")


def split(value: bytes) -> list[bytes]:
    """Events of a tracker's payload."""
    return [bytes(event) for event in _decode_payload(value).data]


def adapt_enriched(sent: _Enriched) -> Event:
    """The event of an enriched event's JSON."""
    event = Event(
        event_name=text(sent.event_name) or "",
        event_id=text(sent.event_id),
        event_timestamp=moment(sent.derived_tstamp or sent.collector_tstamp or None),
        user_id=text(sent.user_id),
        user_pseudo_id=text(sent.domain_userid or sent.network_userid),
        session_id=text(sent.domain_sessionid),
        platform=sent.platform,
    )
    others = {name: entities[0] for name in _KINDS[1:] if (entities := getattr(sent, name))}
    return _acted(event, sent.action, sent.product or (), others)


def adapt_tracked(sent: _Tracked) -> Event:
    """The event of the tracker protocol: a page view, or the e-commerce action."""
    event = Event(
        event_name="page_view" if sent.e == "pv" else "",
        event_id=text(sent.eid),
        event_timestamp=moment(sent.ttm or sent.dtm),
        user_id=text(sent.uid),
        user_pseudo_id=text(sent.duid or sent.nuid),
        session_id=text(sent.sid),
        platform=sent.p,
    )
    if sent.e not in ("pv", "ue"):
        raise Refused("unmapped", f"e is {sent.e[:20]!r}: neither a page view nor an e-commerce action")
    action = _action(sent.ue_pr, sent.ue_px) if sent.e == "ue" else None
    products: list[_Entity] = []
    others: dict[str, _Entity] = {}
    contexts = _json(sent.co, sent.cx)
    for context in _decode_contexts(contexts).data if contexts else ():
        kind = _kind(context.schema)
        if kind == "product":
            products.append(_decode_entity(context.data))
        elif kind:
            others.setdefault(kind, _decode_entity(context.data))
    return _acted(event, action, products, others)


def _acted(event: Event, action: _Action | None, products: Sequence[_Entity], others: Mapping[str, _Entity]) -> Event:
    """Name, items and money of the action; `others` are the first entities of each other kind."""
    if action is not None:
        kind = required(action.type, "the action's type")
        event.event_name = NAMES.get(kind, kind)
        event.item_list_id = text(action.name)
    elif event.event_name != "page_view":
        raise Refused("unmapped", f"event_name is {event.event_name[:40]!r}: no page view or e-commerce action")
    if products:
        event.items = items_of(products, "product.id")
    if not others:
        return event
    if paid := others.get("transaction") or others.get("refund") or others.get("cart"):
        event.transaction_id, event.currency = text(paid.transaction_id), paid.currency
        event.value = paid.revenue if paid.revenue is not None else paid.refund_amount
        event.value = event.value if event.value is not None else paid.total_value
    if promotion := others.get("promotion"):
        event.promotion_id = text(promotion.id)
    if (user := others.get("user")) and event.user_id is None:
        event.user_id = text(user.id)
    return event


def _json(plain: str | None, encoded: str | None) -> bytes:
    """A self-describing JSON, sent as text or in base64 for URLs."""
    if plain is not None:
        return plain.encode()
    if encoded is None:
        return b""
    try:
        padded = encoded.replace("-", "+").replace("_", "/") + "=" * (-len(encoded) % 4)
        return msgspec.convert(padded, bytes)  # half the time of binascii
    except msgspec.ValidationError as error:
        raise Refused("schema", f"ue_px or cx: {error}") from None


def _action(plain: str | None, encoded: str | None) -> _Action:
    """The e-commerce action inside a self-describing event."""
    short = len(plain or encoded or "") <= _SHORT
    return _known_action(plain, encoded) if short else _read_action(plain, encoded)


def _read_action(plain: str | None, encoded: str | None) -> _Action:
    value = _json(plain, encoded)
    if not value:
        raise Refused("schema", "ue_pr or ue_px is missing")
    event = _decode_unstructured(value).data
    if not event.schema.startswith(_ACTION):
        raise Refused("unmapped", f"schema {event.schema[:80]!r} is not the e-commerce action")
    return event.data


_known_action: Final = functools.lru_cache(1024)(_read_action)  # all views of a product say the same


@functools.lru_cache(1024)
def _kind(schema: str) -> str:
    """Which of the entities a schema describes; empty if none."""
    vendor, _, rest = schema.removeprefix("iglu:").partition("/")
    name = rest.partition("/")[0]
    return name if vendor == _VENDOR and name in _KINDS else ""

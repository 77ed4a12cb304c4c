"""Rows of GA4's BigQuery export as JSON, one event each; 64-bit numbers may be text, as BigQuery exports them.

Source: https://support.google.com/analytics/answer/7029846
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from stream.adapters.common import Ident, Refused, Stamp, Word, moment, required, text
from stream.adapters.ga4 import LooseItem, ours
from stream.adapters.marks import Exported
from stream.events import MAX_AMOUNT, Amount, Consent, Event, TrafficSource

_CONSENTS: Final[dict[str | None, Consent]] = {
    "Yes": Consent(analytics_storage="granted"),
    "No": Consent(analytics_storage="denied"),
}


class _Value(msgspec.Struct, gc=False):
    string_value: str | None = None
    int_value: int | None = None
    float_value: float | None = None
    double_value: float | None = None


class _Param(msgspec.Struct, gc=False):
    key: str
    value: _Value


class _Ecommerce(msgspec.Struct, gc=False):
    transaction_id: Word = None
    purchase_revenue: Amount | None = None


class _Privacy(msgspec.Struct, gc=False):
    analytics_storage: str | None = None


class _Row(Exported, kw_only=True):
    event_name: Ident
    event_timestamp: Stamp = None
    event_params: list[_Param] | UnsetType = UNSET
    user_id: Ident = None
    user_pseudo_id: Ident = None
    items: list[LooseItem] | None = None
    ecommerce: _Ecommerce | None = None
    platform: str | None = None
    traffic_source: TrafficSource | None = None
    privacy_info: _Privacy | None = None


decode: Final = msgspec.json.Decoder(_Row, strict=False).decode
_PARAMETERS: Final = {
    "ga_session_id": "session_id",
    **{name: name for name in ("value", "currency", "transaction_id", "search_term", "promotion_id", "item_list_id")},
}


def adapt(row: _Row) -> Event:
    """The event of a row."""
    event = Event(
        event_name=required(row.event_name, "the event's name"),
        event_timestamp=moment(row.event_timestamp),
        user_id=text(row.user_id),
        user_pseudo_id=text(row.user_pseudo_id),
        items=ours(row.items),
        platform=row.platform,
        traffic_source=row.traffic_source,
    )
    for param in row.event_params or ():
        name = _PARAMETERS.get(param.key)
        if name is not None and (said := _said(param.value)) is not None:
            setattr(event, name, _amount(said) if name == "value" else str(said) or None)
    if row.ecommerce is not None:
        event.transaction_id = event.transaction_id or text(row.ecommerce.transaction_id)
        if event.value is None:
            event.value = row.ecommerce.purchase_revenue
    if row.privacy_info is not None:
        event.consent = _CONSENTS.get(row.privacy_info.analytics_storage)
    return event


def _said(value: _Value) -> str | float | None:
    """What a parameter says; GA4 makes a number of every text that looks like one, also of what was searched for."""
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return value.int_value
    return value.double_value if value.double_value is not None else value.float_value


def _amount(said: str | float) -> float:
    try:
        amount = float(said)
    except ValueError:
        amount = math.nan
    if not -MAX_AMOUNT <= amount <= MAX_AMOUNT:
        raise Refused("schema", f"value is {str(said)[:40]!r}, no number or too large")
    return amount

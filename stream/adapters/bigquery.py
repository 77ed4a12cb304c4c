"""Rows of GA4's BigQuery export as JSON, one event each; 64-bit numbers may be text, as BigQuery exports them.

Source: https://support.google.com/analytics/answer/7029846
"""

from __future__ import annotations

import math
from typing import Final, Literal

import msgspec

from stream.adapters.common import Ident, Refused, Stamp, Word, moment, text
from stream.adapters.ga4 import LooseItem, Parameters, event_of
from stream.events import MAX_AMOUNT, Amount, Consent, Event, TrafficSource

_GRANTS: Final[dict[str | None, Literal["granted", "denied"]]] = {"Yes": "granted", "No": "denied"}


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


class _Row(msgspec.Struct, gc=False):
    event_name: Ident = None
    event_timestamp: Stamp = None
    event_params: list[_Param] = []
    user_id: Ident = None
    user_pseudo_id: Ident = None
    items: list[LooseItem] | None = None
    ecommerce: _Ecommerce | None = None
    platform: str | None = None
    traffic_source: TrafficSource | None = None
    privacy_info: _Privacy | None = None


_decode: Final = msgspec.json.Decoder(_Row, strict=False).decode
_PARAMETERS: Final = {
    "ga_session_id": "session_id",
    **{name: name for name in ("value", "currency", "transaction_id", "search_term", "promotion_id", "item_list_id")},
}


def adapt(value: bytes) -> Event:
    """The event of a row."""
    row = _decode(value)
    parameters = _parameters(row.event_params)
    parameters.items = row.items
    if row.ecommerce is not None:
        parameters.transaction_id = text(parameters.transaction_id) or row.ecommerce.transaction_id
        if parameters.value is None:
            parameters.value = row.ecommerce.purchase_revenue
    event = event_of(row.event_name, parameters, row.user_id, row.user_pseudo_id, moment(row.event_timestamp))
    event.platform, event.traffic_source = row.platform, row.traffic_source
    if row.privacy_info is not None:
        event.consent = Consent(analytics_storage=_GRANTS.get(row.privacy_info.analytics_storage))
    return event


def _parameters(sent: list[_Param]) -> Parameters:
    """Those that we know; GA4 makes a number of every text that looks like one, also of what was searched for."""
    found = Parameters()
    for param in sent:
        name = _PARAMETERS.get(param.key)
        if name is None or (said := _said(param.value)) is None:
            continue
        if name == "value":
            found.value = _amount(said)
        else:
            setattr(found, name, str(said))
    return found


def _said(value: _Value) -> str | float | None:
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
    if not abs(amount) <= MAX_AMOUNT:
        raise Refused("schema", f"value is {str(said)[:40]!r}, no number or too large")
    return amount

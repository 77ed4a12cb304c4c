"""Rows of GA4's BigQuery export as JSON, one event each; 64-bit numbers may be text, as BigQuery exports them.

Source: https://support.google.com/analytics/answer/7029846
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from stream.adapters.common import Ident, Stamp, Word, moment, text
from stream.adapters.ga4 import LooseItem, Parameters, event_of
from stream.events import Amount, Consent, Event, TrafficSource

_GRANTS: Final[dict[str | None, Literal["granted", "denied"]]] = {"Yes": "granted", "No": "denied"}


class _Value(msgspec.Struct):
    string_value: str | None = None
    int_value: int | None = None
    float_value: float | None = None
    double_value: float | None = None


class _Param(msgspec.Struct):
    key: str
    value: _Value


class _Ecommerce(msgspec.Struct):
    transaction_id: Word = None
    purchase_revenue: Amount | None = None


class _Privacy(msgspec.Struct):
    analytics_storage: str | None = None


class _Row(msgspec.Struct):
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
    """Those that we know."""
    found: dict[str, str | int | float] = {}
    for param in sent:
        if param.key in _PARAMETERS:
            value = param.value
            for known in (value.string_value, value.int_value, value.double_value, value.float_value):
                if known is not None:
                    found[_PARAMETERS[param.key]] = known
                    break
    return msgspec.convert(found, Parameters, strict=False)

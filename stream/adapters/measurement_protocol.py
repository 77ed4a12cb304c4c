"""GA4 Measurement Protocol: a request of one client with up to 25 events.

Source: https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from stream.adapters.common import Ident, Refused, Stamp, moment
from stream.adapters.ga4 import Parameters, event_of
from stream.adapters.marks import Mark, Marks
from stream.events import Consent, Event

MOST_EVENTS: Final = 25  # the protocol's own limit; what the events share is repeated for each of them

_Grant = Literal["GRANTED", "DENIED", "granted", "denied"]


class _Consent(msgspec.Struct, gc=False, omit_defaults=True):
    ad_personalization: _Grant | None = None
    analytics_storage: _Grant | None = None


class _Shared(msgspec.Struct, gc=False, omit_defaults=True):
    client_id: Ident = None
    app_instance_id: Ident = None
    user_id: Ident = None
    timestamp_micros: Stamp = None
    consent: _Consent | None = None


class _Request(_Shared):
    events: list[msgspec.Raw] = []


class _Event(msgspec.Struct, gc=False):
    event_name: Mark = UNSET
    name: Ident = None
    params: Parameters = msgspec.field(default_factory=Parameters)
    timestamp_micros: Stamp = None


class _Single(Marks):
    client_id: Ident | UnsetType = UNSET
    app_instance_id: Ident | UnsetType = UNSET
    user_id: Ident = None
    timestamp_micros: Stamp = None
    consent: _Consent | None = None
    events: tuple[_Event] | UnsetType | None = UNSET


_decode_request: Final = msgspec.json.Decoder(_Request, strict=False).decode
decode: Final = msgspec.json.Decoder(_Single, strict=False).decode
_encode: Final = msgspec.json.Encoder().encode


def split(value: bytes) -> list[bytes]:
    """Requests of one event each, every one with what the request says for all: client, customer, time and consent."""
    request = _decode_request(value)
    if len(request.events) > MOST_EVENTS:
        raise Refused("schema", f"events: a request has at most {MOST_EVENTS}, not {len(request.events)}")
    events, request.events = request.events, []
    shared = _encode(request)[1:-1]
    return [b'{%s%s"events":[%s]}' % (shared, b"," if shared else b"", bytes(event)) for event in events]


def adapt(request: _Single) -> Event:
    """The event of a request that has one."""
    if not request.events:
        raise Refused("schema", "events is missing")
    (sent,) = request.events
    stamp = moment(sent.timestamp_micros or request.timestamp_micros)
    cookie = request.client_id or request.app_instance_id or None
    event = event_of(sent.name, sent.params, request.user_id, cookie, stamp)
    if request.consent is not None:
        event.consent = Consent(
            analytics_storage=_grant(request.consent.analytics_storage),
            ad_personalization=_grant(request.consent.ad_personalization),
        )
    return event


def _grant(word: _Grant | None) -> Literal["granted", "denied"] | None:
    if word is None:
        return None
    return "granted" if word in ("GRANTED", "granted") else "denied"

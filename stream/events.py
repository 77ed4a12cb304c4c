"""The event schema: what a shop publishes, as types.

Names follow GA4's e-commerce events (flat, snake_case) plus Snowplow's ``event_id``. Unknown event names and unknown
fields are accepted; wrong types, missing or overlong ids and absurd times are not (see `stream.decoding`).
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Final, Literal

import msgspec

MAX_ID_BYTES: Final = 256
MAX_RECORD_BYTES: Final = 1_048_576
# What one record teaches must fit one record of topic `covisits` (8 MiB), as that is split between records only: 300
# bytes an item, its pairs included, and 5 kB of older items' ids an event.
MAX_ITEMS: Final = 200  # of an event; GA4's limit
MAX_ELEMENTS: Final = 500  # of a batch of events in one record
MAX_RECORD_ITEMS: Final = 10_000  # of all events of a record together; what follows is refused

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
# Far above any price, far below float32's end: a sum of such amounts stays finite, whatever a shop sends.
MAX_AMOUNT: Final = 1e12
Amount = Annotated[float, msgspec.Meta(ge=-MAX_AMOUNT, le=MAX_AMOUNT)]
Count = Annotated[
    float, msgspec.Meta(ge=0, le=MAX_AMOUNT)
]  # of an item: what is returned is a refund, not less than nothing
Grant = Literal["granted", "denied"]

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND: Final = dt.timedelta(microseconds=1)

KIND_WEIGHTS: Final[dict[str, float]] = {
    # by rising strength: a repeat of an item counts only if it is stronger than the touch before
    "": 0.0,  # unknown names: accepted, not learned
    "view_item_list": 0.0,
    "search": 0.0,
    "login": 0.0,
    "sign_up": 0.0,
    "view_promotion": 0.0,
    "email_open": 0.0,
    "support_request": 0.0,
    "refund": 0.0,
    "remove_from_cart": 0.0,
    "begin_checkout": 0.0,
    "view_item": 1.0,
    "select_item": 1.0,
    "select_promotion": 1.0,
    "email_click": 1.0,
    "survey_response": 1.0,
    "rate": 1.0,
    "comment": 1.5,
    "share": 1.5,
    "like": 2.0,
    "add_to_wishlist": 2.0,
    "add_to_cart": 2.0,
    "purchase": 3.0,
}
KINDS: Final[dict[str, int]] = {name: code for code, name in enumerate(KIND_WEIGHTS)}


class Item(msgspec.Struct, gc=False, omit_defaults=True):
    """One product of an event's ``items`` list."""

    item_id: Id
    item_name: str | None = None
    item_category: str | None = None
    price: Count | None = None
    quantity: Count | None = None
    index: int | None = None
    item_list_id: str | None = None
    promotion_id: str | None = None
    coupon: str | None = None
    discount: float | None = None


class Consent(msgspec.Struct, gc=False, omit_defaults=True):
    """What the visitor agreed to: learn / personalise / offers only if granted."""

    analytics_storage: Grant | None = None
    personalization_storage: Grant | None = None
    ad_personalization: Grant | None = None


class TrafficSource(msgspec.Struct, gc=False, omit_defaults=True):
    """Channel and campaign that brought the visitor."""

    source: str | None = None
    medium: str | None = None
    name: str | None = None


class Event(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One thing a visitor did. JSON on the wire; see the README's table for each field."""

    event_name: Id
    event_id: Id | None = None
    event_timestamp: int | float | str | None = None
    user_id: Id | None = None
    user_pseudo_id: Id | None = None
    session_id: str | int | None = None
    items: Annotated[list[Item], msgspec.Meta(max_length=MAX_ITEMS)] | None = None
    item_id: Id | None = None
    value: Amount | None = None
    currency: str | None = None
    transaction_id: str | None = None
    search_term: str | None = None
    promotion_id: str | None = None
    item_list_id: str | None = None
    platform: str | None = None
    traffic_source: TrafficSource | None = None
    consent: Consent | None = None
    user_properties: dict[str, Any] | None = None
    event_params: dict[str, Any] | None = None

    @property
    def user(self) -> str | None:
        """Canonical user: the customer id, else the cookie."""
        return self.user_id or self.user_pseudo_id


class RankAll(msgspec.Struct, kw_only=True, tag_field="control", tag="rank_all"):
    """Control record of topic ``events``: rank every user of the partition again, at its highest event time."""

    request: str = ""


class RankAgain(msgspec.Struct, kw_only=True, tag_field="control", tag="rank"):
    """Control record of topic ``events``: write the lists of some users again, though nothing changed.

    A worker asks for it when older lists of its own may have reached Redis after its successor's.
    """

    users: list[str]


class Forget(msgspec.Struct, kw_only=True, tag_field="control", tag="forget"):
    """Request of topic ``privacy``, and control record of topic ``events``: forget a user, up to now.

    `request` names the request in its answer. `asked_ms` is when it was asked; absent: at the record's time.
    """

    user: Id
    request: str = ""
    asked_ms: int | None = None


class Export(msgspec.Struct, kw_only=True, tag_field="control", tag="export"):
    """Request of topic ``privacy``, and control record of topic ``events``: tell what is kept of a user."""

    user: Id
    request: str = ""
    asked_ms: int | None = None


Second = Annotated[int, msgspec.Meta(ge=946_684_800, lt=4_102_444_800)]  # since 1970
Place = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]  # see `stream.stages.linking`
MAX_MOVES: Final = 26  # of a record: of histories of 127, taken back and learned again, that is MAX_RECORD_ITEMS


class PastTouch(msgspec.Struct, array_like=True, gc=False):
    """One touch of a history that moves, and whether it opened a session."""

    item_id: Id
    event_name: str
    second: Second
    starts: bool


Person = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]


class Link(msgspec.Struct, array_like=True, gc=False):
    """What `user`, a cookie, has touched up to a second belongs to the customer `to`; `place` tells a repeated one."""

    user: Id
    to: Id
    second: Second
    place: Place


class Past(msgspec.Struct, array_like=True):
    """What a cookie had touched, oldest first, which is the customer `user`'s; `place` tells a repeated one."""

    user: Id
    place: Place
    touches: Annotated[list[PastTouch], msgspec.Meta(max_length=MAX_ITEMS)]


class Back(msgspec.Struct, array_like=True):
    """What a cookie had touched, which is not a customer's after all; `place` tells a repeated one.

    `person` is the hash of the customer's id.
    """

    person: Person
    place: Place
    touches: Annotated[list[PastTouch], msgspec.Meta(max_length=MAX_ITEMS)]


class Linked(msgspec.Struct, kw_only=True, tag_field="control", tag="link"):
    """Control record of topic ``events``: cookies of the partition that turned out to be customers.

    `source` is the partition that says so; its places rise, from record to record, too.
    """

    source: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    moving: Annotated[list[Link], msgspec.Meta(max_length=MAX_MOVES)]


class Joined(msgspec.Struct, kw_only=True, tag_field="control", tag="joined"):
    """Control record of topic ``events``, the answer to a `Linked`: histories that belong to customers here.

    `source` is the partition that had them; its places rise, from record to record, too.
    """

    source: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    moving: Annotated[list[Past], msgspec.Meta(max_length=MAX_MOVES)]


class Returned(msgspec.Struct, kw_only=True, tag_field="control", tag="returned"):
    """Control record of topic ``events``: somebody else had logged in before, whose login was told later.

    `source` is the partition that had the histories; its places rise, from record to record, too.
    """

    source: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    moving: Annotated[list[Back], msgspec.Meta(max_length=MAX_MOVES)]


class Disowned(msgspec.Struct, kw_only=True, tag_field="control", tag="disowned"):
    """Control record of topic ``events``: a customer was forgotten; what he took from cookies here goes, too.

    `person` is the hash of the customer's id.
    """

    person: Person


Request = Forget | Export
Move = Linked | Joined | Returned
Control = RankAll | RankAgain | Request | Move | Disowned


def timestamp_us(value: float | str) -> int:
    """Event time in microseconds since 1970 (UTC), from what shops send.

    Parameters
    ----------
    value
        Microseconds, milliseconds or seconds since 1970, told apart by magnitude (below 1e11: seconds, below 1e14:
        milliseconds), or ISO-8601 text (without an offset: UTC).

    Returns
    -------
    int
        Microseconds since 1970.

    Raises
    ------
    ValueError
        If the text is not ISO-8601.

    Examples
    --------
    >>> timestamp_us(1_700_000_000), timestamp_us("2023-11-14T22:13:20Z")
    (1700000000000000, 1700000000000000)
    """
    if isinstance(value, str):
        moment = dt.datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=dt.UTC)
        return (moment - _EPOCH) // _MICROSECOND
    if value < 1e11:
        return round(value * 1_000_000)
    if value < 1e14:
        return round(value * 1_000)
    return int(value)

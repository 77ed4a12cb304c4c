"""Judges an event's ids and time and appends it to a batch's columns."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final

from models.decay import YEAR_2000_S
from models.features import channel_of
from models.profiles import DENIED, GRANTED
from stream.adapters import Refused
from stream.batch import Batch, Record
from stream.events import KINDS, Event, Item, timestamp_us
from stream.identity import id_fault

YEAR_2000_US: Final = YEAR_2000_S * 1_000_000
YEAR_2100_US: Final = 4_102_444_800_000_000  # models keep seconds since 2000 in 32 bits, until 2136
HOUR_US: Final = 3_600_000_000

Take = Callable[[Event, Record, int, bytes], None]
_channel_code: Final = functools.lru_cache(1024)(lambda medium: channel_of(medium) + 1)  # 0 = not said


def taker(batch: Batch) -> Take:
    """What appends a valid event to a batch's columns; every list's `append` is looked up once per batch."""
    offset, index_, user_, event_id_ = batch.offset.append, batch.index.append, batch.user.append, batch.event_id.append
    ts_, recorded_, kind, value = batch.ts.append, batch.recorded.append, batch.kind.append, batch.value.append
    channel, consent, session_, raw_ = (
        batch.channel.append,
        batch.consent.append,
        batch.session.append,
        batch.raw.append,
    )
    touch_event, touch_item = batch.touch_event.append, batch.touch_item.append
    touch_category, touch_price = batch.touch_category.append, batch.touch_price.append
    positions, cookies, anonymous = batch.offset, batch.cookies, batch.anonymous.append

    def take(event: Event, record: Record, index: int, raw: bytes) -> None:
        """Append one event, or raise `Refused` before anything was appended."""
        user = event.user_id or event.user_pseudo_id
        if user is None:
            raise Refused("missing_user", "neither user_id nor user_pseudo_id")
        event_id = event.event_id or ""
        _check_ids(event, user, event_id)
        recorded = record.timestamp * 1000
        if recorded > YEAR_2100_US:  # a call of `min` costs more
            recorded = YEAR_2100_US
        ts = _time(event, recorded)

        position = len(positions)
        offset(record.offset)
        index_(index)
        user_(user)
        event_id_(event_id)
        ts_(ts)
        recorded_(recorded)
        kind(KINDS.get(event.event_name, 0))
        value(event.value or 0.0)
        source = event.traffic_source
        channel(0 if source is None else _channel_code(source.medium))
        consent(0 if event.consent is None else _consent(event))
        session = event.session_id
        session_(session if type(session) is str else "" if session is None else str(session))
        raw_(raw)
        if not event.user_id:
            anonymous(position)
        elif event.user_pseudo_id and event.user_pseudo_id != user:
            cookies[position] = event.user_pseudo_id
        if not event_id:
            batch.without_id += 1
        for item in event.items or _short_form(event):
            touch_event(position)
            touch_item(item.item_id)
            touch_category(item.item_category or "")
            touch_price((item.price or 0.0) * (item.quantity or 1.0))

    return take


def _short_form(event: Event) -> tuple[Item, ...]:
    """The one item of an event without a list of items."""
    return () if event.item_id is None else (Item(item_id=event.item_id, price=event.value),)


def _time(event: Event, recorded: int) -> int:
    stamp = event.event_timestamp
    if stamp is None:
        ts = recorded
    elif type(stamp) is int and stamp >= YEAR_2000_US:
        ts = stamp
    else:
        try:
            ts = timestamp_us(stamp)
        except (ValueError, OverflowError) as error:
            raise Refused("time_absurd", f"event_timestamp: {error}") from None
    if not YEAR_2000_US <= ts < YEAR_2100_US or ts > recorded + HOUR_US:
        raise Refused(
            "time_absurd",
            f"event_timestamp {stamp or recorded!r} is before 2000, after 2100 or over 1 h ahead of the record",
        )
    return ts


def _check_ids(event: Event, user: str, event_id: str) -> None:
    """Refuse ids with control characters or too many bytes; plain ASCII ones cost two C calls each."""
    if not (user.isascii() and user.isprintable() and event_id.isascii() and event_id.isprintable()):
        check_id("user_id", user)
        if event_id:
            check_id("event_id", event_id)
    if event.items:
        for item in event.items:
            if not (item.item_id.isascii() and item.item_id.isprintable()):
                check_id("items[].item_id", item.item_id)
    elif event.item_id and not (event.item_id.isascii() and event.item_id.isprintable()):
        check_id("item_id", event.item_id)


def check_id(name: str, value: str) -> None:
    """Refuse one id with control characters or too many bytes."""
    if fault := id_fault(value):
        raise Refused("id_invalid", f"{name} {fault}")


def _consent(event: Event) -> int:
    consent = event.consent
    if consent is None:
        return 0
    packed = 0
    grants = (consent.analytics_storage, consent.personalization_storage, consent.ad_personalization)
    for place, grant in enumerate(grants):
        if grant is not None:
            packed |= (GRANTED if grant == "granted" else DENIED) << (2 * place)
    return packed

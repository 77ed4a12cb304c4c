from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.events import KIND_WEIGHTS, KINDS, Event, timestamp_us

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SINCE = st.integers(946_684_800_000_000, 4_102_444_800_000_000)  # 2000 to 2100


@given(SINCE, st.integers(-14 * 60, 14 * 60))
def test_iso_times_are_exact_in_any_zone(us: int, shift: int) -> None:
    moment = EPOCH + dt.timedelta(microseconds=us)
    zone = dt.timezone(dt.timedelta(minutes=shift))
    assert timestamp_us(moment.astimezone(zone).isoformat()) == us
    assert timestamp_us(moment.replace(tzinfo=None).isoformat()) == us  # without an offset: UTC


@given(st.integers(946_684_800, 4_102_444_800))
def test_magnitude_tells_seconds_milliseconds_and_microseconds_apart(second: int) -> None:
    us = second * 1_000_000
    assert timestamp_us(second) == timestamp_us(second * 1_000) == timestamp_us(us) == us
    assert timestamp_us(float(second)) == us
    assert timestamp_us(second + 0.25) == us + 250_000
    assert timestamp_us(second * 1_000 + 0.5) == us + 500


@given(SINCE)
def test_fractions_of_seconds_lose_less_than_a_microsecond(us: int) -> None:
    assert abs(timestamp_us(us / 1_000_000) - us) <= 1
    assert abs(timestamp_us(us / 1_000) - us) <= 1


@pytest.mark.parametrize("text", ["", "yesterday", "2025-13-01", "1750000000000", "2025-06-15T25:00"])
def test_text_that_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        timestamp_us(text)


def test_customer_goes_before_cookie() -> None:
    assert Event(event_name="login", user_id="u", user_pseudo_id="c").user == "u"
    assert Event(event_name="login", user_pseudo_id="c").user == "c"
    assert Event(event_name="login").user is None


def test_kinds_rise_in_strength_and_unknown_ones_teach_nothing() -> None:
    weights = list(KIND_WEIGHTS.values())
    assert weights == sorted(weights)  # a repeat counts only if its code is higher
    assert KINDS[""] == 0
    assert KIND_WEIGHTS[""] == 0
    assert len(KINDS) < 128  # the histories keep a flag in the eighth bit

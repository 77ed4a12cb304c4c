"""Rates hold over any stretch of time, names are bounded, and nobody becomes somebody else by writing a header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import ConfigurationError, UnavailableError
from stream.flights import Room
from stream.settings import Settings
from stream.web.access import Access
from stream.web.limits import Buckets, address_of, retry_after
from stream.web.refusing import TurnedAway

requests = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), max_size=60)  # (seconds later, events)


@given(requests, st.sampled_from([0.5, 3.0, 40.0]))
def test_a_rate_holds_over_every_stretch_but_for_one_request(asked: list[tuple[float, int]], rate: float) -> None:
    buckets, now = Buckets(rate, burst_s=2), 0.0
    admitted: list[tuple[float, int]] = []
    for pause, events in asked:
        now += pause
        wait_s = buckets.wait_s("a", now)
        if wait_s == 0:
            buckets.charge("a", events, now)
            admitted.append((now, events))
        else:
            assert buckets.wait_s("a", now + wait_s + 1e-6) == 0  # what was told is true
    burst = max(2 * rate, 1)
    for start in range(len(admitted)):
        for end in range(start, len(admitted)):
            taken = sum(events for _, events in admitted[start:end])  # the last may overdraw
            assert taken <= burst + rate * (admitted[end][0] - admitted[start][0]) + 1e-6


def test_names_do_not_share_and_are_bounded() -> None:
    buckets = Buckets(1, most=3)
    for number in range(10):
        buckets.charge(f"n{number}", 100, now=0.0)
    assert len(buckets) == 3
    assert [buckets.wait_s(name, 0.0) > 0 for name in ("n9", "n8", "n7", "n6")] == [True, True, True, False]


def test_no_rate_is_no_limit_and_keeps_no_names() -> None:
    buckets = Buckets(0)
    buckets.charge("a", 10**9, now=0.0)
    assert (buckets.wait_s("a", 0.0), len(buckets)) == (0, 0)


def test_retry_after_is_whole_and_never_zero() -> None:
    assert [retry_after(seconds) for seconds in (0.01, 1.0, 1.2)] == ["1", "1", "2"]


@given(st.text(max_size=60), st.integers(0, 3))
def test_any_header_names_an_address(forwarded: str, proxies: int) -> None:
    assert address_of("10.0.0.1", forwarded, proxies)
    assert address_of("10.0.0.1", forwarded, 0) == "10.0.0.1"


@given(st.text(alphabet="0123456789., ", max_size=30))
def test_what_a_client_writes_before_its_proxy_changes_nothing(forged: str) -> None:
    assert address_of("10.0.0.1", f"{forged}, 9.9.9.9", 1) == "9.9.9.9"


@given(st.lists(st.integers(0, 40)))
def test_room_is_never_exceeded(sizes: list[int]) -> None:
    room, held = Room(100), 0
    for size in sizes:
        if held + size <= 100:
            room.take(size)
            held += size
        else:
            with pytest.raises(UnavailableError):
                room.take(size)
    assert room.held == held


UNREADABLE = ["web", "web:short", "web:", ":a-long-enough-key", "a b:a-long-enough-key", "x:key with space 00"]


@pytest.mark.parametrize("said", UNREADABLE)
def test_keys_that_cannot_be_read_are_not_repeated_in_the_message(said: str) -> None:
    with pytest.raises(ConfigurationError, match="entry 1") as error:
        Access.of(Settings(gateway_keys=said), "127.0.0.1")
    assert said.partition(":")[2] not in str(error.value) or not said.partition(":")[2]


def test_a_source_may_have_two_keys_while_one_is_replaced() -> None:
    access = Access.of(Settings(gateway_keys="web:first-key-000001,web:second-key-00001"), "0.0.0.0")
    assert [access.source("", key) for key in ("first-key-000001", "second-key-00001")] == ["web", "web"]
    with pytest.raises(TurnedAway, match="not known"):
        access.source("", "first-key-00000")


def test_origins_are_exact() -> None:
    access = Access.of(Settings(gateway_origins="https://shop.example"), "127.0.0.1")
    assert access.origin("https://shop.example")
    for origin in ("http://shop.example", "https://shop.example.evil", "https://shop.example:8443", "null"):
        with pytest.raises(TurnedAway, match="origin"):
            access.origin(origin)

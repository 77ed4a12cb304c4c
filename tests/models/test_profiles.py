from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.hashing import hash_ids, mix64
from models.profiles import (
    ADD_TO_CART,
    CATEGORIES,
    CONSENT_MASK,
    FRESH_SESSION,
    PURCHASE,
    REMOVE_FROM_CART,
    EventColumns,
    ProfileArrays,
    Profiles,
    Sample,
)
from tests.plain import bounded, equal_arrays

USERS = 3
HASHES = hash_ids([f"user-{n}" for n in range(USERS)])
DAY = 86_400


class Event(NamedTuple):
    user: int
    ts: int
    session: int = 0
    cart: int = 0
    value: float = 0.0
    channel: int = 0
    touches: tuple[tuple[int, float], ...] = ()  # category, weight


# gaps around the session rule and around half-lives; some events come late
gaps = st.sampled_from([0, 5, 600, 1_800, 1_801, 7 * DAY, 7 * DAY + 1, 14 * DAY, -300])
touches = st.tuples(st.integers(-1, 9), st.sampled_from([0.0, 1.0, 1.5, 3.0]))
drafts = st.builds(
    Event,
    st.integers(0, USERS - 1),
    gaps,
    st.sampled_from([0, 0, 11, 12]),
    st.sampled_from([0, PURCHASE, ADD_TO_CART, REMOVE_FROM_CART]),
    st.sampled_from([0.0, 9.99, 100.0, -50.0]),
    st.integers(0, 3),
    st.lists(touches, max_size=4).map(tuple),
)


def at_times(made: list[Event]) -> list[Event]:
    now, events = 20 * 365 * DAY, []
    for event in made:
        now = max(now, now + event.ts)
        events.append(event._replace(ts=now + min(event.ts, 0)))
    return events


streams = st.lists(drafts, max_size=40).map(at_times)


def columns(stream: Sequence[Event]) -> EventColumns:
    flat = [touch for event in stream for touch in event.touches]
    return EventColumns(
        np.array([e.user for e in stream], dtype=np.int32),
        np.array([e.ts for e in stream], dtype=np.uint32),
        np.array([e.session for e in stream], dtype=np.uint32),
        np.array([e.cart for e in stream], dtype=np.uint8),
        np.array([e.value for e in stream], dtype=np.float32),
        np.array([e.channel for e in stream], dtype=np.uint8),
        np.cumsum([0, *(len(e.touches) for e in stream)], dtype=np.int32),
        np.array([category for category, _ in flat], dtype=np.int32),
        np.array([weight for _, weight in flat], dtype=np.float32),
    )


class PlainProfile:
    """One user's profile in plain numbers."""

    def __init__(self) -> None:
        self.last_ts = self.session = self.events = self.channel = 0
        self.fresh = False
        self.recency = self.frequency = self.spend = self.cart = self.hour_sin = self.hour_cos = 0.0
        self.affinity: list[list[float]] = []  # [category, weight], in cells

    def learn(self, event: Event) -> list[bool]:
        self._advance(event)
        self.frequency += 1
        self.channel = event.channel or self.channel
        event = event._replace(value=max(event.value, 0.0))
        if event.cart == PURCHASE:
            self.spend = min(self.spend + event.value, 1e12)
            self.cart = 0.0
        elif event.cart == ADD_TO_CART:
            self.cart += event.value
        elif event.cart == REMOVE_FROM_CART:
            self.cart = max(0.0, self.cart - event.value)
        starts = []
        for category, weight in event.touches:
            starts.append(self.fresh and weight > 0)
            self.fresh = self.fresh and not weight > 0
            if category >= 0 and weight > 0:
                self._prefer(category, weight)
        return starts

    def _advance(self, event: Event) -> None:
        gap = max(event.ts - self.last_ts, 0) if self.events else 0
        if event.session:
            fresh = event.session != self.session
            self.session = event.session
        else:
            fresh = gap > 1_800
        if fresh or not self.events:
            self.fresh = True
            self.recency = gap / 3_600
        if gap > 7 * DAY:
            self.cart = 0.0
        left = 0.5 ** (gap / (14 * DAY))
        self.frequency *= left
        self.spend *= left
        self.affinity = [[category, float(np.float32(weight * left))] for category, weight in self.affinity]
        self.events += 1
        angle = 2 * math.pi * (event.ts % DAY) / DAY
        self.hour_sin += (math.sin(angle) - self.hour_sin) / min(self.events, 64)
        self.hour_cos += (math.cos(angle) - self.hour_cos) / min(self.events, 64)
        self.last_ts = max(self.last_ts, event.ts)

    def _prefer(self, category: int, weight: float) -> None:
        for cell in self.affinity:
            if cell[0] == category:
                cell[1] = float(np.float32(cell[1] + weight))
                return
        if len(self.affinity) < CATEGORIES:
            self.affinity.append([category, weight])
            return
        self.affinity[min(range(CATEGORIES), key=lambda c: self.affinity[c][1])] = [category, weight]

    def numbers(self) -> list[float]:
        return [self.recency, self.frequency, self.spend, self.hour_sin, self.hour_cos, self.channel]

    def likes(self) -> dict[int, float]:
        return {int(category): weight for category, weight in self.affinity}


def likes(categories: NDArray[np.int32], weights: NDArray[np.float32]) -> dict[int, float]:
    return {int(c): float(w) for c, w in zip(categories, weights, strict=True) if w > 0}


def agrees(fast: ProfileArrays, user: int, plain: PlainProfile) -> bool:
    exact = [fast.last_ts[user], fast.session[user], fast.events[user], fast.channel[user]]
    assert exact == [plain.last_ts, plain.session, plain.events, plain.channel]
    assert bool(fast.flags[user] & FRESH_SESSION) == plain.fresh
    found = [fast.recency[user], fast.frequency[user], fast.spend[user], fast.hour_sin[user], fast.hour_cos[user]]
    assert found == pytest.approx(plain.numbers()[:5], rel=1e-4, abs=1e-5)
    assert fast.cart[user] == pytest.approx(plain.cart, rel=1e-4, abs=1e-3)
    assert likes(fast.category[user], fast.affinity[user]) == pytest.approx(plain.likes(), rel=1e-4)
    return True


def new() -> Profiles:
    profiles = Profiles()
    profiles.reserve(USERS)
    return profiles


@bounded
@given(streams)
def test_equal_the_plain_profiles_after_every_event(stream: list[Event]) -> None:
    fast, plain = new(), [PlainProfile() for _ in range(USERS)]
    for event in stream:
        starts, _ = fast.learn(columns([event]), HASHES, 0.0)
        assert starts.tolist() == plain[event.user].learn(event)
        assert agrees(fast.arrays, event.user, plain[event.user])


def samples(found: Sample, start: int = 0) -> list[tuple[object, ...]]:
    columns_ = [column.tolist() for column in found[1:]]
    return list(zip((found.event + start).tolist(), *columns_, strict=True))


@bounded
@given(streams, st.lists(st.integers(0, 40), max_size=6), st.sampled_from([0.0, 0.3, 1.0]))
def test_other_batches_change_neither_profiles_nor_starts_nor_samples(
    stream: list[Event], cuts: list[int], rate: float
) -> None:
    whole, split = new(), new()
    starts, sample = whole.learn(columns(stream), HASHES, rate)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    parts = [(start, *split.learn(columns(stream[start:end]), HASHES, rate)) for start, end in pairwise(bounds)]
    assert [flag for _, flags, _ in parts for flag in flags.tolist()] == starts.tolist()
    assert [row for start, _, found in parts for row in samples(found, start)] == samples(sample)
    assert equal_arrays(whole.snapshot(USERS), split.snapshot(USERS))


@bounded
@given(streams, st.sampled_from([0.2, 0.7]))
def test_samples_are_profiles_right_after_the_events_that_the_hash_chose(stream: list[Event], rate: float) -> None:
    plain, expected = [PlainProfile() for _ in range(USERS)], []
    for n, event in enumerate(stream):
        mine = plain[event.user]
        mine.learn(event)
        draw = int(mix64(np.uint64(int(HASHES[event.user]) ^ (mine.events * 0x9E3779B97F4A7C15 % 2**64))))
        if draw < rate * 2**64:
            expected.append((n, mine.numbers(), mine.likes()))
    _, found = new().learn(columns(stream), HASHES, rate)
    assert found.event.tolist() == [n for n, _, _ in expected]
    for row, (_, numbers, liked) in enumerate(expected):
        assert [column[row] for column in found[1:7]] == pytest.approx(numbers, rel=1e-4, abs=1e-5)
        assert likes(found.category[row], found.affinity[row]) == pytest.approx(liked, rel=1e-4)


@bounded
@given(streams, streams)
def test_profiles_do_not_depend_on_other_users(stream: list[Event], other: list[Event]) -> None:
    mixed = sorted(
        [e._replace(user=0) for e in stream] + [e._replace(user=1) for e in other], key=lambda e: (e.ts, e.user)
    )
    together, alone = new(), new()
    together.learn(columns(mixed), HASHES, 0.0)
    alone.learn(columns([e for e in mixed if e.user == 0]), HASHES, 0.0)
    left, right = together.snapshot(1), alone.snapshot(1)
    assert equal_arrays(left, right)


@bounded
@given(streams, streams)
def test_goes_on_from_a_snapshot_as_if_nothing_had_happened(before: list[Event], after: list[Event]) -> None:
    profiles = new()
    profiles.learn(columns(before), HASHES, 0.5)
    again = Profiles.restore(profiles.snapshot(USERS))
    (starts, sample), (starts_again, sample_again) = (p.learn(columns(after), HASHES, 0.5) for p in (profiles, again))
    assert starts.tolist() == starts_again.tolist()
    assert samples(sample) == samples(sample_again)
    assert equal_arrays(profiles.snapshot(USERS), again.snapshot(USERS))


@bounded
@given(streams, st.integers(0, int(CONSENT_MASK)))
def test_consent_flags_are_left_alone(stream: list[Event], flags: int) -> None:
    profiles = new()
    profiles.arrays.flags[:] = flags
    profiles.learn(columns(stream), HASHES, 0.0)
    assert (profiles.arrays.flags[:USERS] & 0x7F).tolist() == [flags] * USERS


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, 0), (1_800, 0), (3_601, 0)], [True, False, True]),  # half an hour of silence
        ([(0, 5), (9_000, 5), (9_001, 6)], [True, False, True]),  # ids, whatever the silence
        ([(0, 5), (60, 0), (120, 5)], [True, False, False]),  # one event without an id ends nothing
    ],
)
def test_sessions_begin_by_id_or_silence(events: list[tuple[int, int]], expected: list[bool]) -> None:
    stream = [Event(0, ts, session, touches=((1, 1.0),)) for ts, session in events]
    assert new().learn(columns(stream), HASHES, 0.0)[0].tolist() == expected


def test_a_session_starts_at_its_first_touch_that_teaches() -> None:
    stream = [Event(0, 0, touches=((1, 0.0), (2, 0.0))), Event(0, 9, touches=((1, 0.0), (2, 1.0), (3, 1.0)))]
    profiles = new()
    assert profiles.learn(columns(stream[:1]), HASHES, 0.0)[0].tolist() == [False, False]
    assert profiles.learn(columns(stream[1:]), HASHES, 0.0)[0].tolist() == [False, True, False]


@pytest.mark.parametrize("rate", [-1.0, 0.0, 0.25, 1.0, 2.0])
def test_the_rate_is_the_share_of_samples(rate: float) -> None:
    stream = [Event(n % USERS, n) for n in range(4_000)]
    _, sample = new().learn(columns(stream), HASHES, rate)
    assert len(sample.event) == pytest.approx(4_000 * min(max(rate, 0.0), 1.0), abs=100 if rate == 0.25 else 0)


def test_memory_is_86_bytes_per_user() -> None:
    profiles = Profiles()
    profiles.reserve(1_000)
    assert sum(column.nbytes for column in profiles.arrays) == 86 * 1_000

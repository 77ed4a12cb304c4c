from __future__ import annotations

import json

import hiredis
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.arena import end_of, start_of
from models.offer_ranking import Picked
from models.ranking import REASONS, Lists
from models.vocabulary import Vocabulary
from stream.framing import Names, ProfileColumns, set_lists, set_offers, set_profiles
from stream.keys import Keys, parse_list
from stream.rendering import Fragments
from stream.resp import WriteBatch

IDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
HOSTILE = [
    'a"b',
    "back\\slash",
    "line\nbreak",
    "</script>",
    "ü",
    "日本",
    "😀",
    "\u2028",
    "\x7f",
    "{}",
    "null",
    "x" * 256,
]
TTL_S = 259_200
KEYS = Keys()
MICROS = st.integers(1, 10**9) | st.sampled_from([1, 10, 999_999, 1_000_000, 1_000_001, 120_000_000, 2**53])


def fragments_of(ids: list[str], step: int = 8) -> Fragments:
    """Fragments by position, put a few at a time."""
    fragments = Fragments()
    for start in range(0, len(ids), step):
        some = ids[start : start + step]
        fragments.put(np.arange(start, start + len(some), dtype=np.int32), some)
    return fragments


def render(lists: Lists, ts_ms: NDArray[np.int64], model: str, fragments: Fragments) -> list[bytes]:
    """The values of the commands, for as many users."""
    users = Vocabulary()
    index = users.encode([f"u{n}" for n in range(len(ts_ms))])
    frames = set_lists(Names.of(KEYS.recs_form, users, index), lists, ts_ms, TTL_S, model.encode(), fragments)
    return [parsed(frame)[2] for frame in frames]


def parsed(frame: bytes) -> list[bytes]:
    """A command as a server reads it: exactly one."""
    reader = hiredis.Reader()
    reader.feed(frame)
    parts: list[bytes] = reader.gets()
    assert reader.gets() is False
    assert (parts[0], len(parts), parts[3]) == (b"SET", 5, b"EX")
    return parts


@st.composite
def ranked(draw: st.DrawFn) -> tuple[list[str], Lists, list[int]]:
    ids = draw(st.lists(IDS | st.sampled_from(HOSTILE), min_size=1, max_size=8, unique=True))
    k = draw(st.integers(1, 6))
    lists = Lists.empty(draw(st.integers(0, 4)), k)
    index = st.integers(0, len(ids) - 1)
    for u in range(len(lists.item)):
        for i in range(draw(st.integers(0, k))):
            lists.item[u, i] = draw(index)
            lists.micro[u, i] = draw(MICROS)
            lists.why[u, i] = draw(index | st.just(-1))
            lists.reason[u, i] = draw(st.integers(0, len(REASONS) - 1))
    return ids, lists, [draw(st.integers(0, 4_102_444_800_000)) for _ in range(len(lists.item))]


@settings(deadline=None)
@given(ranked(), st.integers(1, 3))
def test_values_are_what_json_would_say(made: tuple[list[str], Lists, list[int]], step: int) -> None:
    ids, lists, ts_ms = made
    fragments = fragments_of(ids, step)  # ids come in batches
    values = render(lists, np.array(ts_ms, dtype=np.int64), "blend", fragments)
    assert len(values) == len(ts_ms)
    for u, value in enumerate(values):
        size = int((lists.item[u] >= 0).sum())
        origins = [None if w < 0 else ids[w] for w in lists.why[u, :size]]
        why = [[origin, REASONS[r]] for origin, r in zip(origins, lists.reason[u, :size], strict=True)]
        expected = {
            "v": 1,
            "ts": ts_ms[u],
            "model": "blend",
            "exp": None,
            "items": [ids[i] for i in lists.item[u, :size]],
            "scores": [int(micro) / 1e6 for micro in lists.micro[u, :size]],
            "why": why,
        }
        assert json.loads(value) == expected
        parsed = parse_list(value)
        assert (parsed.ts, parsed.items, parsed.scores) == (ts_ms[u], expected["items"], expected["scores"])
        assert parsed.why == [tuple(reason) for reason in why]


def test_room_is_enough_for_the_longest_values() -> None:
    """Ids of 256 bytes that JSON writes as six times as many, as items and as reasons, with the widest numbers."""
    fragments = fragments_of(["\x01" * 256])
    longest = max(range(len(REASONS)), key=lambda reason: len(REASONS[reason]))
    lists = Lists(
        np.zeros((3, 20), np.int32),
        np.full((3, 20), 2**53, np.int64),
        np.zeros((3, 20), np.int32),
        np.full((3, 20), longest, np.uint8),
    )
    values = render(lists, np.full(3, 2**53, dtype=np.int64), "m" * 64, fragments)
    assert [parse_list(value).items for value in values] == [["\x01" * 256] * 20] * 3
    assert parse_list(values[2]).scores == [2**53 / 1e6] * 20


def test_many_ids_grow_the_fragments() -> None:
    ids = [f"item-{n}-{'é' * (n % 50)}" for n in range(2_000)]
    fragments = fragments_of(ids, 7)
    spans = fragments.spans.tolist()
    texts = [json.loads(fragments.blob[start_of(span) : end_of(span)].tobytes()) for span in spans[: len(ids)]]
    assert texts == ids


def test_a_removed_fragment_makes_room_for_another() -> None:
    fragments = fragments_of(["tent", "mat", "mug"])
    used = int(fragments.heads[0])
    fragments.remove(np.array([1, 0], dtype=np.int32))
    fragments.put(np.array([0, 1], dtype=np.int32), ["pan", "rug"])
    assert int(fragments.heads[0]) == used
    lists = Lists.empty(1, 3)
    lists.item[0], lists.micro[0] = [0, 1, 2], 10**6
    (value,) = render(lists, np.zeros(1, dtype=np.int64), "m", fragments)
    assert parse_list(value).items == ["pan", "rug", "mug"]


def test_nothing_to_render() -> None:
    assert render(Lists.empty(0, 20), np.zeros(0, dtype=np.int64), "covisit", Fragments()) == []


@settings(deadline=None)
@given(st.lists(IDS, min_size=1, max_size=6, unique=True), st.data())
def test_commands_name_the_key_and_lifetime_of_each_user(users: list[str], data: st.DataObject) -> None:
    """Keys as `Keys` spells them, sizes of one to many digits, every user with offers of his own."""
    ids, names = Vocabulary(), ["spring", 'a"b']
    index = ids.encode(users)
    items, offers = fragments_of(HOSTILE), fragments_of(names)
    until_ms = np.array([5, 2**52], dtype=np.int64)
    picked = Picked.empty(len(users))
    for row in range(len(users)):
        for place in range(data.draw(st.integers(0, 3))):
            picked.offer[row, place] = data.draw(st.integers(0, 1))
            picked.score[row, place] = data.draw(st.floats(0, 1e9))
            picked.why[row, place] = data.draw(st.integers(-1, len(HOSTILE) - 1))
    times = np.arange(len(users), dtype=np.int64) * 10**12
    ttls = np.array([data.draw(st.integers(1, 10**9)) for _ in users], dtype=np.int64)
    frames = set_offers(Names.of(KEYS.offers_form, ids, index), picked, times, ttls, until_ms, offers, items)
    for row, frame in enumerate(frames):
        _, key, value, _, ttl = parsed(frame)
        assert (key, int(ttl)) == (KEYS.offers(users[row]), ttls[row])
        found = json.loads(value)
        assert (found["v"], found["ts"], len(found["offers"])) == (1, times[row], (picked.offer[row] >= 0).sum())
        for place, offer in enumerate(found["offers"]):
            why = picked.why[row, place]
            assert offer["id"] == names[picked.offer[row, place]]
            assert offer["until"] == until_ms[picked.offer[row, place]]
            assert offer["why"] == (None if why < 0 else HOSTILE[why])
            assert abs(offer["score"] - picked.score[row, place]) <= 0.51e-6 + 1e-12 * picked.score[row, place]


def test_lists_of_items_have_keys_of_items() -> None:
    ids, fragments = Vocabulary(), fragments_of(HOSTILE)
    index = ids.encode(HOSTILE)
    lists = Lists.empty(len(HOSTILE), 2)
    lists.item[:, 0], lists.micro[:, 0] = index, 10**6
    times = np.zeros(len(HOSTILE), dtype=np.int64)
    frames = set_lists(Names.of(KEYS.similar_form, ids, index), lists, times, TTL_S, b"covisit", fragments)
    assert [parsed(frame)[1] for frame in frames] == [KEYS.similar(item) for item in HOSTILE]


@settings(deadline=None)
@given(st.lists(IDS | st.sampled_from(HOSTILE), min_size=1, max_size=6, unique=True), st.data())
def test_profiles_are_the_commands_of_a_plain_batch(users: list[str], data: st.DataObject) -> None:
    ids = Vocabulary()
    index = ids.encode(users)
    expected, profiles = WriteBatch(), []
    for user in users:
        segment, last_ms = data.draw(st.integers(-1, 2**15 - 1)), data.draw(st.integers(0, 2**42))
        events, consent = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(0, 255))
        spend = data.draw(st.floats(0, 2.0**40, width=32))
        fields = [(b"segment", b"%d" % segment), (b"last_ts", b"%d" % last_ms), (b"events", b"%d" % events)]
        fields += [(b"value", b"%.2f" % spend), (b"consent", b"%d" % consent)]
        expected.hset(KEYS.profile(user), dict(fields), TTL_S)
        profiles.append((segment, last_ms, events, spend, consent))
    types = (np.int16, np.int64, np.uint32, np.float32, np.uint8)
    columns = ProfileColumns(*(np.array(c, dtype=t) for c, t in zip(zip(*profiles, strict=True), types, strict=True)))
    batch = WriteBatch()
    batch.hset_all(set_profiles(Names.of(KEYS.profile_form, ids, index), columns, TTL_S))
    assert batch.frames == expected.frames
    assert (batch.counts, batch.expiries) == (expected.counts, expected.expiries)

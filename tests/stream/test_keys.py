"""Keys are injective, readable and share a slot per user; values are parsed strictly."""

from __future__ import annotations

import re
from contextlib import suppress
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from stream.errors import BadInputError, ConfigurationError
from stream.keys import Keys, Offer, Offers, Recommendations, parse_list, parse_offers, parse_profile, quote

IDS = st.one_of(st.text(min_size=1), st.text(alphabet="{}:%7BbDd3Aa5", min_size=1))
KEYS = Keys("rv")


@given(IDS)
def test_an_id_can_be_read_back_from_its_key(text: str) -> None:
    assert unquote(quote(text).decode(), errors="strict") == text


@given(IDS, IDS)
def test_two_ids_never_share_a_key(one: str, other: str) -> None:
    assert (quote(one) == quote(other)) == (one == other)


@given(IDS)
def test_only_the_four_special_characters_are_touched(text: str) -> None:
    assert quote(text).decode() == re.sub("[{}:%]", lambda match: f"%{ord(match[0]):02X}", text)


@given(IDS, st.lists(IDS, max_size=3))
def test_the_keys_of_a_user_share_a_slot(user: str, placements: list[str]) -> None:
    keys = KEYS.user_keys(user, placements)
    assert {key_slot(key) for key in keys} == {key_slot(b"{" + quote(user) + b"}")}


@given(IDS, IDS)
def test_every_kind_of_key_is_its_own(one: str, other: str) -> None:
    keys = [
        *KEYS.user_keys(one, {one, other}),
        *(KEYS.user_keys(other) if one != other else ()),
        *(build(one) for build in (KEYS.similar, KEYS.neighbours, KEYS.segment)),
        KEYS.trending(),
        KEYS.trending(category=one),
        KEYS.trending(segment=one),
        KEYS.meta,
    ]
    assert len(set(keys)) == len(keys)


def test_keys_are_those_of_the_contract() -> None:
    assert KEYS.user_keys("u1", ["cart"]) == (
        KEYS.recs("u1"),
        KEYS.offers("u1"),
        KEYS.profile("u1"),
        KEYS.privacy("u1"),
        KEYS.recs("u1", "cart"),
    )
    built = [
        *KEYS.user_keys("u1", ["cart"]),
        KEYS.similar("i:1"),
        KEYS.neighbours("i1"),
        KEYS.trending(),
        KEYS.trending(category="shoes"),
        KEYS.trending(segment=0),
        KEYS.segment(3),
        KEYS.meta,
        Keys("shop:a").recs("u1"),
    ]
    assert b" ".join(built).decode() == (
        "rv:{u1}:recs rv:{u1}:offers rv:{u1}:profile rv:{u1}:privacy rv:{u1}:recs:cart rv:similar:i%3A1 rv:nb:i1 "
        "rv:trending:all rv:trending:category:shoes rv:trending:segment:0 rv:segment:3 rv:meta "
        "shop:a:{u1}:recs"
    )


@pytest.mark.parametrize("prefix", ["", "{rv}", "a}b"])
def test_a_prefix_cannot_take_the_hash_tags_place(prefix: str) -> None:
    with pytest.raises(ConfigurationError, match="prefix"):
        Keys(prefix)


def test_an_empty_user_is_refused_and_an_empty_category_is_a_category() -> None:
    for build in (KEYS.recs, KEYS.offers, KEYS.profile, KEYS.user_keys):
        with pytest.raises(BadInputError, match="empty"):
            build("")
    assert KEYS.trending(category="") == b"rv:trending:category:"


def test_trending_is_of_one_kind() -> None:
    with pytest.raises(BadInputError, match="not per both"):
        KEYS.trending(category="shoes", segment=1)


LIST = (
    b'{"v":1,"ts":5,"model":"covisit","exp":null,"items":["i1","i2"],"scores":[2,0.5],'
    b'"why":[["i9","covisit"],[null,"x"]]}'
)


def test_a_list_is_parsed() -> None:
    assert parse_list(LIST) == Recommendations(
        items=["i1", "i2"], scores=[2.0, 0.5], why=[("i9", "covisit"), (None, "x")], ts=5, model="covisit"
    )


def test_unknown_fields_are_ignored_so_that_the_contract_can_grow() -> None:
    assert parse_list(LIST[:-1] + b',"new":[1]}') == parse_list(LIST)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (LIST.replace(b'"v":1', b'"v":2'), "its version is 2"),
        (LIST.replace(b",0.5", b""), "differ in length"),
        (LIST.replace(b',[null,"x"]', b""), "differ in length"),
        (LIST.replace(b'"i2"', b"7"), "items"),
    ],
)
def test_a_list_that_breaks_the_contract_is_refused(value: bytes, reason: str) -> None:
    with pytest.raises(BadInputError, match=f"contract version 1: .*{reason}"):
        parse_list(value)


def test_offers_past_their_end_are_dropped() -> None:
    value = b'{"v":1,"ts":5,"offers":[{"id":"a","score":2,"until":9,"why":"i9"},{"id":"b","score":1,"until":20}]}'
    offers = parse_offers(value)
    assert offers == Offers(offers=[Offer(id="a", score=2, until=9, why="i9"), Offer(id="b", score=1, until=20)], ts=5)
    assert [offer.id for now in (8, 9, 20) for offer in offers.live(now)] == ["a", "b", "b"]


@pytest.mark.parametrize("value", [b"{}", b"nil", b'{"v":3,"offers":[]}', b'{"offers":[{"id":"a"}]}'])
def test_offers_that_break_the_contract_are_refused(value: bytes) -> None:
    with pytest.raises(BadInputError, match="contract version 1"):
        parse_offers(value)


def test_a_profile_is_text() -> None:
    assert parse_profile({b"segment": b"3", b"rfm": "é".encode()}) == {"segment": "3", "rfm": "é"}


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(value: bytes) -> None:
    for parse in (parse_list, parse_offers):
        with suppress(BadInputError):
            parse(value)

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.postings import FILLED, FIRST, NONE, WIDTH, Postings, before, listed, live, post, remove_users

HOLDS = WIDTH - FIRST


class PlainPostings:
    """The slow reference: every block that was ever handed out, of which the last few are still readable."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.all: list[tuple[int, list[int]]] = []

    def post(self, item: int, user: int) -> None:
        mine = [n for n, (owner, _) in enumerate(self.all) if owner == item]
        if not mine or mine[-1] < len(self.all) - self.blocks or len(self.all[mine[-1]][1]) == HOLDS:
            self.all.append((item, []))
            mine.append(len(self.all) - 1)
        self.all[mine[-1]][1].append(user)

    def users(self, item: int) -> list[int]:
        readable = self.all[max(len(self.all) - self.blocks, 0) :]
        return [user for owner, users in readable if owner == item for user in users][::-1]


def users_of(postings: Postings, item: int) -> list[int]:
    found: list[int] = []
    number = int(postings.newest[item])
    if not live(postings, number):
        return found
    while number != NONE:
        block = postings.block[number % len(postings.block)]
        found += block[FIRST : FIRST + block[FILLED]].tolist()[::-1]
        number = before(postings, number)
    return found


touches = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 99)), max_size=200)


@given(touches=touches, blocks=st.integers(1, 8))
@settings(deadline=None)
def test_lists_equal_the_plain_ones_also_where_blocks_are_overwritten(
    touches: list[tuple[int, int]], blocks: int
) -> None:
    postings, plain = Postings.empty(blocks).reserved(4), PlainPostings(blocks)
    for item, user in touches:
        post(postings, item, user)
        plain.post(item, user)
        for other in range(4):
            assert users_of(postings, other) == plain.users(other)


def test_room_for_more_items_keeps_what_is_listed() -> None:
    postings = Postings.empty(4).reserved(1)
    post(postings, 0, 7)
    postings = postings.reserved(5_000)
    assert users_of(postings, 0) == [7]
    assert users_of(postings, 4_999) == []


@given(touches=touches, blocks=st.integers(1, 8), gone=st.sets(st.integers(0, 99)), later=touches)
@settings(deadline=None)
def test_removed_users_are_in_no_list_and_others_stay_in_their_order(
    touches: list[tuple[int, int]], blocks: int, gone: set[int], later: list[tuple[int, int]]
) -> None:
    postings = Postings.empty(blocks).reserved(4)
    for item, user in touches:
        post(postings, item, user)
    before = [users_of(postings, item) for item in range(4)]
    flags = np.zeros(max(gone, default=-1) + 1, dtype=np.bool_)
    flags[list(gone)] = True
    remove_users(postings, flags)
    for item in range(4):
        assert users_of(postings, item) == [user for user in before[item] if user not in gone]
        assert listed(postings, item) == bool(users_of(postings, item))
    for item, user in later:
        post(postings, item, user)
        assert users_of(postings, item)[0] == user

"""Each touch ends with the earliest login that is not before it, whatever was heard of first."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream.events import PastTouch
from stream.stages.claims import MOST_PER_COOKIE, Claims, Owner
from tests.plain import bounded

START = 1_700_000_000


def touch(second: int) -> PastTouch:
    return PastTouch(f"item{second}", "view_item", second, False)


class Browser:
    """A cookie with a history, and what each customer holds of it: plain dictionaries beside the claims."""

    def __init__(self, claims: Claims, seconds: list[int]) -> None:
        self.claims = claims
        self.history = seconds
        self.holder: dict[int, int] = {}

    def login(self, second: int, owner: Owner) -> None:
        """Take what the login may have, as `stream.stages.linking` does."""
        after, taken = self.claims.hear(7, second, owner)
        mine = [at for at in self.history if after < at <= second]
        self.history = [at for at in self.history if at not in mine]
        for each in taken:
            lost = [touch.second for touch in each.touches]
            assert {self.holder[at] for at in lost} == {each.owner.person}
            mine += lost
        self.holder |= dict.fromkeys(mine, owner.person)
        self.claims.keep(7, second, owner, [touch(at) for at in sorted(mine)])


logins = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 4)), max_size=MOST_PER_COOKIE)


@given(st.sets(st.integers(0, 32), max_size=12), logins, st.integers(0, MOST_PER_COOKIE))
@bounded
def test_the_next_login_has_what_was_touched(seconds: set[int], heard: list[tuple[int, int]], restart: int) -> None:
    browser = Browser(Claims(), [START + at for at in sorted(seconds)])
    for n, (at, person) in enumerate(heard):
        if n == restart:  # from a snapshot
            browser.claims = Claims.from_arrays(browser.claims.arrays())
        browser.login(START + at, Owner(person, home=person % 2))
    in_time = sorted(heard)
    expected = {START + at: next((p for later, p in in_time if later >= at), None) for at in seconds}
    assert browser.holder == {at: person for at, person in expected.items() if person is not None}
    assert browser.history == [at for at, person in sorted(expected.items()) if person is None]


def test_what_a_customer_took_is_dropped_and_nothing_else() -> None:
    claims, ada, ben = Claims(), Owner(1, 0), Owner(2, 0)
    for cookie in (7, 8):
        claims.keep(cookie, START + 9, ada, [touch(START + 1)])
        claims.keep(cookie, START + 8, ben, [touch(START + 2)])
    claims.disown(ada.person)
    assert len(claims) == 2
    assert [taken.owner for cookie in (7, 8) for taken in claims.hear(cookie, START + 5, Owner(3, 0)).taken] == [
        ben
    ] * 2


def test_of_a_full_memory_the_login_heard_of_first_goes() -> None:
    claims = Claims(most=3)
    for cookie in (1, 2, 3, 4):
        claims.keep(cookie, START, Owner(5, 0), [touch(START - 1)])
    ada = Owner(6, 0)
    assert [len(claims.hear(cookie, START - 1, ada).taken) for cookie in (1, 2, 3, 4)] == [0, 1, 1, 1]
    assert len(claims) == 3


def test_touches_have_so_much_room() -> None:
    claims = Claims(room=2 + 3 * len(msgspec.json.encode([touch(START)])))
    for cookie in range(5):
        claims.keep(cookie, START, Owner(5, 0), [touch(START)])
    assert len(claims) == 3
    claims.hear(4, START - 1, Owner(6, 0))
    assert claims.hear(3, START, Owner(4, 0)).taken
    claims.keep(6, START, Owner(5, 0), [touch(START)])
    assert len(claims) == 4  # one of them has given back what it had


def test_of_one_cookie_so_many_are_remembered_and_of_others_none_is_dropped_for_them() -> None:
    claims = Claims()
    claims.keep(1, START, Owner(5, 0), [touch(START - 1)])
    for n in range(MOST_PER_COOKIE + 1):
        claims.keep(2, START + n, Owner(5, 0), [touch(START + n)])
    assert len(claims) == MOST_PER_COOKIE + 1
    found = claims.hear(2, START + MOST_PER_COOKIE, Owner(4, 0)).taken
    assert [taken.touches[0].second for taken in found] == [START + MOST_PER_COOKIE]


def test_what_is_too_old_is_dropped_and_so_is_a_cookie_that_is_forgotten() -> None:
    claims = Claims()
    for second in range(4):
        claims.keep(second % 2, second, Owner(5, 0), [])
    claims.expire(before=2)
    assert len(claims) == 2
    claims.forget(0)
    claims.forget(9)
    assert len(claims) == 1
    assert (claims.hear(0, 9, Owner(6, 0)).after, claims.hear(1, 9, Owner(6, 0)).after) == (-1, 3)


def test_a_snapshot_of_before_holds_none() -> None:
    assert len(Claims.from_arrays({})) == 0

"""Who logged in at which browser, and what moved with each login: what a login that is told late still takes back.

A touch under a cookie belongs to whoever logs in next there, by event time. The login of one customer may be heard of
after a later one of another, who has taken it all by then. So what a login took is remembered for a while. Of people
and cookies only hashes are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events import PastTouch

MOST: Final = 8_192  # logins remembered, of a partition; with 20 touches each some 10 MB
MOST_BYTES: Final = 16_777_216  # of their touches
MOST_PER_COOKIE: Final = 16  # so that one record gives rise to fewer things than it has places

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(list[PastTouch]).decode
_NOTHING: Final = b"[]"


class Owner(NamedTuple):
    """A customer: hash of the id, and the partition that it belongs to."""

    person: int
    home: int


class Taken(NamedTuple):
    """Touches that somebody has taken, and by whom."""

    owner: Owner
    touches: list[PastTouch]


class Verdict(NamedTuple):
    """What a login may have: of the cookie's history what is later than `after`, and what others have taken."""

    after: int
    taken: list[Taken]


class _Login(NamedTuple):
    cookie: int
    second: int
    owner: Owner
    touches: bytes

    @property
    def when(self) -> tuple[int, int]:
        return self.second, self.owner.person


class Claims:
    """The last logins, at most `most` of them, with `room` for their touches; the one heard of first is dropped first.

    Whatever the order in which logins are heard of, each touch ends with the earliest login that is not before it; of
    two within one second, the one with the smaller hash is the earlier one. This holds as long as none is dropped.

    Parameters
    ----------
    most
        Logins remembered.
    room
        Bytes for the touches of all, as JSON.

    Notes
    -----
    About 1 us per login. Memory: some 300 bytes per login, and the touches.

    Examples
    --------
    >>> ada, bob, noon = Owner(person=1, home=0), Owner(person=2, home=0), 1_750_000_000
    >>> touches = [PastTouch("tent", "view_item", noon - 60, True), PastTouch("mat", "view_item", noon + 60, False)]
    >>> claims = Claims()
    >>> claims.hear(cookie=7, second=noon + 120, owner=bob)
    Verdict(after=-1, taken=[])
    >>> claims.keep(7, noon + 120, bob, touches)
    >>> (late,) = claims.hear(7, noon, ada).taken
    >>> late.owner.person, [touch.item_id for touch in late.touches]
    (2, ['tent'])
    >>> claims.keep(7, noon, ada, late.touches)
    >>> claims.hear(7, noon + 300, bob).after == noon
    True
    """

    def __init__(self, most: int = MOST, room: int = MOST_BYTES) -> None:
        self.most = most
        self.room = room
        self._bytes = 0
        self._logins: OrderedDict[int, _Login] = OrderedDict()
        self._of_cookie: dict[int, list[int]] = {}  # which of them, in the order in which they were heard of
        self._next = 0

    def __len__(self) -> int:
        """Logins remembered now."""
        return len(self._logins)

    def hear(self, cookie: int, second: int, owner: Owner) -> Verdict:
        """A login; what later ones have taken of what is its own is theirs no more."""
        when = (second, owner.person)
        after, taken = -1, []
        for number in self._of_cookie.get(cookie, ()):
            login = self._logins[number]
            if login.when < when and login.owner.person != owner.person:
                after = max(after, login.second)
            elif login.when > when and login.touches != _NOTHING:
                touches = _decode(login.touches)
                lost = [touch for touch in touches if touch.second <= second]
                if lost:
                    kept = [touch for touch in touches if touch.second > second]
                    self._logins[number] = left = login._replace(touches=_encode(kept))
                    self._bytes += len(left.touches) - len(login.touches)
                    taken.append(Taken(login.owner, lost))
        return Verdict(after, taken)

    def keep(self, cookie: int, second: int, owner: Owner, touches: list[PastTouch]) -> None:
        """Remember a login that was heard, with what it took."""
        self._append(_Login(cookie, second, owner, _encode(touches) if touches else _NOTHING))

    def expire(self, before: int) -> None:
        """Drop the oldest ones, as far as they are from before a second."""
        while self._logins and next(iter(self._logins.values())).second < before:
            self._remove(next(iter(self._logins)))

    def disown(self, person: int) -> None:
        """Drop all of a customer; about 1 ms."""
        for number in [number for number, login in self._logins.items() if login.owner.person == person]:
            self._remove(number)

    def forget(self, cookie: int) -> None:
        """Drop all of a cookie."""
        for number in list(self._of_cookie.get(cookie, ())):
            self._remove(number)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a snapshot must hold; some 2 ms for 8,192 logins."""
        cookies, seconds, owners, touches = zip(*self._logins.values(), strict=True) if self._logins else ((),) * 4
        persons, homes = zip(*owners, strict=True) if owners else ((), ())
        return {
            "cookie": np.array(cookies, dtype=np.uint64),
            "second": np.array(seconds, dtype=np.int64),
            "person": np.array(persons, dtype=np.uint64),
            "home": np.array(homes, dtype=np.int32),
            "length": np.fromiter(map(len, touches), dtype=np.int32, count=len(touches)),
            "touches": np.frombuffer(b"".join(touches), dtype=np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], most: int = MOST) -> Claims:
        """Claims from the arrays of a snapshot; none from one of before there were any."""
        claims = cls(most)
        if not arrays:
            return claims
        blob, ends = arrays["touches"].tobytes(), np.cumsum(arrays["length"]).tolist()
        columns = (arrays[name].tolist() for name in ("cookie", "second", "person", "home", "length"))
        for end, (cookie, second, person, home, length) in zip(ends, zip(*columns, strict=True), strict=True):
            claims._append(_Login(cookie, second, Owner(person, home), blob[end - length : end]))
        return claims

    def _append(self, login: _Login) -> None:
        numbers = self._of_cookie.get(login.cookie, [])
        if len(numbers) >= MOST_PER_COOKIE:
            self._remove(numbers[0])
        while self._logins and (len(self) >= self.most or self._bytes + len(login.touches) > self.room):
            self._remove(next(iter(self._logins)))
        self._of_cookie.setdefault(login.cookie, []).append(self._next)
        self._logins[self._next] = login
        self._bytes += len(login.touches)
        self._next += 1

    def _remove(self, number: int) -> None:
        login = self._logins.pop(number)
        self._bytes -= len(login.touches)
        numbers = self._of_cookie[login.cookie]
        numbers.remove(number)
        if not numbers:
            del self._of_cookie[login.cookie]

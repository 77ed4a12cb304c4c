"""How much a client may send, and who counts as one. Time is an argument."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from stream.web.refusing import TurnedAway

BURST_S: Final = 5.0
MOST_NAMES: Final = 50_000


class Buckets:
    """A token bucket per name, which may be overdrawn by one request: its size is known only when it was read.

    Parameters
    ----------
    rate
        Tokens that come back per second; 0: no limit.
    burst_s
        Seconds of the rate that a full bucket holds.
    most
        Most names; whoever was idle longest is forgotten first, and starts full again.

    Examples
    --------
    >>> buckets = Buckets(rate=10, burst_s=2)
    >>> buckets.wait_s("a", now=0.0), buckets.charge("a", 25, now=0.0), buckets.wait_s("a", now=0.0)
    (0.0, None, 0.6)
    >>> buckets.wait_s("a", now=0.7), buckets.wait_s("b", now=0.0)
    (0.0, 0.0)

    Notes
    -----
    About 1 us per call and 200 bytes per name.
    """

    def __init__(self, rate: float, burst_s: float = BURST_S, most: int = MOST_NAMES) -> None:
        self._rate, self._burst, self._most = rate, max(rate * burst_s, 1.0), most
        self._found: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def wait_s(self, name: str, now: float, besides: int = 0) -> float:
        """Seconds until a request of this name is let in again; 0 if it is at once. `besides`: tokens it has taken."""
        if not self._rate:
            return 0.0
        return max(0.0, (1.0 - self._tokens(name, now) - besides) / self._rate)

    def charge(self, name: str, tokens: int, now: float) -> None:
        """Take so many tokens."""
        if self._rate:
            self._found[name] = (self._tokens(name, now) - tokens, now)
            self._found.move_to_end(name)
            if len(self._found) > self._most:
                self._found.popitem(last=False)

    def _tokens(self, name: str, now: float) -> float:
        left, since = self._found.get(name, (self._burst, now))
        return min(self._burst, left + (now - since) * self._rate)


class Account(NamedTuple):
    """Whose tokens a request takes; `what` the name is, for people."""

    buckets: Buckets
    name: str
    what: str


class Bill:
    """What one request is charged: at the door as little as it can carry, and once it was read what it carries.

    The second charge looks at the accounts again: many requests may have come in before the first of them was read.

    Parameters
    ----------
    accounts
        Each is charged the same.

    Examples
    --------
    >>> bucket = Buckets(rate=10, burst_s=1)
    >>> bills = [Bill([Account(bucket, "a", "address")]) for _ in range(2)]
    >>> [bill.charge(1, now=0.0) for bill in bills], bills[0].charge(500, now=0.0)
    ([None, None], None)
    >>> bills[1].charge(500, now=0.0)
    Traceback (most recent call last):
    ...
    stream.web.refusing.TurnedAway: too many events of this address
    """

    def __init__(self, accounts: Sequence[Account]) -> None:
        self._accounts = accounts
        self._charged = 0

    def charge(self, events: int, now: float) -> None:
        """Charge so many events in all, those of before included.

        Raises
        ------
        TurnedAway
            429 if an account is overdrawn; then nothing more is charged.
        """
        for buckets, name, what in self._accounts:
            if wait_s := buckets.wait_s(name, now, self._charged):
                raise TurnedAway(429, f"too many events of this {what}", wait_s)
        for buckets, name, _ in self._accounts:
            buckets.charge(name, events - self._charged, now)
        self._charged = events


def retry_after(seconds: float) -> str:
    """Value of the header ``Retry-After``: whole seconds, at least 1."""
    return str(max(1, math.ceil(seconds)))


def address_of(peer: str | None, forwarded: str, proxies: int) -> str:
    """Whose rate a request counts for: the client's address, of IPv6 the network.

    Parameters
    ----------
    peer
        Who connected.
    forwarded
        Header ``X-Forwarded-For``, which anybody can write into.
    proxies
        How many own proxies stand in front: each has added, at the end, whom it saw.

    Examples
    --------
    >>> address_of("10.0.0.1", "6.6.6.6, 9.9.9.9", 1), address_of("10.0.0.1", "6.6.6.6", 0)
    ('9.9.9.9', '10.0.0.1')
    >>> address_of("2001:db8:1:2:3::4", "", 0), address_of(None, "x", 1)
    ('2001:db8:1:2::/64', 'unknown')
    """
    chain = [part.strip() for part in forwarded.split(",") if part.strip()]
    told = chain[-proxies] if 0 < proxies <= len(chain) else peer or ""
    try:
        address = ipaddress.ip_address(told)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))

"""What a reader keeps of keys that many users share: for a second, to save round trips; longer, for when Redis is away.

Lists of users are never kept: a page must show what the visitor's last click changed. Trending, similar lists and item
details change every few seconds at most.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

ENTRIES: Final = 10_000
FOLLOWED_S: Final = 60.0  # how long a value is kept at most of which Redis would say that it changed
SILENCE_S: Final = 3.0  # how long that is believed without a sign of life


class Shared(NamedTuple):
    """Strings that many users share; the reply is their values, None where there is none."""

    keys: tuple[bytes, ...]


Own: TypeAlias = tuple[str | bytes, ...]  # a command about one user
Command: TypeAlias = Own | Shared
# A reply's type depends on its command; the parse functions check what they are given.
Replies: TypeAlias = list[Any]


class _Kept(NamedTuple):
    """A value, when it was asked for, and whether no change can have been missed since."""

    at: float
    value: bytes | None
    sure: bool


class SharedCache:
    """Values of shared keys with the time they were read; safe in threads.

    Parameters
    ----------
    fresh_s
        How long a value counts as fresh: what readers show of shared keys may be so much older. 0: always asked for.
    entries
        Most keys kept; the one used longest ago goes first.
    followed
        What keys begin with whose changes Redis may tell (`stream.tracking`); they are fresh for as long as it does.

    Attributes
    ----------
    hits, misses
        Keys that were and were not fresh when they were wanted.

    Notes
    -----
    Memory: about 1 kB per list, 0.4 kB per item's details, so 10 MB at most by default. About 0.3 us per key.
    """

    def __init__(self, fresh_s: float = 1.0, entries: int = ENTRIES, followed: tuple[bytes, ...] = ()) -> None:
        self.followed = followed
        self.hits = 0
        self.misses = 0
        self._fresh_s = fresh_s
        self._entries = entries
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._since = math.inf  # when changes began to be told
        self._heard = -math.inf
        self._dropped = -math.inf
        self._lock = threading.Lock()

    def look(self, commands: Sequence[Command], now: float) -> tuple[dict[bytes, bytes | None], list[bytes]]:
        """Values that are fresh, and the shared keys that have to be asked for, each once."""
        wanted = dict.fromkeys(key for command in commands if isinstance(command, Shared) for key in command.keys)
        known: dict[bytes, bytes | None] = {}
        with self._lock:
            for key in wanted:
                kept = self._kept.get(key)
                if kept is not None and (now - kept.at < self._fresh_s or self._told(key, kept, now)):
                    known[key] = kept.value
                    self._kept.move_to_end(key)
            self.hits += len(known)
            self.misses += len(wanted) - len(known)
        return known, [key for key in wanted if key not in known]

    def _told(self, key: bytes, kept: _Kept, now: float) -> bool:
        """Whether Redis would have said so if a value had changed."""
        alive = self._since <= kept.at and now - self._heard < SILENCE_S
        return alive and kept.sure and now - kept.at < FOLLOWED_S and key.startswith(self.followed)

    def hear(self, asked_at: float, since: float | None = None) -> None:
        """A question of this time was answered: every change before it has been told, if it was after `since`."""
        with self._lock:
            self._heard = asked_at
            if since is not None:
                self._since = since

    def drop(self, keys: Sequence[bytes] | None, now: float) -> None:
        """Some keys, or all (None), have changed; what is on its way now may be from before, and is not kept long."""
        with self._lock:
            self._dropped = now
            for key in self._kept.keys() if keys is None else keys:
                kept = self._kept.get(key)
                if kept is not None:
                    self._kept[key] = kept._replace(at=-math.inf)

    def unfollow(self) -> None:
        """Changes are not told any more."""
        with self._lock:
            self._since = math.inf

    def keep(self, asked: Mapping[bytes, bytes | None], now: float) -> None:
        """Remember values as of a time."""
        with self._lock:
            for key, value in asked.items():
                self._kept[key] = _Kept(now, value, now > self._dropped)
                self._kept.move_to_end(key)
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)

    def without_redis(self, commands: Sequence[Command]) -> Replies:
        """Replies as if only what is kept existed, however old."""
        with self._lock:
            return [
                [kept.value if (kept := self._kept.get(key)) else None for key in command.keys]
                if isinstance(command, Shared)
                else nothing(command)
                for command in commands
            ]


def joined(commands: Sequence[Command], own: Sequence[Any], shared: Mapping[bytes, bytes | None]) -> Replies:
    """Replies to all commands in their order, from those about users and the values of shared keys.

    Examples
    --------
    >>> joined([Shared((b"a",)), ("HGET", b"h", b"f"), Shared((b"b", b"a"))], [b"x"], {b"a": b"1", b"b": None})
    [[b'1'], b'x', [None, b'1']]
    """
    replies = iter(own)
    return [
        [shared[key] for key in command.keys] if isinstance(command, Shared) else next(replies) for command in commands
    ]


def nothing(command: Command) -> Any:
    """What Redis would answer if the command's keys did not exist.

    Examples
    --------
    >>> nothing(("MGET", b"a", b"b")), nothing(("HGETALL", b"a")), nothing(("GET", b"a"))
    ([None, None], {}, None)
    """
    if isinstance(command, Shared) or command[0] == "MGET":
        return [None] * (len(command.keys) if isinstance(command, Shared) else len(command) - 1)
    return {} if command[0] == "HGETALL" else None

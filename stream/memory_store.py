"""The store in memory: for ``--local``, for tests, and trusted only because it passes what `RedisStore` passes."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterator, Sequence

import hiredis

from stream.resp import Reply, StoreError, WriteBatch, anonymous


def _monotonic_zero() -> float:
    return 0.0


class MemoryStore:
    """The same contract in memory, for ``--local`` and for tests; executes the very bytes a server would get.

    Parameters
    ----------
    now
        Clock in seconds that lifetimes are measured with; by default time stands still and nothing expires.

    Notes
    -----
    Unbounded, and expired keys are dropped only when they are read: it is for runs that end.
    """

    def __init__(self, now: Callable[[], float] = _monotonic_zero) -> None:
        self._now = now
        self._values: dict[bytes, bytes | dict[bytes, bytes]] = {}
        self._ends: dict[bytes, float] = {}
        self._run_id = secrets.token_hex(20)

    async def flush(self, batch: WriteBatch) -> None:
        """Execute the batch's commands in order."""
        reader = hiredis.Reader()
        for frame in batch.frames:
            reader.feed(frame)
        batch.check([self._execute(*command) for command in iter(reader.gets, False)])

    def _execute(self, verb: bytes, key: bytes, *rest: bytes) -> Reply:
        if verb == b"SET":
            self._values[key] = rest[0]
            self._ends[key] = self._now() + int(rest[2]) if rest[1:] else math.inf
            return b"OK"
        current = self._alive(key)
        if verb == b"DEL":
            self._drop(key)
            return int(current is not None)
        if verb == b"EXPIRE":
            if current is not None:
                self._ends[key] = self._now() + int(rest[0])
            return int(current is not None)
        fields = self._values.setdefault(key, {}) if current is None else current
        if isinstance(fields, bytes):
            self._drop(key)
            fields = self._values[key] = {}
        before = len(fields)
        if verb == b"HDEL":
            for field in rest:
                fields.pop(field, None)
            if not fields:
                self._drop(key)
            return before - len(fields)
        fields.update(zip(rest[::2], rest[1::2], strict=True))
        return len(fields) - before

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Read strings."""
        values = map(self._alive, keys)
        return [value if isinstance(value, bytes) else None for value in values]

    async def hgetall(self, key: bytes) -> dict[bytes, bytes]:
        """Read a hash; empty if there is none."""
        value = self._alive(key) or {}
        if isinstance(value, bytes):
            raise _wrong_type(key)
        return dict(value)

    async def hget(self, key: bytes, field: bytes) -> bytes | None:
        """Read one field of a hash; None if it is not there."""
        return (await self.hgetall(key)).get(field)

    async def mark(self, key: bytes, *fields: bytes) -> bool:
        """Set fields of a hash to 1; whether one of them was not there before."""
        return bool(self._execute(b"HSET", key, *(part for field in fields for part in (field, b"1"))))

    async def run_id(self) -> str:
        """Identity of this object."""
        return self._run_id

    async def close(self) -> None:
        """Do nothing."""

    def ttl(self, key: bytes) -> float | None:
        """Seconds a key has left; None when it does not end or does not exist."""
        end = self._ends.get(key, math.inf) if self._alive(key) is not None else math.inf
        return None if end == math.inf else end - self._now()

    def __iter__(self) -> Iterator[bytes]:
        """Keys that are alive, in the order they were first written."""
        return iter([key for key in list(self._values) if self._alive(key) is not None])

    def items(self) -> Iterator[tuple[bytes, bytes | dict[bytes, bytes]]]:
        """Keys that are alive with their values, sorted by key."""
        return iter(sorted((key, self._values[key]) for key in self))

    def _alive(self, key: bytes) -> bytes | dict[bytes, bytes] | None:
        if self._ends.get(key, math.inf) <= self._now():
            self._drop(key)
        return self._values.get(key)

    def _drop(self, key: bytes) -> None:
        self._values.pop(key, None)
        self._ends.pop(key, None)


def _wrong_type(key: bytes) -> StoreError:
    text = "WRONGTYPE Operation against a key holding the wrong kind of value"
    return StoreError(f"Redis refused {anonymous(key)}: {text}")

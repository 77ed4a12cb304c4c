"""Fetches on their way from the consumer's thread to the event loop, by partition, in order and bounded."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from stream.fetches import TP, Fetch

MOST_BYTES: Final = 4 * 1_048_576  # of a partition, and of fetches that are joined; a single fetch may have more


class Inbox:
    """What was fetched and not handed on yet.

    The thread puts, the event loop takes; neither waits for the other longer than for a dictionary. Faust asks the
    thread for records each time it has handed on the last ones, which under load is every 10 to 30 ms, and what arrives
    meanwhile is left out of the next request to the broker, too.

    Parameters
    ----------
    most
        A partition has room as long as fewer records of it wait, and fewer than `MOST_BYTES`.
    arrived
        Called, in the thread, when something was put: has the event loop call `wake_up`.
    made_room
        Called, in the event loop, when a partition has room again.
    """

    def __init__(self, most: int, *, arrived: Callable[[], object], made_room: Callable[[], object]) -> None:
        self._most, self._tell_arrival, self._tell_room = most, arrived, made_room
        self._lock = threading.Lock()
        self._fetches: dict[TP, deque[Fetch]] = {}
        self._waiting: dict[TP, _Size] = {}
        self._error: BaseException | None = None
        self._arrived = asyncio.Event()

    # -- the thread ----------------------------------------------------------------------------------------------

    def has_room(self, tp: TP) -> bool:
        """Whether another fetch of the partition may be put."""
        waiting = self._waiting.get(tp, EMPTY)
        return waiting.records < self._most and waiting.nbytes < MOST_BYTES

    def put(self, fetch: Fetch) -> None:
        """Add a fetch behind the partition's others."""
        with self._lock:
            self._fetches.setdefault(fetch.tp, deque()).append(fetch)
            self._waiting[fetch.tp] = self._waiting.get(fetch.tp, EMPTY).plus(_size(fetch))
        self._tell_arrival()

    def fail(self, error: BaseException) -> None:
        """Let the next `take` raise."""
        self._error = error
        self._tell_arrival()

    def drop(self, tps: Collection[TP]) -> None:
        """Forget what waits of these partitions."""
        with self._lock:
            for tp in tps:
                self._fetches.pop(tp, None)
                self._waiting.pop(tp, None)

    # -- the event loop ------------------------------------------------------------------------------------------

    def wake_up(self) -> None:
        """End `arrival`."""
        self._arrived.set()

    async def arrival(self, within_s: float) -> None:
        """Wait until something was put since the last call, or so long."""
        try:
            async with asyncio.timeout(within_s):
                await self._arrived.wait()
        except TimeoutError:
            return
        self._arrived.clear()

    def take(self, tps: Collection[TP]) -> list[Fetch]:
        """The next of each of these partitions: what follows each other, up to `most` records or one fetch, as one.

        Raises
        ------
        BaseException
            What `fail` was given.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        with self._lock:
            full = [tp for tp in self._waiting if not self.has_room(tp)]
            taken = [self._next(tp) for tp in list(self._fetches) if tp in tps]
        if any(self.has_room(tp) for tp in full):
            self._tell_room()
        return taken

    def _next(self, tp: TP) -> Fetch:
        fetches = self._fetches[tp]
        batch = fetches.popleft()
        size = _size(batch)
        while fetches and batch.followed_by(fetches[0]):
            both = size.plus(_size(fetches[0]))
            if both.records > self._most or both.nbytes > MOST_BYTES:
                break
            batch, size = batch.joined(fetches.popleft()), both
        waiting = self._waiting[tp]
        self._waiting[tp] = _Size(waiting.records - size.records, waiting.nbytes - size.nbytes)
        if not fetches:
            del self._fetches[tp], self._waiting[tp]
        return batch


class _Size(NamedTuple):
    """How much something is."""

    records: int
    nbytes: int

    def plus(self, other: _Size) -> _Size:
        """Both together."""
        return _Size(self.records + other.records, self.nbytes + other.nbytes)


EMPTY: Final = _Size(0, 0)


def _size(fetch: Fetch) -> _Size:
    return _Size(len(fetch.records), sum(len(record.value or b"") for record in fetch.records))

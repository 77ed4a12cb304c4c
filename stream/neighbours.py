"""Neighbours of items that other workers own: a bounded cache over the rows they publish in Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.histories import HistoryArrays
from models.kernel import kernel
from models.neighbour_rows import NO_ROW
from models.vocabulary import grown
from stream.keys import Keys
from stream.row_wire import insert_rows
from stream.stages.space import ItemSpace
from stream.store import Store

MAX_AGE_S: Final = 5.0
MAX_ROWS: Final = 50_000
NEVER: Final = -np.inf
SLICE: Final = 2_000  # rows dropped at a time
LOOKS: Final = 3  # at what is missing: rows that were at hand may be dropped while others are read


class Neighbours:
    """Brings rows of foreign items into the item space before a ranking needs them.

    Parameters
    ----------
    space
        Where the rows go.
    store, keys
        Where they come from.
    clock
        Monotonic seconds.
    max_rows
        Rows cached, 1.46 kB each; above it those that were asked for longest ago are dropped, a sixteenth at a time.
        What fetches under way need stays, so they may bring more.

    Attributes
    ----------
    hits, misses
        Items whose cached row was fresh, and those that were read.
    """

    def __init__(
        self,
        space: ItemSpace,
        store: Store,
        keys: Keys,
        clock: Callable[[], float] = time.monotonic,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._space = space
        self._store = store
        self._keys = keys
        self._clock = clock
        self._max_rows = max_rows
        self._read_at = np.zeros(0, dtype=np.float64)  # by item
        self._asked = np.zeros(0, dtype=np.int64)  # by item: the last fetch that asked for it
        self._fetches = 0
        self._under_way: set[int] = set()  # the first look of each fetch that is not done
        self._dropped = 0
        self._kept = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        """Items whose rows were read and are kept."""
        return self._kept

    async def fetch(self, histories: HistoryArrays, users: NDArray[np.int32]) -> None:
        """Read what some users' histories need and is not cached or older than 5 s; at once, with one round trip.

        Nothing while this process owns all items. About 10 ns per touch, and 20 us per row that is read.
        """
        now, turn = self._clock(), self._fetches + 1
        self._under_way.add(turn)
        try:
            for look in range(LOOKS):
                stale, hits = self._stale(histories, users, now - MAX_AGE_S)
                self.hits += hits if look == 0 else 0
                self.misses += len(stale)
                if not len(stale):
                    return
                await self._read(stale, now)
        finally:
            self._under_way.discard(turn)

    def _stale(self, histories: HistoryArrays, users: NDArray[np.int32], since: float) -> tuple[NDArray[np.int32], int]:
        """What of some users' items is to be read, and how many items need not be."""
        space = self._space
        if len(space.owned) == space.partitions:
            return np.zeros(0, dtype=np.int32), 0
        self._keep_up()
        owned = np.zeros(space.partitions, dtype=np.bool_)
        owned[[partition for partition in space.owned if partition < len(owned)]] = True  # more may have been added
        self._fetches += 1
        return find_stale(histories, users, space.partition, owned, self._read_at, since, self._asked, self._fetches)

    async def _read(self, items: NDArray[np.int32], now: float) -> None:
        space = self._space
        with space.reclaimer.paused():  # no index may stand for another item when the answer comes
            values = await self._store.get([self._keys.neighbours(text) for text in space.ids.texts(items)])
        self._keep_up()
        foreign = ~np.isin(space.partition[items], list(space.owned))  # what was taken up meanwhile has its own rows
        self._kept += int(np.count_nonzero(self._read_at[items[foreign]] == NEVER))
        self._read_at[items[foreign]] = now
        values = [value if ours else None for value, ours in zip(values, foreign.tolist(), strict=True)]
        found = np.array([value is not None for value in values])
        if found.any():
            insert_rows(space, items[found], [value for value in values if value is not None])
            self._keep_up()
        self._make_room()

    async def drop(self) -> None:
        """Forget every cached row: none that was read before counts any more."""
        cached = np.flatnonzero(self._read_at != NEVER).astype(np.int32)
        self._read_at[cached] = NEVER
        self._kept = 0
        for start in range(0, len(cached), SLICE):
            some = cached[start : start + SLICE]
            self._drop_rows(some[self._read_at[some] == NEVER])  # others were read again meanwhile
            await asyncio.sleep(0)

    def _make_room(self) -> None:
        excess = self._kept - self._max_rows
        if excess <= 0:
            return
        spare = np.flatnonzero((self._read_at != NEVER) & (self._asked < min(self._under_way))).astype(np.int32)
        most = min(excess + self._max_rows // 16, len(spare))
        if most == 0:
            return
        oldest = spare[np.argpartition(self._asked[spare], most - 1)[:most]]
        self._read_at[oldest] = NEVER
        self._kept -= most
        self._drop_rows(oldest)

    def _drop_rows(self, items: NDArray[np.int32]) -> None:
        """Drop the rows of items, except those that this process owns by now."""
        space = self._space
        cached = (space.rows.arrays.row[items] != NO_ROW) & ~np.isin(space.partition[items], list(space.owned))
        space.rows.drop(items[cached])

    def _keep_up(self) -> None:
        """Grow with the space, and forget items that are gone from it.

        An index that has gone to another item already counts as read until the age of its predecessor's row is up.
        """
        space, known = self._space, len(self._read_at)
        if known < len(space.partition):
            self._read_at = grown(self._read_at, len(space.partition))
            self._read_at[known:] = NEVER
            self._asked = grown(self._asked, len(self._read_at))
        if self._dropped != space.dropped:
            self._dropped = space.dropped
            self._read_at[np.flatnonzero(space.partition < 0)] = NEVER
            self._kept = int(np.count_nonzero(self._read_at != NEVER))


@kernel
def find_stale(
    histories: HistoryArrays,
    users: NDArray[np.int32],
    partition: NDArray[np.int32],
    owned: NDArray[np.bool_],
    read_at: NDArray[np.float64],
    since: float,
    asked: NDArray[np.int64],
    turn: int,
) -> tuple[NDArray[np.int32], int]:
    """Distinct items in some users' histories that others own and that were read no later than `since`; and the rest.

    Returns
    -------
    tuple[NDArray[np.int32], int]
        The items to read, and how many distinct foreign ones need not be.
    """
    size = histories.item.shape[1]
    stale = np.empty(len(users) * size, dtype=np.int32)
    found = 0
    fresh = 0
    for user in users:
        head = np.int64(histories.head[user])
        for i in range(np.int64(histories.count[user])):
            item = histories.item[user, head - i if head >= i else head - i + size]
            if owned[partition[item]] or asked[item] == turn:
                continue
            asked[item] = turn
            if read_at[item] <= since:
                stale[found] = item
                found += 1
            else:
                fresh += 1
    return stale[:found], fresh

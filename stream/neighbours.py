"""Neighbours of items that other workers own: a bounded cache over the rows they publish in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from stream.keys import Keys
from stream.stages.space import ItemSpace
from stream.store import Store
from stream.wire import insert_row, unpack_row

MAX_AGE_S = 5.0
MAX_ROWS = 50_000


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
        Rows cached, 1.46 kB each; above it all of them are dropped and read again on demand.

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
        self._read_at: dict[int, float] = {}
        self._dropped = 0
        self.hits = 0
        self.misses = 0

    async def fetch(self, items: NDArray[np.int32]) -> None:
        """Read the rows of foreign items that are not cached or older than 5 s; at once, with one round trip."""
        if len(items) == 0:
            return
        if self._dropped != self._space.dropped:  # an index may stand for another item now
            self._dropped = self._space.dropped
            self._read_at.clear()
        now = self._clock()
        stale = [item for item in items.tolist() if now - self._read_at.get(item, -MAX_AGE_S) >= MAX_AGE_S]
        self.hits += len(items) - len(stale)
        self.misses += len(stale)
        if not stale:
            return
        if len(self._read_at) + len(stale) > self._max_rows:
            self.drop()
        texts = self._space.ids.texts(np.array(stale, dtype=np.int32))
        values = await self._store.get([self._keys.neighbours(text) for text in texts])
        for item, value in zip(stale, values, strict=True):
            self._read_at[item] = now
            if value is not None and int(self._space.partition[item]) not in self._space.owned:
                insert_row(self._space, item, unpack_row(value))

    def __len__(self) -> int:
        """Rows that were read and are kept."""
        return len(self._read_at)

    def drop(self) -> None:
        """Forget every cached row."""
        self._read_at.clear()
        owned = np.isin(self._space.partition, list(self._space.owned))
        self._space.rows.retain(owned)
        self._space.reclaimer.restart()

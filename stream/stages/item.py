"""Item stage: neighbour rows and popularity. State by item, one shard per partition of topic ``covisits``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.decay import YEAR_2000_S, decay_add_many
from models.eviction import oldest
from models.neighbour_rows import NO_ROW
from models.popularity import strongest
from models.ranking import Lists, find_rows, rank_similar
from models.trending import HALF_LIFE_S
from stream.copying import Copying
from stream.decoding import Record
from stream.errors import RivuletError
from stream.framing import Names, set_lists
from stream.keys import COVISIT, NEIGHBOURS_TTL_S, SIMILAR_TTL_S, Keys
from stream.resp import WriteBatch
from stream.row_wire import pack_rows
from stream.stages.item_shard import ItemShard, with_row
from stream.stages.sends import Send
from stream.stages.space import NO_CATEGORY, ItemSpace
from stream.wire import DOUBT, FLUSH, CovisitRecord, Popular, encode_global, joined, since, unpack_covisits

SLICE: Final = 64  # items published at a time, so that neither event loop nor connection is held
EVICTED: Final = 64  # one in so many rows is dropped when a shard is full
TINY: Final = float(np.finfo(np.float64).tiny)
TOGETHER: Final = 10_000  # visits applied at a time, of however many records; more cost no less each
STRONGEST: Final = 1_024  # items of all categories told to the global stage at a time, and most in one record
TOUCHED: Final = 1  # popularity that may be left untold: others may be stronger
SURELY: Final = 2  # ... that must be told: less than was told before, or it has not arrived


class HoleError(RivuletError):
    """Deltas of a source partition are missing between what was applied and what came next."""


@dataclass(slots=True)
class Published:
    """What a publication writes, of which `items`, and sends, of those `told`; `more` while items are left."""

    writes: WriteBatch
    sends: list[Send]
    more: bool
    items: NDArray[np.int32]
    told: NDArray[np.int32]


class ItemStage:
    """The item stage of one process.

    Parameters
    ----------
    space
        The process's items; the rows of owned partitions are this stage's state.
    keys
        Builder of Redis keys.
    sources
        Number of partitions of topic ``events``.
    k
        Length of ``similar`` and ``trending`` lists.
    items
        Most items with a row per shard, > 0; above it those visited longest ago are dropped. A record may bring more
        for a moment.
    """

    def __init__(
        self, space: ItemSpace, keys: Keys, sources: int, k: int = 20, items: int = 500_000, step_share: float = 0.5
    ) -> None:
        self.space = space
        self.keys = keys
        self.sources = sources
        self.k = k
        self.items = items
        self.step_share = step_share
        self.shards: dict[int, ItemShard] = {}

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Start a shard: empty, or from a snapshot. Cached copies of its rows are dropped."""
        self._clear(partition)
        self.space.owned.add(partition)
        self.shards[partition] = shard = ItemShard(self.sources)
        if arrays is not None:
            shard.restore(self.space, arrays)

    def close(self, partition: int) -> None:
        """Forget a shard; its rows go with it."""
        self.shards.pop(partition, None)
        self.space.owned.discard(partition)
        self._clear(partition)

    def mark_of(self, source: int) -> int:
        """Highest offset of a partition of `events` whose deltas are in rows of this process; -1 for none."""
        shards = self.shards.values() if source < self.sources else ()  # partitions may have been added
        return max((int(shard.marks[source]) for shard in shards), default=-1)

    def _clear(self, partition: int) -> None:
        """Drop all that is known of a shard's items: a snapshot brings back its own, a replay adds to nothing."""
        space = self.space
        space.rows.drop(with_row(self.space, partition))
        space.rows.shrink()
        space.reclaimer.restart()
        space.unlearn(np.flatnonzero(space.partition == partition).astype(np.int32))

    def learn(self, partition: int, records: Sequence[Record]) -> bool:
        """Apply the deltas of one fetch; True if it asked for everything to be published at once.

        Parameters
        ----------
        partition
            The shard.
        records
            Records of topic ``covisits`` above everything applied before.

        Raises
        ------
        HoleError
            If deltas of a source are missing.
        WireError
            If a record is of another version.
        """
        self.space.reclaimer.step()
        shard = self.shards[partition]
        values = [record.value or b"" for record in records]
        requests = {value[:4] for value in values} & {FLUSH, DOUBT}
        news = (self._unseen(partition, shard, unpack_covisits(v)) for v in values if v[:4] not in requests)
        waiting = [record for record in news if len(record.deltas.item)]
        while waiting:
            fit = self._fit(shard, waiting)
            self._apply(partition, shard, joined(waiting[:fit]))
            waiting = waiting[fit:]
        if requests:
            self.touch_all(partition)
        shard.applied = records[-1].offset
        return FLUSH in requests

    def _unseen(self, partition: int, shard: ItemShard, record: CovisitRecord) -> CovisitRecord:
        """What of a record was not applied before, possibly nothing; from here on it counts as applied."""
        mark = int(shard.marks[record.source])
        if record.low > mark:
            raise HoleError(
                f"covisits-{partition}: deltas of events-{record.source} between offsets {mark} and {record.low} are"
                " missing; restore the topic, or learn again what `events` has: stop all workers, empty the snapshot"
                " folder, make topic covisits anew"
            )
        shard.counts["repeated"] += record.high <= mark
        shard.marks[record.source] = max(record.high, mark)
        return record if record.low == mark else since(record, mark)

    def _fit(self, shard: ItemShard, records: list[CovisitRecord]) -> int:
        """How many records, one at least, may be applied as one: what is dropped must not depend on fetches."""
        if (
            sum(len(record.deltas.item) for record in records) <= TOGETHER
            and shard.rows + sum(len(record.items) for record in records) <= self.items
        ):
            return len(records)
        visits = np.cumsum([len(record.deltas.item) for record in records])
        items = shard.rows + np.cumsum([len(record.items) for record in records])
        return max(1, int(np.count_nonzero((visits <= TOGETHER) & (items <= self.items))))

    def _apply(self, partition: int, shard: ItemShard, record: CovisitRecord) -> None:
        space = self.space
        codes = space.encode(record.items)
        deltas = record.deltas._replace(item=codes[record.deltas.item], other=codes[record.deltas.other])
        rows = space.rows.used
        space.rows.learn(deltas, space.partition, partition)
        shard.rows += space.rows.used - rows
        if record.categories:
            names = np.append(space.encode_categories(record.categories), NO_CATEGORY)
            space.file(deltas.item, names[record.category])
        touched = codes[space.partition[codes] == partition]
        shard.changes.add(touched)
        mine = space.partition[deltas.item] == partition
        item, weight, ts = deltas.item[mine], deltas.weight[mine], deltas.ts[mine]
        decay_add_many(space.trend, space.trend_epoch, item, weight, ts, HALF_LIFE_S)
        np.maximum.at(space.visited, item, ts)
        space.unpublished[touched] = True
        space.untold[item] |= TOUCHED
        space.untold[item[weight < 0]] |= SURELY
        shard.newest = max(shard.newest, int(deltas.ts.max()))
        shard.counts["visits"] += int(np.sign(weight).sum())  # what is forgotten counts back
        if shard.rows > self.items:
            self._evict(partition, shard)

    def _evict(self, partition: int, shard: ItemShard) -> None:
        """Drop rows of items visited longest ago; between records, as what is dropped must not depend on fetches."""
        space = self.space
        items = with_row(self.space, partition)
        most = shard.rows - self.items + self.items // EVICTED
        dropped = items[oldest(space.visited[items], space.ids.hashes[items], most)]
        shard.changes.add(dropped)
        space.rows.drop(dropped)
        space.unlearn(dropped)
        shard.rows -= most
        shard.counts["evicted"] += most

    def touch_all(self, partition: int) -> None:
        """Mark every row of a shard for publication."""
        items = with_row(self.space, partition)
        self.space.unpublished[items] = True
        self.space.untold[items] |= TOUCHED

    def withdraw(self, item: str, withdrawn: bool = True) -> None:
        """Take an item out of all lists from the next publication on, or let it in again."""
        (index,) = self.space.encode([item])
        if self.space.hidden[index] != withdrawn:
            self.space.hidden[index] = withdrawn
            for shard in self.shards.values():
                shard.turned.add(int(index))

    def _touch_around(self, partition: int, turned: set[int]) -> None:
        """Mark the rows of a shard that name one of some items for publication; about 0.1 us per row of 100."""
        wanted = np.zeros(self.space.ids.size, dtype=np.bool_)
        wanted[list(turned)] = True
        mine = with_row(self.space, partition)
        self.space.unpublished[mine[find_rows(mine, self.space.rows.arrays, wanted)]] = True

    def publish(self, partition: int, now_ms: int) -> Published:
        """Write up to a slice of changed neighbour lists and tell the global stage of changed popularity.

        Parameters
        ----------
        partition
            The shard.
        now_ms
            Not the clock but the time shown in the lists when the shard has seen no event yet.
        """
        space, shard = self.space, self.shards[partition]
        if shard.turned:
            self._touch_around(partition, shard.turned)
            shard.turned.clear()
        size = space.ids.size
        mine = space.partition[:size] == partition
        items = np.flatnonzero(space.unpublished[:size] & mine)[:SLICE].astype(np.int32)
        ts_ms = (shard.newest + YEAR_2000_S) * 1000 if shard.newest else now_ms
        writes = WriteBatch()
        lists = Lists.empty(len(items), self.k)
        ids = space.ids
        rank_similar(items, space.rows.arrays, self.step_share, space.hidden, ids.blob, ids.spans, space.scratch, lists)
        space.unpublished[items] = False
        shared = len(space.owned) < space.partitions
        known = np.flatnonzero(lists.item[:, 0] >= 0)
        writes.delete(*map(self.keys.similar, ids.texts(self._emptied(items, lists))))
        lists = lists.of(known)
        names = Names.of(self.keys.similar_form, ids, items[known])
        times = np.full(len(known), ts_ms, dtype=np.int64)
        writes.set_all(set_lists(names, lists, times, SIMILAR_TTL_S, COVISIT, space.fragments))
        if shared:
            with_row = items[space.rows.arrays.row[items] != NO_ROW]
            for text, row in zip(ids.texts(with_row), pack_rows(space.rows, with_row, ids), strict=True):
                writes.set(self.keys.neighbours(text), row, NEIGHBOURS_TTL_S)
        told = self._newsworthy(mine)
        sends = self._popular(told, partition, shard)
        return Published(writes, sends, bool((space.unpublished[:size] & mine).any()), items, told)

    def publish_again(self, published: Published) -> None:
        """What was neither written nor sent, or nobody knows, belongs to the next publication."""
        self.space.unpublished[published.items] = True
        self.space.untold[published.told] |= SURELY

    def _emptied(self, items: NDArray[np.int32], lists: Lists) -> NDArray[np.int32]:
        """Items that have neighbours, none of which may be shown: an older list may stand in Redis."""
        arrays = self.space.rows.arrays
        bare: NDArray[np.int32] = items[(lists.item[:, 0] < 0) & (arrays.row[items] != NO_ROW)]
        filled: NDArray[np.bool_] = arrays.size[arrays.row[bare]] > 0
        return bare[filled]

    def _newsworthy(self, mine: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Of the changed items those that trending lists may show, or may no longer; the others are let go.

        As others only grow stronger, an item that is in a list was among its category's strongest when it was touched
        last. Those withdrawn are in none: they wait until they are back.
        """
        space = self.space
        items = np.flatnonzero(mine & (space.untold[: len(mine)] > 0)).astype(np.int32)
        items = items[(space.visited[items] > 0) & ~space.hidden[items]]
        surely = (space.untold[items] & SURELY > 0) | (space.trend[items] == 0)  # the last visitor may be forgotten
        space.untold[items] = 0
        if len(items) > STRONGEST:
            surely[self._strongest(items)] = True
            items = items[surely]
        return items

    def _strongest(self, items: NDArray[np.int32]) -> NDArray[np.int32]:
        """Positions of each category's strongest items, as many as a list shows, and of the strongest of all."""
        space = self.space
        value, epoch = space.trend[items], space.trend_epoch[items]
        best = np.full((len(space.categories), self.k), -1, dtype=np.int32)
        strongest(value, epoch, space.category[items], space.ids.blob, space.ids.spans[items], best)
        strength = np.log2(np.maximum(value, TINY)) + epoch
        return np.append(best[best >= 0], np.argpartition(-strength, STRONGEST)[:STRONGEST])

    def _popular(self, items: NDArray[np.int32], partition: int, shard: ItemShard) -> list[Send]:
        """Popularity of some items: absolute values, so that a repeat does no harm."""
        space = self.space
        parts = [items[start : start + STRONGEST] for start in range(0, len(items), STRONGEST)]
        records = [
            Popular(
                partition,
                shard.applied,
                shard.newest + YEAR_2000_S,
                space.ids.texts(part),
                space.trend[part].tolist(),
                space.trend_epoch[part].tolist(),
                space.category_names(part),
            )
            for part in parts
        ]
        return [Send("global", encode_global(record), partition=0) for record in records]

    def copy(self, partition: int) -> Copying:
        """Begin a copy of the shard's rows, popularity and marks, with the ids of the items it refers to."""
        return self.shards[partition].copy(self.space, partition)

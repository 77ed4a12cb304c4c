"""What an item shard keeps beside the shared rows, and how all of it gets into a snapshot and back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.conversion import redecayed_rows, resized_rows
from models.neighbour_rows import NO_ROW, NeighbourRows, RowArrays
from models.nesting import part, prefixed
from models.references import translate
from models.vocabulary import Vocabulary
from stream.copying import Changes, Copying, Rows, Source, Used, facts, spans, texts_of
from stream.errors import ConfigurationError
from stream.stages.space import ItemSpace

ITEM_COLUMNS: Final = ("item", "step_item")  # of the rows: hold indices of items


class ItemShard:
    """State of a shard that is not in the shared rows: marks per source partition, newest event time, how many rows."""

    def __init__(self, sources: int) -> None:
        self.marks = np.full(sources, -1, dtype=np.int64)
        self.newest = 0
        self.rows = 0
        self.applied = -1
        self.counts: Counter[str] = Counter()
        self.turned: set[int] = set()  # items withdrawn or brought back since the last publication
        self.changes = Changes()

    def copy(self, space: ItemSpace, partition: int) -> Copying:
        """Begin a copy of the rows, popularity and marks of a partition, with the ids of the items it refers to."""
        used = Used(space.ids)
        self.changes.watch()

        def see(name: str, piece: NDArray[Any]) -> None:
            if name == "mine" or name.rpartition(".")[2] in ITEM_COLUMNS:
                used.add(piece)

        def still() -> dict[str, Source]:
            mine, changed = of_partition(space, partition), self.changes.take()
            kept = space.rows.arrays.row[changed] != NO_ROW
            told = {"newest": self.newest, "applied": self.applied, "counts": dict(self.counts)}
            told["half_life_s"] = space.rows.half_life_s
            return {
                "dropped": Rows(changed[~kept]),
                "changed": Rows(changed[kept]),
                **prefixed("changed", _columns(space.rows, changed[kept])),
                **prefixed("categories", {name: Rows(array) for name, array in space.categories.arrays().items()}),
                "mine": Rows(mine),
                **prefixed("items", used.sources()),
                "trend": Rows(space.trend, mine),
                "trend_epoch": Rows(space.trend_epoch, mine),
                "visited": Rows(space.visited, mine),
                "category": Rows(space.category, mine),
                "unpublished": Rows(space.unpublished, mine),
                "untold": Rows(space.untold, mine),
                "marks": Rows(self.marks),
                "facts": facts(told),
            }

        ending = ExitStack()  # no index may go to another item before the ids are copied, which comes last
        ending.enter_context(space.reclaimer.paused())
        ending.callback(self.changes.take)
        items = with_row(space, partition)
        large = {"with_row": Rows(items), **prefixed("rows", _columns(space.rows, items))}
        return Copying(large, still, see, ending.close)

    def restore(self, space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `copy` gave, translated to the items of this process and converted to its settings."""
        if len(arrays["marks"]) != len(self.marks):
            raise ConfigurationError(
                f"RIVULET_EVENTS_PARTITIONS={len(self.marks)}, but the snapshot was made with {len(arrays['marks'])}:"
                " users belong to partitions by that count, which cannot be changed"
            )
        told = msgspec.json.decode(arrays["facts"].tobytes())
        theirs, ours = arrays["items.codes"], space.encode(texts_of(arrays["items.texts"]))
        kept = ~np.isin(arrays["with_row"], arrays["dropped"])
        before = {name: column[kept] for name, column in part(arrays, "rows").items()}
        for items, rows in ((arrays["with_row"][kept], before), (arrays["changed"], part(arrays, "changed"))):
            for column in (items, *(rows[name] for name in ITEM_COLUMNS)):
                translate(column, theirs, ours)
            space.rows.insert(items, _converted(space, rows, told))
        mine, category = arrays["mine"], arrays["category"]
        translate(mine, theirs, ours)
        names = Vocabulary.from_arrays(part(arrays, "categories"))
        known = np.arange(names.size, dtype=np.int32)
        translate(category, known, space.encode_categories(names.texts(known)))
        space.file(mine, category)
        for name in ("trend", "trend_epoch", "visited", "unpublished", "untold"):
            getattr(space, name)[mine] = arrays[name]
        self.rows = int((space.rows.arrays.row[mine] != NO_ROW).sum())
        self.marks = arrays["marks"]
        self.newest, self.applied = told["newest"], told["applied"]
        self.counts.update(told["counts"])


def with_row(space: ItemSpace, partition: int) -> NDArray[np.int32]:
    """Items of a shard that have a row."""
    size = space.ids.size
    mine = space.partition[:size] == partition
    return np.flatnonzero(mine & (space.rows.arrays.row[:size] != NO_ROW)).astype(np.int32)


def of_partition(space: ItemSpace, partition: int) -> NDArray[np.int32]:
    """Items of a shard."""
    return np.flatnonzero(space.partition[: space.ids.size] == partition).astype(np.int32)


def _converted(space: ItemSpace, rows: dict[str, NDArray[Any]], told: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Rows of a snapshot under the present settings."""
    now = space.rows
    neighbours, transitions = now.arrays.item.shape[1], now.arrays.step_item.shape[1]
    before_s = told.get("half_life_s", now.half_life_s)
    return resized_rows(redecayed_rows(rows, before_s, now.half_life_s, told["newest"]), neighbours, transitions)


class _RowsOf(NamedTuple):
    """One array of some items' rows; rows may move, so each slice is looked up when its turn comes."""

    rows: NeighbourRows
    name: str
    items: NDArray[np.int32]

    def slices(self) -> Iterator[NDArray[Any]]:
        """See `Source`."""
        array = getattr(self.rows.arrays, self.name)
        for span in spans(len(self.items), array.nbytes // max(len(array), 1)):
            arrays = self.rows.arrays
            yield getattr(arrays, self.name)[arrays.row[self.items[span]]]


def _columns(rows: NeighbourRows, items: NDArray[np.int32]) -> dict[str, Source]:
    """The rows of some items, as `NeighbourRows.extract` gives them at once."""
    return {name: _RowsOf(rows, name, items) for name in RowArrays._fields[1:]}

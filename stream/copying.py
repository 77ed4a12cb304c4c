"""A shard's state, copied slice by slice while the shard goes on learning, and exact all the same.

Copying a shard of a million users at a standstill stops it for a third of a second; in one piece it holds the event
loop as long. So the large arrays with one row per user or item (`Copying.bulk`) are copied first, between batches,
while `Changes` notes which rows change. Then, at a standstill (`Copying.rest`), those few rows are copied again with
everything else that is small. Whoever reads it puts the second over the first (`renewed`): the state at the
standstill. Only a slice of the large arrays is in memory twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.references import mark_used
from models.vocabulary import Vocabulary, grown

SLICE_BYTES: Final = 1 << 20  # 0.2-0.4 ms to copy
SLICE_IDS: Final = 10_000
AGAIN: Final = "again."
ROWS: Final = "again.rows"

Arrays = Mapping[str, NDArray[Any]]
Piece = tuple[str, NDArray[Any]]


class Source(Protocol):
    """Something that can be copied slice by slice."""

    def slices(self) -> Iterator[NDArray[Any]]:
        """Copies of one slice after another, at least one; each is taken when it is asked for."""


def spans(rows: int, row_bytes: int) -> Iterator[slice]:
    """Where slices of an array begin and end; one empty slice of an empty array."""
    step = max(SLICE_BYTES // max(row_bytes, 1), 1)
    return (slice(start, start + step) for start in range(0, max(rows, 1), step))


class Rows(NamedTuple):
    """An array, or some rows of it."""

    array: NDArray[Any]
    chosen: NDArray[Any] | None = None

    def slices(self) -> Iterator[NDArray[Any]]:
        """See `Source`."""
        array, chosen = self.array, self.chosen
        for span in spans(len(array) if chosen is None else len(chosen), array.nbytes // max(len(array), 1)):
            yield _own(array[span]) if chosen is None else array[chosen[span]]


def _own(array: NDArray[Any]) -> NDArray[Any]:
    """A copy in pages of its own: freeing a heap of slices at its end held the loop for 3 ms per 60 MB."""
    if not len(array):
        return array.copy()
    copy = grown(array[:0], len(array))
    copy[:] = array
    return copy


class Texts(NamedTuple):
    """Ids behind some indices, each followed by a NUL."""

    vocabulary: Vocabulary
    chosen: NDArray[np.int32]

    def slices(self) -> Iterator[NDArray[Any]]:
        """See `Source`."""
        for start in range(0, max(len(self.chosen), 1), SLICE_IDS):
            yield self.vocabulary.joined(self.chosen[start : start + SLICE_IDS])


class Later(NamedTuple):
    """A source that is made when its turn comes."""

    made: Callable[[], Source]

    def slices(self) -> Iterator[NDArray[Any]]:
        """See `Source`."""
        return self.made().slices()


def facts(values: Mapping[str, Any]) -> Rows:
    """Few plain values as a source: JSON."""
    return Rows(np.frombuffer(msgspec.json.encode(values), dtype=np.uint8))


class Changes:
    """Which rows changed since somebody began to watch: one byte per row while somebody does, else nothing.

    Examples
    --------
    >>> changes = Changes()
    >>> changes.add(np.array([1]))
    >>> changes.watch()
    >>> changes.add(np.array([5, 2, 5]))
    >>> changes.take().tolist()
    [2, 5]
    """

    def __init__(self) -> None:
        self._flags: NDArray[np.bool_] | None = None

    def watch(self) -> None:
        """Begin; what was noted before is forgotten."""
        self._flags = np.zeros(0, dtype=np.bool_)

    def add(self, rows: NDArray[np.integer[Any]]) -> None:
        """Note rows that have changed or are about to."""
        if self._flags is not None and len(rows):
            self._flags = grown(self._flags, int(rows.max()) + 1)
            self._flags[rows] = True

    def take(self) -> NDArray[np.int32]:
        """The rows noted, rising; ends watching."""
        flags, self._flags = self._flags, None
        return np.zeros(0, dtype=np.int32) if flags is None else np.flatnonzero(flags).astype(np.int32)


class Used:
    """Which ids a copy refers to: only these go into the snapshot, however many its process knows."""

    def __init__(self, ids: Vocabulary) -> None:
        self._ids = ids
        self._flags = np.zeros(0, dtype=np.bool_)

    def add(self, indices: NDArray[np.int32]) -> None:
        """Note indices; negative ones stand for nothing."""
        self._flags = grown(self._flags, self._ids.size)
        mark_used(indices, self._flags)

    def codes(self) -> NDArray[np.int32]:
        """The indices noted so far, rising; cells that are not in use may hold indices that nobody has any more."""
        noted = np.flatnonzero(self._flags[: self._ids.size]).astype(np.int32)
        return noted[self._ids.spans[noted] >= 0]

    def sources(self) -> dict[str, Source]:
        """The ids with their indices, as they are when these sources' turn comes; `texts_of` reads them."""
        return {"codes": Later(lambda: Rows(self.codes())), "texts": Later(lambda: Texts(self._ids, self.codes()))}


def texts_of(joined: NDArray[np.uint8]) -> list[str]:
    """Ids of a `Texts` source."""
    return joined.tobytes().decode().split("\0")[:-1]


@dataclass(slots=True)
class Copying:
    """A copy under way; `end` it in any case.

    Parameters
    ----------
    large
        Arrays whose rows may go on changing, as they are now.
    still
        Called once, at a standstill: everything else, and what to put over the large arrays.
    see
        Called with the name of each piece and the piece, before the next is copied.
    end
        Stop noting changes; may be called twice.
    """

    large: Mapping[str, Source]
    still: Callable[[], Mapping[str, Source]]
    see: Callable[[str, NDArray[Any]], None] = lambda _name, _piece: None
    end: Callable[[], object] = lambda: None

    def bulk(self) -> Iterator[Piece]:
        """Pieces of the large arrays; batches may be learned between two."""
        return self._pieces(self.large)

    def rest(self) -> Iterator[Piece]:
        """All other pieces; nothing may change from the first to the last."""
        return self._pieces(self.still())

    def _pieces(self, sources: Mapping[str, Source]) -> Iterator[Piece]:
        for name, source in sources.items():
            for piece in source.slices():
                self.see(name, piece)
                yield name, piece

    def whole(self) -> dict[str, NDArray[Any]]:
        """Everything at once, as a snapshot would give it back."""
        arrays: dict[str, list[NDArray[Any]]] = {}
        for name, piece in [*self.bulk(), *self.rest()]:
            arrays.setdefault(name, []).append(piece)
        self.end()
        return {name: np.concatenate(parts) for name, parts in arrays.items()}


def again(columns: Arrays, rows: NDArray[np.int32]) -> dict[str, Source]:
    """Rows to put over those that were copied before they changed."""
    return {ROWS: Rows(rows), **{AGAIN + name: Rows(array, rows) for name, array in columns.items()}}


def renewed(arrays: Arrays, name: str, rows: int) -> NDArray[Any]:
    """A large array as it was at the standstill, with so many rows; changed in place where it is long enough."""
    array = grown(arrays[name], rows, step=1.0)[:rows]
    array[arrays[ROWS]] = arrays[AGAIN + name]
    return array

"""Internal records: what crosses between the stages on topics ``covisits``, ``global`` and ``models``.

No process-local index ever leaves a process: every record has a table of its distinct ids (UTF-8) and refers to it by
position. The layout is versioned by its first four bytes; columns follow each other, eight-byte aligned.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate, repeat
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.covisitation import Deltas
from models.vocabulary import Vocabulary
from stream.packing import HEADER_BYTES, MAGIC, Origin, aligned, pack_targets
from stream.text import Texts

# Control records of topic `covisits`. The first is done when it is read: who waits for that may rank anew. The second
# is done little by little: a shard of many rows may take seconds to publish, and is not held up meanwhile.
FLUSH: Final = b"RVF1"  # publish every row's neighbours
DOUBT: Final = b"RVD1"  # publish them in the next rounds: what Redis has may be older

_HEADER: Final = struct.Struct("<4siqqiiiii")
assert _HEADER.size == HEADER_BYTES
# Of a record's columns; what an item partition works with has other types in part.
_COLUMNS: Final = tuple(map(np.dtype, ("<i4", "<f4", "<u4", "<i8", "<u4", "<i4", "<i4", "<i4", "<f4", "?")))


class WireError(ValueError):
    """An internal record that this version cannot read."""


class CovisitRecord(NamedTuple):
    """A decoded record of topic ``covisits``.

    `source`: partition of topic ``events``; the record holds every delta for this target in the source offsets
    ``(low, high]``; `offset` and `index` identify each visit's event; `category` is a position in `categories` or -1.
    Deltas refer to `items` by position.
    """

    source: int
    low: int
    high: int
    items: list[str]
    categories: list[str]
    deltas: Deltas
    offset: NDArray[np.int64]
    index: NDArray[np.int64]  # type: ignore[assignment]  # the field's name outweighs tuple.index
    category: NDArray[np.int32]


def pack_covisits(
    deltas: Deltas,
    origin: Origin,
    source: int,
    lows: NDArray[np.int64],
    high: int,
    partition: NDArray[np.int32],
    items: Vocabulary,
    categories: Vocabulary,
) -> list[bytes | None]:
    """Pack what each item partition needs of a batch of deltas.

    Parameters
    ----------
    deltas, origin
        What a batch taught, by process-local index, and where each visit comes from.
    source, lows, high
        Partition of topic ``events`` and, per target, the source offsets ``(low, high]`` its record accounts for.
    partition
        The item partition (target) of each item index.
    items, categories
        Vocabularies behind the indices.

    Returns
    -------
    list[bytes | None]
        Per target the record's value, or None where nothing of the batch belongs to it.

    Notes
    -----
    About 10 us, and per target 1 us plus 10 ns per pair and 30 ns per distinct item.
    """
    out, bounds = pack_targets(deltas, origin, (source, high), lows, partition, Texts.of(items), Texts.of(categories))
    return [out[a:b].tobytes() if b > a else None for a, b in bounds.tolist()]


def unpack_covisits(value: bytes) -> CovisitRecord:
    """Read a record of topic ``covisits``.

    Raises
    ------
    WireError
        If the record is of another version, or cut short.
    """
    if value[:4] != MAGIC or len(value) < _HEADER.size:
        raise WireError(f"a covisits record starts with {value[:4]!r}, this version reads {MAGIC!r}")
    _, source, low, high, visits, pairs, item_size, category_size, categories = _HEADER.unpack_from(value)
    lengths = (visits, visits, visits, visits, visits, visits, visits + 1, pairs, pairs, pairs)
    at = aligned(_HEADER.size + item_size + category_size)
    ends = list(accumulate((aligned(n * d.itemsize) for n, d in zip(lengths, _COLUMNS, strict=True)), initial=at))
    if min(visits, pairs, item_size, category_size) < 0 or ends[-1] != len(value):
        raise WireError(f"a covisits record of {len(value)} bytes is cut short")
    columns = map(np.frombuffer, repeat(value), _COLUMNS, lengths, ends)
    labelled = _HEADER.size + item_size
    names = value[_HEADER.size : labelled].decode().split("\0")
    labels = value[labelled : labelled + category_size].decode().split("\0") if categories else []
    item, weight, ts, offset, index, category, start, other, pull, step = columns
    # start and step are copied for `since`, which makes a start of its own: of whole records and of parts the kernels
    # would otherwise see other types, and compile in the middle of a recovery
    deltas = Deltas(item, weight, ts, np.arange(visits, dtype=np.int32), start.copy(), other, pull, step.copy())
    return CovisitRecord(source, low, high, names, labels, deltas, offset, index, category)


def since(record: CovisitRecord, mark: int) -> CovisitRecord:
    """The part of a record whose source offsets are above `mark` (offsets rise within a record)."""
    first = int(np.searchsorted(record.offset, mark, side="right"))
    if first == 0:
        return record
    return record._replace(
        deltas=_visits(record.deltas, first, len(record.offset)),
        offset=record.offset[first:],
        index=record.index[first:],
        category=record.category[first:],
    )


def joined(records: Sequence[CovisitRecord]) -> CovisitRecord:
    """Records, one at least, as one that teaches the same; its source and offsets are the last one's."""
    if len(records) == 1:
        return records[0]
    deltas = [record.deltas for record in records]
    item_at = _starts([len(record.items) for record in records])
    pair_at = _starts([len(d.other) for d in deltas])
    label_at = _starts([len(record.categories) for record in records])
    category = [np.where(r.category < 0, -1, r.category + at) for r, at in zip(records, label_at, strict=False)]
    starts = [d.start[:-1] + at for d, at in zip(deltas, pair_at, strict=False)]
    item = np.concatenate([d.item + at for d, at in zip(deltas, item_at, strict=False)])
    return records[-1]._replace(
        items=[item for record in records for item in record.items],
        categories=[label for record in records for label in record.categories],
        deltas=Deltas(
            item,
            np.concatenate([d.weight for d in deltas]),
            np.concatenate([d.ts for d in deltas]),
            np.arange(len(item), dtype=np.int32),
            np.concatenate([*starts, pair_at[-1:]]),
            np.concatenate([d.other + at for d, at in zip(deltas, item_at, strict=False)]),
            np.concatenate([d.pull for d in deltas]),
            np.concatenate([d.step for d in deltas]),
        ),
        offset=np.concatenate([record.offset for record in records]),
        index=np.concatenate([record.index for record in records]),
        category=np.concatenate(category),
    )


def _starts(lengths: list[int]) -> NDArray[np.int32]:
    """Where each part begins when they follow each other, and where the last one ends."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)


def _visits(d: Deltas, first: int, end: int) -> Deltas:
    """Some visits with their pairs."""
    pairs = slice(int(d.start[first]), int(d.start[end]))
    start = (d.start[first : end + 1] - d.start[first]).astype(np.int32)
    visits = slice(first, end)
    return Deltas(
        d.item[visits],
        d.weight[visits],
        d.ts[visits],
        d.source[visits],
        start,
        d.other[pairs],
        d.pull[pairs],
        d.step[pairs],
    )


def middle(offset: NDArray[np.int64]) -> int:
    """Where rising offsets are best cut in two, so that equal ones stay together; 0 if all are equal.

    Examples
    --------
    >>> middle(np.array([1, 2, 2, 2, 3])), middle(np.array([5, 5]))
    (1, 0)
    """
    half = len(offset) // 2
    cuts = (int(np.searchsorted(offset, offset[half], side)) for side in ("left", "right"))
    return next((cut for cut in cuts if 0 < cut < len(offset)), 0)


def parts(deltas: Deltas, origin: Origin) -> list[tuple[Deltas, Origin]]:
    """Deltas in two parts between two source records; in one if all come from the same."""
    at, size = middle(origin.offset), len(origin.offset)
    spans = [(0, at), (at, size)] if at else [(0, size)]
    return [(_visits(deltas, a, b), Origin._make(column[a:b] for column in origin)) for a, b in spans]


class Popular(msgspec.Struct, frozen=True, array_like=True, tag="popular"):
    """Absolute popularity of items touched since the last record of an item shard; a later one replaces it."""

    source: int
    offset: int
    ts: int
    items: list[str]
    values: list[float]
    epochs: list[int]
    categories: list[str]


class Profiled(msgspec.Struct, frozen=True, array_like=True, tag="profiled"):
    """Sampled profiles of a user shard: numbers by row, category weights by name, and the item that was touched.

    `source` and `offset` (of each sample's event, rising) are the identity by which a repeated sample is known.
    """

    source: int
    offset: list[int]
    ts: list[int]
    numbers: list[list[float]]
    channel: list[int]
    affinities: list[dict[str, float]]
    items: list[str]
    weights: list[float]


class Weighed(msgspec.Struct, frozen=True, array_like=True, tag="weighed"):
    """Weights of a user shard's blend after the record at an offset: absolute values; a later one replaces them."""

    source: int
    offset: int
    lessons: int
    weight: list[list[float]]
    square: list[list[float]]


class BlendModel(msgspec.Struct, frozen=True, kw_only=True):
    """Mean of the shards' weights: value of record ``blend`` on topic ``models``; see `models.weight_averaging`."""

    version: int
    lessons: int
    weight: list[list[float]]
    square: list[list[float]]
    heard: dict[int, int] = {}  # by partition of `events`, the offset at which its opinion was sent


decode_blend: Final = msgspec.json.Decoder(BlendModel).decode
GlobalRecord = Popular | Profiled | Weighed
encode_global: Final = msgspec.msgpack.Encoder().encode
_decode_global: Final = msgspec.msgpack.Decoder(GlobalRecord).decode


def decode_global(value: bytes) -> GlobalRecord:
    """Read a record of topic ``global``.

    Raises
    ------
    WireError
        If it is not one of this version.
    """
    try:
        record: GlobalRecord = _decode_global(value)
    except msgspec.MsgspecError as error:
        raise WireError(f"a record of topic global: {error}") from error
    return record

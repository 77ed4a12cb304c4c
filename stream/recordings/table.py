"""Whole recordings as columns, for models that are evaluated on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.events import timestamp_us
from stream.recordings.columns import CHUNK, NAMES, Row, checked, csv_chunks
from stream.recordings.files import bad, kind_of, opened
from stream.recordings.reading import json_events, open_recording


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole recording as columns, one entry per event and item, in order.

    Attributes
    ----------
    key
        Index of the query key by first appearance: user and session where there is a session, else the user.
    item
        Index into `item_ids`.
    ts_ms
        Unix milliseconds.
    kind
        Index into `kinds`.
    value
        Rating or price, NaN where empty.
    item_ids, kinds
        Item ids and event names (of our schema) by first appearance.
    keys
        Number of different keys.
    visitors
        User and session (either may be empty) of each key.
    """

    key: NDArray[np.int32]
    item: NDArray[np.int32]
    ts_ms: NDArray[np.int64]
    kind: NDArray[np.int16]
    value: NDArray[np.float64]
    item_ids: list[str]
    kinds: list[str]
    keys: int
    visitors: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.key)


def read_table(path: str | Path, progress: Callable[[int], None] | None = None) -> Recording:
    """Read a whole recording into columns.

    Parameters
    ----------
    path
        As for `open_recording`.
    progress
        Called with the number of rows read so far, about every 50,000.

    Returns
    -------
    Recording
        The columns. A JSON event with several items gives one entry each, one without items none.

    Raises
    ------
    BadInputError
        As `open_recording`.

    Notes
    -----
    About 2 us per CSV row; 30 bytes per row and about 150 per distinct id.
    """
    name = str(path)
    builder = _Builder(name)
    for lines, rows in _chunks(name):
        builder.add(lines, rows)
        if progress:
            progress(builder.rows)
    return builder.finish()


def _chunks(name: str) -> Iterator[tuple[Sequence[int], list[Row]]]:
    kind = kind_of(name)
    if kind == "parquet":
        yield from _json_chunks(name, map(msgspec.json.encode, open_recording(name)))
        return
    with opened(name) as file:
        yield from csv_chunks(name, file) if kind == "csv" else _json_chunks(name, file)


class _Builder:
    """Interns and collects rows, a chunk at a time: column-wise comprehensions are twice as fast as row-wise code."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows = 0
        self.keys: dict[tuple[str, str], int] = {}
        self.items: dict[str, int] = {}
        self.kinds: dict[str, int] = {}
        self.parts: list[tuple[NDArray[Any], ...]] = []

    def add(self, lines: Sequence[int], rows: list[Row]) -> None:
        keys, ids, kinds = self.keys, self.items, self.kinds
        empty = np.full(len(rows), np.nan)
        try:
            ts, users, sessions, items, types, values = zip(*rows, strict=True)
            part = (
                np.array([keys.setdefault(pair, len(keys)) for pair in zip(users, sessions, strict=True)], np.int32),
                np.array([ids.setdefault(item, len(ids)) for item in items], np.int32),
                np.array(list(map(int, ts)), np.int64),
                np.array([kinds.setdefault(kind, len(kinds)) for kind in types], np.int16),
                np.array([float(value) if value else np.nan for value in values] if any(values) else empty, np.float64),
            )
        except (ValueError, OverflowError):
            self._blame(lines, rows)
            raise
        if ("", "") in keys or "" in ids or "" in kinds:
            self._blame(lines, rows)
        self.parts.append(part)
        self.rows += len(rows)

    def _blame(self, lines: Sequence[int], rows: list[Row]) -> None:
        for line, row in zip(lines, rows, strict=True):
            checked(self.name, line, row)

    def finish(self) -> Recording:
        dtypes = (np.int32, np.int32, np.int64, np.int16, np.float64)
        columns = zip(*self.parts, strict=True) if self.parts else [()] * 5
        key, item, ts, kind, value = (
            np.concatenate([np.empty(0, dtype), *column]) for column, dtype in zip(columns, dtypes, strict=True)
        )
        # two spellings of one type are one kind
        names = [NAMES.get(kind, kind) for kind in self.kinds]
        unique = list(dict.fromkeys(names))
        kind = np.array([unique.index(n) for n in names], dtype=np.int16)[kind] if names else kind
        return Recording(key, item, ts, kind, value, list(self.items), unique, len(self.keys), list(self.keys))


def _json_chunks(name: str, file: Iterable[bytes]) -> Iterator[tuple[Sequence[int], list[Row]]]:
    source = _json_rows(name, file)
    while chunk := list(islice(source, CHUNK)):
        yield [line for line, _ in chunk], [row for _, row in chunk]


def _json_rows(name: str, file: Iterable[bytes]) -> Iterator[tuple[int, Row]]:
    for line, event in json_events(name, file):
        if event.event_timestamp is None:
            raise bad(name, line, "event_timestamp", "is missing")
        ts = str(timestamp_us(event.event_timestamp) // 1000)
        user, session = event.user or "", str(event.session_id) if event.session_id is not None else ""
        value = str(event.value) if event.value is not None else ""
        if event.items:
            for item in event.items:
                price = str(item.price) if item.price is not None else value
                yield line, [ts, user, session, item.item_id, event.event_name, price]
        elif event.item_id:
            yield line, [ts, user, session, event.item_id, event.event_name, value]

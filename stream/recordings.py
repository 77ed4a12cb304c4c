"""Recorded streams: JSON Lines in the event schema, or CSV with the columns ``ts,user,session,item,type,value``.

``ts`` is unix milliseconds; ``session``, ``value`` and (where there is a session) ``user`` may be empty. Files whose
name ends in ``.gz`` are decompressed; ``-`` is JSON Lines from standard input.
"""

from __future__ import annotations

import csv
import gzip
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import BadInputError
from stream.events import Event, timestamp_us

COLUMNS: Final = ["ts", "user", "session", "item", "type", "value"]
NAMES: Final = {
    "view": "view_item",
    "cart": "add_to_cart",
    "fav": "add_to_wishlist",
    "purchase": "purchase",
    "return": "refund",
    "rating": "rate",
}
CHUNK: Final = 50_000
Row = list[str]  # one text per column


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


def open_recording(path: str | Path) -> Iterator[dict[str, Any]]:
    """Events of a recording, one by one, in our schema.

    Parameters
    ----------
    path
        ``.csv``, ``.csv.gz``, ``.jsonl``, ``.jsonl.gz`` or ``-`` (JSON Lines from standard input).

    Yields
    ------
    dict
        The event. From CSV: types get their names in our schema (others stay), a rating becomes ``value``, any other
        value the item's ``price``, and an empty user becomes the session's id. No ``event_id`` is made up: a
        worker derives one from the record's place. JSON objects are passed on as they are once they fit the schema.

    Raises
    ------
    BadInputError
        If the file cannot be read, is of an unknown kind, or a line is not valid; names file, line and field.
    """
    name = str(path)
    with opened(name) as file:
        if _is_csv(name):
            for lines, rows in _csv_chunks(name, file):
                for line, row in zip(lines, rows, strict=True):
                    yield _event(name, line, row)
        else:
            for line, raw in enumerate(file, 1):
                if not raw.isspace():
                    _decoded(name, line, raw)
                    yield msgspec.json.decode(raw)


def lines_of(path: str | Path) -> Iterator[tuple[int, bytes | BadInputError]]:
    """Lines of a file as they would be sent, not judged.

    Parameters
    ----------
    path
        As for `open_recording`; a CSV may have other columns.

    Yields
    ------
    tuple
        Line number and JSON; a row of a CSV with other columns as it stands, and the error of one that is no event.

    Raises
    ------
    BadInputError
        If the file cannot be read or is of an unknown kind.
    """
    name = str(path)
    with opened(name) as file:
        lines = enumerate(file, 1)
        if _is_csv(name):
            header = next(lines, (1, b""))[1]
            if header.strip().decode(errors="replace").split(",") == COLUMNS:
                for line, raw in lines:
                    yield line, _row_json(name, line, raw)
                return
            yield 1, header.rstrip(b"\r\n")
        for line, raw in lines:
            if not raw.isspace():
                yield line, raw.rstrip(b"\r\n")


def _row_json(name: str, line: int, raw: bytes) -> bytes | BadInputError:
    try:
        return msgspec.json.encode(_event(name, line, next(csv.reader([raw.decode()]), [])))
    except BadInputError as error:
        return error
    except (csv.Error, UnicodeDecodeError) as error:
        return _bad(name, line, "row", str(error))


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
    with opened(name) as file:
        builder = _Builder(name)
        for lines, rows in _csv_chunks(name, file) if _is_csv(name) else _json_chunks(name, file):
            builder.add(lines, rows)
            if progress:
                progress(builder.rows)
    return builder.finish()


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
            _checked(self.name, line, row)

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


def _bad(name: str, line: int, field: str, problem: str) -> BadInputError:
    return BadInputError(f"{name}, line {line}, {field}: {problem}")


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file of CSV or JSON Lines, decompressed; what cannot be read is a `BadInputError`."""
    if not (name == "-" or name.removesuffix(".gz").endswith((".csv", ".jsonl", ".ndjson"))):
        raise BadInputError(f"{name}: not .csv, .csv.gz, .jsonl, .jsonl.gz or -")
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        with gzip.open(name) if name.endswith(".gz") else open(name, "rb") as file:
            yield file  # type: ignore[misc]  # GzipFile reads bytes, but is not declared as a BinaryIO
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _is_csv(name: str) -> bool:
    return name.removesuffix(".gz").endswith(".csv")


def _csv_chunks(name: str, file: BinaryIO) -> Iterator[tuple[Sequence[int], list[Row]]]:
    """Line numbers and rows, many at once: per-row generators would take longer than parsing."""
    reader = csv.reader(map(bytes.decode, file))
    try:
        header = next(reader, [])
        if header != COLUMNS:
            raise _bad(name, 1, "header", f"must be {','.join(COLUMNS)}, not {','.join(header)[:80]}")
        first = reader.line_num + 1
        while rows := list(islice(reader, CHUNK)):
            lines: Sequence[int] = range(first, first + len(rows))
            first = reader.line_num + 1
            if [] in rows:
                lines = [line for line, row in zip(lines, rows, strict=True) if row]
                rows = [row for row in rows if row]
            yield lines, rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise _bad(name, reader.line_num, "row", str(error)) from error


def _json_chunks(name: str, file: BinaryIO) -> Iterator[tuple[Sequence[int], list[Row]]]:
    source = _json_rows(name, file)
    while chunk := list(islice(source, CHUNK)):
        yield [line for line, _ in chunk], [row for _, row in chunk]


def _json_rows(name: str, file: BinaryIO) -> Iterator[tuple[int, Row]]:
    for line, raw in enumerate(file, 1):
        if raw.isspace():
            continue
        event = _decoded(name, line, raw)
        if event.event_timestamp is None:
            raise _bad(name, line, "event_timestamp", "is missing")
        ts = str(timestamp_us(event.event_timestamp) // 1000)
        user, session = event.user or "", str(event.session_id) if event.session_id is not None else ""
        value = str(event.value) if event.value is not None else ""
        if event.items:
            for item in event.items:
                price = str(item.price) if item.price is not None else value
                yield line, [ts, user, session, item.item_id, event.event_name, price]
        elif event.item_id:
            yield line, [ts, user, session, event.item_id, event.event_name, value]


_decoder: Final = msgspec.json.Decoder(Event)


def _decoded(name: str, line: int, raw: bytes) -> Event:
    try:
        event = _decoder.decode(raw)
        timestamp_us(event.event_timestamp or 0)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        field = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else "event"
        raise _bad(name, line, field, str(error)) from error
    except (ValueError, OverflowError) as error:
        raise _bad(name, line, "event_timestamp", str(error)) from error
    if event.user is None:
        raise _bad(name, line, "user_id", "user_id or user_pseudo_id is needed")
    return event


def _checked(name: str, line: int, row: Row) -> tuple[int, float | None]:
    """Time and value of a row; raises for the first field that is not valid."""
    if len(row) != len(COLUMNS):
        raise _bad(name, line, "row", f"{len(COLUMNS)} fields are needed, not {len(row)}")
    ts, user, session, item, kind, value = row
    if not (user or session):
        raise _bad(name, line, "user", "is empty, and so is the session")
    for field, text in (("item", item), ("type", kind)):
        if not text:
            raise _bad(name, line, field, "is empty")
    try:
        ms = int(ts)
        np.int64(ms)
    except (ValueError, OverflowError):
        raise _bad(name, line, "ts", f"{ts[:40]!r} is not a time in unix milliseconds") from None
    try:
        return ms, float(value) if value else None
    except ValueError:
        raise _bad(name, line, "value", f"{value[:40]!r} is not a number") from None


def _event(name: str, line: int, row: Row) -> dict[str, Any]:
    ms, value = _checked(name, line, row)
    _, user, session, item, kind, _ = row
    event: dict[str, Any] = {"event_name": NAMES.get(kind, kind), "event_timestamp": ms * 1000}
    event["user_id" if user else "user_pseudo_id"] = user or session
    if session:
        event["session_id"] = session
    if value is None or kind == "rating":
        event["item_id"] = item
        if value is not None:
            event["value"] = value
    else:
        event["items"] = [{"item_id": item, "price": value}]
    return event

"""Our CSV: columns ``ts,user,session,item,type,value`` and the event of a row.

``ts`` is unix milliseconds; ``session``, ``value`` and (where there is a session) ``user`` may be empty.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

import numpy as np

from stream.recordings.files import OnBad, bad

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


def csv_rows(name: str, file: Iterable[bytes], on_bad: OnBad) -> Iterator[tuple[int, Row]]:
    """Rows of any CSV with the number of their last line; blank lines are left out, lines that are no CSV told."""
    texts = _Texts(file)
    reader = csv.reader(texts)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except (csv.Error, UnicodeDecodeError) as error:
            on_bad(bad(name, texts.line, "row", str(error)))
            continue
        if row:
            yield texts.line, row


class _Texts:
    """Lines as text, counted; unlike a generator it goes on after a line that is none."""

    def __init__(self, file: Iterable[bytes]) -> None:
        self._lines = iter(file)
        self.line = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = next(self._lines)
        self.line += 1
        return raw.decode("utf-8-sig" if self.line == 1 else "utf-8")  # spreadsheets begin with a byte-order mark


def check_header(name: str, header: Row) -> None:
    """Refuse other columns than ours."""
    if header != COLUMNS:
        found = ",".join(header)[:80]
        raise bad(
            name, 1, "header", f"must be {','.join(COLUMNS)}, not {found}; `rivulet replay --map` takes other columns"
        )


def csv_chunks(name: str, file: Iterable[bytes]) -> Iterator[tuple[Sequence[int], list[Row]]]:
    """Line numbers and rows, many at once: per-row generators would take longer than parsing."""
    reader = csv.reader(map(bytes.decode, file))
    try:
        check_header(name, next(reader, []))
        first = reader.line_num + 1
        while rows := list(islice(reader, CHUNK)):
            lines: Sequence[int] = range(first, first + len(rows))
            first = reader.line_num + 1
            if [] in rows:
                lines = [line for line, row in zip(lines, rows, strict=True) if row]
                rows = [row for row in rows if row]
            yield lines, rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise bad(name, reader.line_num, "row", str(error)) from error


def checked(name: str, line: int, row: Row) -> tuple[int, float | None]:
    """Time and value of a row; raises for the first field that is not valid."""
    if len(row) != len(COLUMNS):
        raise bad(name, line, "row", f"{len(COLUMNS)} fields are needed, not {len(row)}")
    ts, user, session, item, kind, value = row
    if not (user or session):
        raise bad(name, line, "user", "is empty, and so is the session")
    for field, text in (("item", item), ("type", kind)):
        if not text:
            raise bad(name, line, field, "is empty")
    try:
        ms = int(ts)
        np.int64(ms)
    except (ValueError, OverflowError):
        raise bad(name, line, "ts", f"{ts[:40]!r} is not a time in unix milliseconds") from None
    try:
        return ms, float(value) if value else None
    except ValueError:
        raise bad(name, line, "value", f"{value[:40]!r} is not a number") from None


def event_of(name: str, line: int, row: Row) -> dict[str, Any]:
    """The event of a row."""
    ms, value = checked(name, line, row)
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
        # an amount below 0 (a correction in the books) is no price, and not worth losing the event for
        event["items"] = [{"item_id": item, "price": value} if value >= 0 else {"item_id": item}]
    return event

"""Catalogues beside recordings: a table of items as CSV with a header, or records of topic ``items`` as JSON Lines.

Of a table these columns are read, others are not: ``item`` or ``item_id``, ``title``, ``text`` or ``description``,
``category``, ``brand`` and ``tags`` (with ``|`` between them), ``price`` or ``median_price``.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from models.text_features import Facts
from stream.catalogue import decode_item
from stream.errors import BadInputError
from stream.recordings.files import opened

ID_COLUMNS: Final = ("item", "item_id")


def table_beside(recording: str) -> str | None:
    """The catalogue that belongs to a recording by its name: ``shop.items.csv.gz`` to ``shop.csv.gz``; None if absent.

    Examples
    --------
    >>> table_beside("-") is None
    True
    """
    stem = (
        recording.removesuffix(".gz")
        .removesuffix(".zst")
        .removesuffix(".csv")
        .removesuffix(".jsonl")
        .removesuffix(".ndjson")
    )
    for ending in (".items.csv", ".items.jsonl"):
        for name in (stem + ending, f"{stem}{ending}.gz"):
            if Path(name).is_file():
                return name
    return None


def read_facts(path: str, item_ids: Sequence[str]) -> list[Facts]:
    """What a catalogue says of some items; empty facts where it says nothing.

    Parameters
    ----------
    path
        ``.csv``, ``.csv.gz``, ``.jsonl`` or ``.jsonl.gz``. Of an item's several records the last one counts.
    item_ids
        The items wanted.

    Returns
    -------
    list[Facts]
        One per item, in order.

    Raises
    ------
    BadInputError
        If the file cannot be read or a line is not valid; names file, line and field.
    """
    wanted = {item: n for n, item in enumerate(item_ids)}
    found = [Facts()] * len(item_ids)
    rows = _csv_rows(path) if path.removesuffix(".gz").endswith(".csv") else _json_rows(path)
    for item, facts in rows:
        if item in wanted:
            found[wanted[item]] = facts
    return found


def _csv_rows(path: str) -> Iterator[tuple[str, Facts]]:
    with opened(path) as file:
        reader = csv.DictReader(map(bytes.decode, file))
        try:
            header = reader.fieldnames or ()
            column = next((name for name in ID_COLUMNS if name in header), None)
            if column is None:
                raise BadInputError(f"{path}, line 1, header: needs a column item, not {','.join(header)[:80]}")
            for row in reader:
                yield row[column], _facts(row, f"{path}, line {reader.line_num}")
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadInputError(f"{path}, line {reader.line_num}, row: {error}") from error


def _facts(row: dict[str, str], where: str) -> Facts:
    price = row.get("price") or row.get("median_price") or ""
    try:
        amount = float(price) if price else None
    except ValueError:
        raise BadInputError(f"{where}, price: {price[:40]!r} is not a number") from None
    tags = tuple(tag for tag in (row.get("brand") or "", *(row.get("tags") or "").split("|")) if tag)
    text = row.get("text") or row.get("description") or ""
    known = amount if amount is not None and math.isfinite(amount) else None
    return Facts(row.get("title") or "", text, row.get("category") or "", tags, known)


def _json_rows(path: str) -> Iterator[tuple[str, Facts]]:
    with opened(path) as file:
        for line, raw in enumerate(file, 1):
            if raw.isspace():
                continue
            try:
                item = decode_item(raw)
            except ValueError as error:  # msgspec's errors are, too
                field = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else "item"
                raise BadInputError(f"{path}, line {line}, {field}: {error}") from error
            yield item.item_id, item.facts

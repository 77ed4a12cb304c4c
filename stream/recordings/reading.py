"""Reads recordings one by one: as events of our schema, as lines not judged, or as what a replay publishes."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from stream.adapters.retailrocket import HEADER
from stream.decoding import fields_of
from stream.errors import BadInputError
from stream.events import Event, timestamp_us
from stream.recordings.columns import COLUMNS, check_header, csv_rows, event_of
from stream.recordings.files import Meter, OnBad, bad, kind_of, opened, stop
from stream.recordings.mapping import FieldMap
from stream.recordings.parquet import parquet_rows
from stream.recordings.records import LINE_FAULTS, Raw, decode_line, events_of, is_line, topic_of

AS_THEY_ARE: Final = FieldMap.parse([])

Found = dict[str, Any] | tuple[int, Raw]  # an event, or a record with its partition


class Line(NamedTuple):
    """A line as it would be sent, with a record's headers; the error of one that is no record or row of ours."""

    number: int
    value: bytes | BadInputError
    headers: tuple[tuple[str, bytes], ...] = ()


def open_recording(path: str | Path, on_bad: OnBad = stop) -> Iterator[dict[str, Any]]:
    """Events of a recording, one by one, in our schema.

    Parameters
    ----------
    path
        ``.csv``, ``.jsonl``, each also ``.gz`` or ``.zst``, ``.parquet``, or ``-`` (JSON Lines from standard input).
    on_bad
        Told of each damaged line; if it returns, the line is left out.

    Yields
    ------
    dict
        The event. From CSV: types get their names in our schema (others stay), a rating becomes ``value``, any other
        value the item's ``price``, and an empty user becomes the session's id. No ``event_id`` is made up: a
        worker derives one from the record's place. JSON objects are passed on as they are once they fit the schema.
        From records of a topic: the events that a worker would take, with id and time.

    Raises
    ------
    BadInputError
        If the file cannot be read, is of an unknown kind, or a line is not valid; names file, line and field.
    """
    for _, event in numbered_events(path, on_bad):
        yield event


def numbered_events(path: str | Path, on_bad: OnBad = stop) -> Iterator[tuple[int, dict[str, Any]]]:
    """Events as of `open_recording`, each with the number of its line."""
    for line, found in read(path, on_bad):
        if isinstance(found, dict):
            yield line, found
        else:
            for raw in events_of(*found):
                yield line, fields_of(raw)


def read(
    path: str | Path, on_bad: OnBad = stop, fields: FieldMap | None = None, meter: Meter | None = None
) -> Iterator[tuple[int, Found]]:
    """Events of a file, or records with their partition where it holds records of a topic, with the line's number.

    Parameters
    ----------
    path, on_bad
        As for `open_recording`.
    fields
        Which columns become which fields, for files that are not in our columns or schema.
    meter
        Told of bytes passed.
    """
    name = str(path)
    kind = kind_of(name)
    if kind == "parquet":
        fields = fields or AS_THEY_ARE
        yield from _mapped(name, parquet_rows(name, meter, fields.check), fields, on_bad)
        return
    with opened(name, meter, on_bad) as file:
        if kind == "csv":
            rows = csv_rows(name, file, on_bad)
            header = next(rows, (1, []))[1]
            if fields:
                fields.check(name, header)
                yield from _mapped(name, _named(name, header, rows, on_bad), fields, on_bad)
                return
            check_header(name, header)
            for line, row in rows:
                try:
                    event = event_of(name, line, row)
                except BadInputError as error:
                    on_bad(error)
                else:
                    yield line, event
        else:
            yield from _json(name, file, fields, on_bad)


def lines_of(path: str | Path) -> Iterator[Line]:
    """Lines of a file as they would be sent, not judged.

    Parameters
    ----------
    path
        As for `open_recording`; a CSV may have other columns.

    Yields
    ------
    Line
        JSON; a row of a CSV with other columns as it stands, a record's value with its headers, which may be part of
        the event, and the error of a row of ours that is no event.

    Raises
    ------
    BadInputError
        If the file cannot be read or is of an unknown kind.
    """
    name = str(path)
    kind = kind_of(name)
    if kind == "parquet":
        for line, row in parquet_rows(name):
            yield Line(line, msgspec.json.encode(row))
        return
    with opened(name) as file:
        lines = enumerate(file, 1)
        if kind == "csv":
            header = next(lines, (1, b""))[1]
            if header.strip().decode(errors="replace").split(",") == COLUMNS:
                for line, raw in lines:
                    yield Line(line, _row_json(name, line, raw))
                return
            if header.strip() != HEADER:  # of RetailRocket's files as they are published
                yield Line(1, header.rstrip(b"\r\n"))
        records = None
        for line, raw in lines:
            if not raw.isspace():
                records = is_line(raw) if records is None and kind == "jsonl" else bool(records)
                yield _record(name, line, raw) if records else Line(line, raw.rstrip(b"\r\n"))


def json_events(name: str, file: Iterable[bytes]) -> Iterator[tuple[int, Event]]:
    """Line number and event of JSON Lines, events or records, for those who count."""
    for line, raw in enumerate(file, 1):
        if raw.isspace():
            continue
        if is_line(raw):
            partition, record = decode_line(raw)
            for each in events_of(partition, record):
                yield line, decoded(name, line, each)
        else:
            yield line, decoded(name, line, raw)


_decoder: Final = msgspec.json.Decoder(Event)


def decoded(name: str, line: int, raw: bytes) -> Event:
    """The event of a line; raises for the first field that is not valid."""
    try:
        event = _decoder.decode(raw)
        if event.event_timestamp is not None:
            timestamp_us(event.event_timestamp)
    except LINE_FAULTS as error:
        field = str(error).rpartition("`$.")[2].rstrip("`") if "`$." in str(error) else "event"
        raise bad(name, line, field, str(error)) from error
    except (ValueError, OverflowError) as error:
        raise bad(name, line, "event_timestamp", str(error)) from error
    if event.user is None:
        raise bad(name, line, "user_id", "user_id or user_pseudo_id is needed")
    return event


def _json(name: str, file: Iterable[bytes], fields: FieldMap | None, on_bad: OnBad) -> Iterator[tuple[int, Found]]:
    rest = ((line, raw) for line, raw in enumerate(file, 1) if not raw.isspace())
    first = next(rest, None)
    if first is None:
        return
    lines = chain((first,), rest)
    if is_line(first[1]):
        if not (topic := topic_of(first[1])).endswith("events"):
            raise BadInputError(f"{name}: holds records of topic {topic}, not of events")
        yield from _records(name, lines, on_bad)
    elif fields:
        yield from _mapped(name, _objects(name, lines, on_bad), fields, on_bad)
    else:
        for line, raw in lines:
            try:
                decoded(name, line, raw)
            except BadInputError as error:
                on_bad(error)
                continue
            yield line, fields_of(raw)


def _records(name: str, lines: Iterable[tuple[int, bytes]], on_bad: OnBad) -> Iterator[tuple[int, tuple[int, Raw]]]:
    for line, raw in lines:
        try:
            found = decode_line(raw)
        except LINE_FAULTS as error:
            on_bad(bad(name, line, "record", str(error)))
        else:
            yield line, found


def _objects(name: str, lines: Iterable[tuple[int, bytes]], on_bad: OnBad) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, raw in lines:
        try:
            yield line, msgspec.json.decode(raw, type=dict[str, Any])
        except LINE_FAULTS as error:
            on_bad(bad(name, line, "row", str(error)))


def _named(
    name: str, header: list[str], rows: Iterable[tuple[int, list[str]]], on_bad: OnBad
) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in rows:
        if len(row) == len(header):
            yield line, dict(zip(header, row, strict=True))
        else:
            on_bad(bad(name, line, "row", f"{len(header)} fields are needed, not {len(row)}"))


def _mapped(
    name: str, rows: Iterable[tuple[int, dict[str, Any]]], fields: FieldMap, on_bad: OnBad
) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, row in rows:
        try:
            event = fields.event(name, line, row)
            decoded(name, line, msgspec.json.encode(event))
        except BadInputError as error:
            on_bad(error)
        else:
            yield line, event


def _record(name: str, line: int, raw: bytes) -> Line:
    try:
        _, record = decode_line(raw)
    except LINE_FAULTS as error:
        return Line(line, bad(name, line, "record", str(error)))
    return Line(line, record.value or b"", record.headers)


def _row_json(name: str, line: int, raw: bytes) -> bytes | BadInputError:
    try:
        return msgspec.json.encode(event_of(name, line, next(csv.reader([raw.decode()]), [])))
    except BadInputError as error:
        return error
    except (csv.Error, UnicodeDecodeError) as error:
        return bad(name, line, "row", str(error))

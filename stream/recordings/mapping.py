"""Columns of any table as fields of our events: ``--map column=field`` and ``--set field=value``."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec

from stream.adapters import retailrocket
from stream.errors import BadInputError
from stream.events import Event, Item
from stream.recordings.columns import NAMES

Path = tuple[str, ...]

FIELDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Event))
ITEM_FIELDS: Final = frozenset(field.encode_name for field in msgspec.structs.fields(Item))
OPEN: Final = frozenset(("event_params", "user_properties"))
OBJECTS: Final = OPEN | {"items", "traffic_source", "consent"}
NUMBERS: Final = frozenset(("value", "price", "quantity", "discount", "index"))
ALL_NAMES: Final = {**NAMES, **{theirs.decode(): ours for theirs, ours in retailrocket.NAMES.items()}}


@dataclass(frozen=True, slots=True)
class FieldMap:
    """Which column becomes which field.

    Columns that bear a field's name and are not mapped keep it; all others are dropped. Of ``items`` there is one, its
    fields written ``items.price``; ``event_params.x`` and the like put a column into an object.

    Attributes
    ----------
    columns
        Paths of the fields that a column becomes.
    constants
        Values of fields that no column has.
    """

    columns: Mapping[str, Sequence[Path]]
    constants: Mapping[Path, str]

    @classmethod
    def parse(cls, columns: Sequence[str], constants: Sequence[str] = ()) -> Self:
        """Read ``column=field`` and ``field=value``.

        Raises
        ------
        BadInputError
            If one is not of this form, or there is no such field.

        Examples
        --------
        >>> FieldMap.parse(["when=event_timestamp"], ["event_name=rate"]).event("f", 1, {"when": "1700000000"})
        {'event_name': 'rate', 'event_timestamp': 1700000000}
        """
        mapped = [_halves("--map", "column=field", text) for text in columns]
        fixed = [_halves("--set", "field=value", text) for text in constants]
        paths: dict[str, list[Path]] = {}
        for column, field in mapped:
            paths.setdefault(column, []).append(_path("--map", field))
        return cls(paths, {_path("--set", field): value for field, value in fixed})

    def check(self, name: str, columns: Collection[str]) -> None:
        """Refuse a mapped column that a table does not have."""
        for column in self.columns:
            if column not in columns:
                raise BadInputError(f"{name}: --map: there is no column {column!r}, only {', '.join(columns)[:200]}")

    def event(self, name: str, line: int, row: Mapping[str, Any]) -> dict[str, Any]:
        """The event of a row, its numbers and times as numbers; what is empty is left out."""
        event: dict[str, Any] = {}
        for path, text in self.constants.items():
            _put(event, path, _converted(name, line, path, text))
        for column, value in row.items():
            if value is None or value == "":
                continue
            for path in self.columns.get(column) or ([(column,)] if column in FIELDS else ()):
                _put(event, path, _converted(name, line, path, value))
        if "items" in event and "item_id" in event and isinstance(event["items"], dict):
            event["items"].setdefault("item_id", event.pop("item_id"))
        if isinstance(event.get("items"), dict):
            event["items"] = [event["items"]]
        return event


def _halves(option: str, form: str, text: str) -> tuple[str, str]:
    left, equals, right = text.rpartition("=") if option == "--map" else text.partition("=")
    if not (left and equals and right):
        raise BadInputError(f"{option} takes {form}, not {text!r}")
    return left, right


def _path(option: str, field: str) -> Path:
    path = tuple(field.split("."))
    known = path[0] in FIELDS and (len(path) == 1 or (len(path) == 2 and path[0] in OBJECTS))
    if not known or (path[0] == "items" and (len(path) == 1 or path[1] not in ITEM_FIELDS)):
        raise BadInputError(f"{option}: our events have no field {field!r} (a price is items.price)")
    return path


def _put(event: dict[str, Any], path: Path, value: Any) -> None:
    if len(path) == 1:
        event[path[0]] = value
    else:
        inner = event.setdefault(path[0], {})
        if isinstance(inner, dict):
            inner[path[1]] = value


def _converted(name: str, line: int, path: Path, value: Any) -> Any:
    """A value as the field wants it."""
    field = path[-1]
    if isinstance(value, dt.datetime | dt.date):
        value = value.isoformat()
    if path[0] in OPEN or isinstance(value, list | dict):
        return value
    if field == "event_timestamp":
        return _time(value)
    if field in NUMBERS:
        try:
            return int(value) if field == "index" else float(value)
        except (TypeError, ValueError):
            raise BadInputError(f"{name}, line {line}, {'.'.join(path)}: {str(value)[:40]!r} is not a number") from None
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return ALL_NAMES.get(text, text) if field == "event_name" else text


def _time(value: Any) -> Any:
    """A time; digits are a number, whose magnitude tells its unit. NaN stays text: JSON would make it none."""
    text = str(value).strip().removesuffix(" UTC")
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text

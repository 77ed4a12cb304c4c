"""``rivulet settings``: every setting with its value and where the value comes from."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.cli.common import load_settings, source_of, variable
from stream.redis_address import without_password
from stream.settings import Settings
from stream.settings_file import settings_file


def settings(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print every setting, its value, its source (environment, file or default) and its meaning; no secrets.

    Example: rivulet --settings shop.toml settings
    """
    values = load_settings().model_dump(mode="json")
    values["redis"] = without_password(values["redis"])
    rows = [
        {
            "setting": variable(name),
            "value": values[name],
            "source": source_of(name),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]
    if json:
        typer.echo(msgspec.json.encode(rows).decode())
        return
    file = settings_file()
    table = Table("setting", "value", "source", "meaning", title=f"file: {escape(file)}" if file else None)
    for row in rows:
        table.add_row(*(escape(str(row[column])) for column in ("setting", "value", "source", "meaning")))
    Console().print(table)

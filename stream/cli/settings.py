"""``rivulet settings``: every setting with its value and where the value comes from."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from stream.cli.common import load_settings
from stream.settings import Settings


def settings(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print every setting, its value, its source and its meaning; secrets are not shown."""
    values = load_settings().model_dump(mode="json")
    rows = []
    for name, field in Settings.model_fields.items():
        variable = f"RIVULET_{name.upper()}"
        source = "environment" if variable in os.environ else "default"
        rows.append({"setting": variable, "value": values[name], "source": source, "meaning": field.description or ""})
    if json:
        typer.echo(msgspec.json.encode(rows).decode())
        return
    table = Table("setting", "value", "source", "meaning")
    for row in rows:
        table.add_row(*(str(row[column]) for column in ("setting", "value", "source", "meaning")))
    Console().print(table)

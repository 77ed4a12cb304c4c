"""``rivulet check FILE``: what a file's lines would become, without sending any."""

from __future__ import annotations

import time
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stream.errors import BadInputError
from stream.recordings import lines_of
from stream.verdicts import Verdicts

LOOK_EVERY: Final = 1_000  # lines between two looks at the progress line


def check(
    file: Annotated[str, typer.Argument(help="JSON Lines or CSV, also .gz; - reads JSON Lines from standard input")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what each line of a file would become, by shape and name, and what would be refused and why.

    Ends with exit code 4 if anything would be refused. Example: rivulet check segment-calls.jsonl.gz
    """
    report = Verdicts()
    now_ms = time.time_ns() // 1_000_000
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} lines"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("check", total=None)
        for line, value in lines_of(file):
            if isinstance(value, bytes):
                report.add(line, value, now_ms)
            else:
                report.lines += 1
                report.refuse(line, "schema", str(value))
            if report.lines % LOOK_EVERY == 0:
                progress.update(task, completed=report.lines)
    if json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        report.show(Console())
    if report.refused:
        raise typer.Exit(BadInputError.exit_code)

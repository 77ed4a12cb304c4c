"""``rivulet check FILE``: what a file's lines would become, without sending any."""

from __future__ import annotations

import time
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import TextColumn
from rich.table import Table

from stream.cli.showing import showing
from stream.errors import BadInputError
from stream.recordings import lines_of
from stream.verdicts import Verdicts

LOOK_EVERY: Final = 1_000  # lines between two looks at the progress line


def check(
    file: Annotated[str, typer.Argument(help="JSON Lines, CSV (also .gz, .zst), Parquet; - reads JSON Lines")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what each line of a file would become, by shape and name, and what would be refused and why.

    Ends with exit code 4 if anything would be refused. Example: rivulet check segment-calls.jsonl.gz
    """
    report = Verdicts()
    now_ms = time.time_ns() // 1_000_000
    with showing(TextColumn("{task.completed:,.0f} lines")) as progress:
        task = progress.add_task("check", total=None)
        for line, value, headers in lines_of(file):
            if isinstance(value, bytes):
                report.add(line, value, now_ms, headers)
            else:
                report.lines += 1
                report.refuse(line, "schema", str(value))
            if report.lines % LOOK_EVERY == 0:
                progress.update(task, completed=report.lines)
    if json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        show_verdicts(report, Console())
    if report.refused:
        raise typer.Exit(BadInputError.exit_code)


def show_verdicts(verdicts: Verdicts, console: Console, unit: str = "line") -> None:
    """Say what was counted, for people."""
    console.print(f"{verdicts.lines:,} {unit}s: {verdicts.taken:,} events taken, {verdicts.refused:,} refused")
    if verdicts.first:
        console.print(f"from {verdicts.first} to {verdicts.last}")
    table = Table("what", "", "count", f"first {unit}s")
    for what, counts in (("shape", verdicts.shapes), ("event", verdicts.events)):
        for name, number in counts.most_common():
            table.add_row(what, escape(name), f"{number:,}", "")
    for reason, refusals in sorted(verdicts.reasons.items()):
        first = "\n".join(f"{unit} {line}: {detail}" for line, detail in refusals.first)
        table.add_row("refused", reason, f"{refusals.count:,}", escape(first))
    console.print(table)

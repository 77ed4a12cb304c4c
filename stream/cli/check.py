"""``rivulet check FILE``: what a file's lines would become, without sending any."""

from __future__ import annotations

import time
from collections import Counter
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from stream.decoding import decode, json_of
from stream.errors import BadInputError
from stream.local import LocalRecord
from stream.recordings import lines_of

SHOWN: Final = 5  # lines named per reason
LOOK_EVERY: Final = 1_000  # lines between two looks at the progress line
OURS: Final = "rivulet"


class Refusals(msgspec.Struct):
    """How often a reason refused something, and the first of it."""

    count: int = 0
    first: list[tuple[int, str]] = []


class Report(msgspec.Struct):
    """What lines would become.

    Attributes
    ----------
    lines
        Lines that are not empty; one may hold several events.
    taken, refused, controls
        They add up to all events, of however many lines.
    shapes, events
        Taken events by shape (``rivulet`` is our own schema) and by name.
    reasons
        What was refused, with line number and detail of the first few.
    """

    lines: int = 0
    taken: int = 0
    refused: int = 0
    controls: int = 0
    shapes: Counter[str] = msgspec.field(default_factory=Counter)
    events: Counter[str] = msgspec.field(default_factory=Counter)
    reasons: dict[str, Refusals] = {}

    def add(self, line: int, value: bytes, now_ms: int) -> None:
        """Judge one line as a worker would, had it been sent now."""
        batch = decode([LocalRecord(line, now_ms, None, value)])
        self.lines += 1
        self.taken += len(batch.raw)
        self.controls += len(batch.controls)
        self.shapes.update(batch.shapes)
        if ours := len(batch.raw) - batch.shapes.total():
            self.shapes[OURS] += ours
        self.events.update(_decode_name(json_of(raw)).event_name for raw in batch.raw)
        for dead in batch.dead:
            self.refuse(line, dead.reason, dead.detail)

    def refuse(self, line: int, reason: str, detail: str) -> None:
        """Count a refusal."""
        self.refused += 1
        refusals = self.reasons.setdefault(reason, Refusals())
        refusals.count += 1
        if len(refusals.first) < SHOWN:
            refusals.first.append((line, detail))


class _Named(msgspec.Struct):
    event_name: str


_decode_name: Final = msgspec.json.Decoder(_Named).decode


def check(
    file: Annotated[str, typer.Argument(help="JSON Lines or CSV, also .gz; - reads JSON Lines from standard input")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell what each line of a file would become, by shape and name, and what would be refused and why.

    Ends with exit code 4 if anything would be refused. Example: rivulet check segment-calls.jsonl.gz
    """
    report = Report()
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
        _show(report)
    if report.refused:
        raise typer.Exit(BadInputError.exit_code)


def _show(report: Report) -> None:
    console = Console()
    console.print(f"{report.lines:,} lines: {report.taken:,} events taken, {report.refused:,} refused")
    table = Table("what", "", "count", "first lines")
    for what, counts in (("shape", report.shapes), ("event", report.events)):
        for name, count in counts.most_common():
            table.add_row(what, name, f"{count:,}", "")
    for reason, refusals in sorted(report.reasons.items()):
        first = "\n".join(f"line {line}: {detail}" for line, detail in refusals.first)
        table.add_row("refused", reason, f"{refusals.count:,}", first)
    console.print(table)

"""``rivulet publish FILE|-``: send recorded events to the events topic, at once and without waiting for workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.cli.skipping import Skipped
from stream.decoding import decode, json_of
from stream.drafts import Draft, prepare
from stream.errors import BadInputError
from stream.kafka import client_options
from stream.producer import EventProducer
from stream.recordings import lines_of, numbered_events
from stream.recordings.files import OnBad, expand, kind_of
from stream.settings import Settings

LOOK_EVERY = 1_000  # events between two looks at the progress line

Record = tuple[bytes, bytes]  # key and value


def publish(
    file: Annotated[str, typer.Argument(help="JSON Lines, CSV (also .gz, .zst), Parquet; - reads JSON Lines")],
    any_shape: Annotated[
        bool,
        typer.Option("--any-shape", help="Map other shapes first (GA4, Segment ..., see `rivulet check`)."),
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out and count bad lines, or bad events of a batch.")
    ] = False,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Publish recorded events; each is checked first, and the first bad one stops with its line.

    Example: tail -f events.jsonl | rivulet publish -
    """
    settings = load_settings(kafka=kafka)
    kind_of(file)
    expand([file])  # a file that is not there is told before a broker that is not
    console = Console(stderr=True)
    skipped = Skipped(skip_bad, console)
    with showing(TextColumn("{task.completed:,.0f} events, {task.fields[rate]:,.0f} events/s"), keep=True) as progress:
        records = _mapped(file, skipped) if any_shape else _ours(file, skipped)
        sent = asyncio.run(_publish(settings, file, records, progress))
    topic = settings.topic("events")
    if json:
        typer.echo(msgspec.json.encode({"published": sent, "skipped": skipped.count, "topic": topic}))
    else:
        left_out = f"; skipped {skipped.count:,} bad ones" if skipped.count else ""
        console.print(f"published {sent:,} events to topic {topic}{left_out}")


async def _publish(settings: Settings, file: str, records: Iterator[Record], progress: Progress) -> int:
    task = progress.add_task("publish", total=None, rate=0.0)
    sent = 0
    topic = settings.topic("events")
    async with EventProducer(settings.kafka, topic, linger_ms=5, **client_options(settings)) as producer:
        try:
            async for key, value in _each(file, records):
                await producer.forward(value, key)
                sent += 1
                if sent % LOOK_EVERY == 0:
                    progress.update(task, completed=sent, rate=progress.tasks[0].speed or 0.0)
        except BadInputError as error:
            before = f"the {sent:,} events before it are sent" if sent else "nothing was sent"
            raise BadInputError(f"{error}; {before}") from error
    progress.update(task, completed=sent)
    return sent


async def _each(file: str, records: Iterator[Record]) -> AsyncIterator[Record]:
    """Records of the file; a pipe is waited for in a thread, so that what came is sent while nothing comes."""
    if file == "-":
        while (record := await asyncio.to_thread(next, records, None)) is not None:
            yield record
    else:
        for record in records:
            yield record


def _ours(file: str, on_bad: OnBad) -> Iterator[Record]:
    """Records of the events of a file in our schema, and what no worker would take told by its line."""
    for line, event in numbered_events(file, on_bad):
        try:
            record = prepare(event, time.time_ns())
        except BadInputError as error:
            on_bad(BadInputError(f"{file}, line {line}: {error}"))
        else:
            yield record


def _mapped(file: str, on_bad: OnBad) -> Iterator[Record]:
    """Records of lines in whatever shape, mapped as a worker would; what it would refuse of a line is told first."""
    for line, value, headers in lines_of(file):
        if isinstance(value, BadInputError):
            on_bad(value)
            continue
        batch = decode((Draft(line, time.time_ns() // 1_000_000, None, value, headers),))
        for dead in batch.dead:
            on_bad(BadInputError(f"{file}, line {line}: {dead.reason}: {dead.detail}"))
        if batch.controls:
            on_bad(BadInputError(f"{file}, line {line}: a control record, which is no event"))
        for raw in batch.raw:
            try:
                record = prepare(json_of(raw), time.time_ns())
            except BadInputError as error:
                on_bad(BadInputError(f"{file}, line {line}: {error}"))
            else:
                yield record

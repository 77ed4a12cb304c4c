"""``rivulet publish FILE|-``: send recorded events to the events topic, at once and without waiting for workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.decoding import decode, json_of
from stream.drafts import Draft
from stream.errors import BadInputError
from stream.kafka import client_options
from stream.producer import EventProducer
from stream.recordings import lines_of, open_recording
from stream.recordings.files import expand, kind_of
from stream.settings import Settings

LOOK_EVERY = 1_000  # events between two looks at the progress line


def publish(
    file: Annotated[str, typer.Argument(help="JSON Lines, CSV (also .gz, .zst), Parquet; - reads JSON Lines")],
    any_shape: Annotated[
        bool,
        typer.Option("--any-shape", help="Map other shapes first (GA4, Segment ..., see `rivulet check`)."),
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
    with showing(TextColumn("{task.completed:,.0f} events, {task.fields[rate]:,.0f} events/s"), keep=True) as progress:
        events = _mapped(file) if any_shape else open_recording(file)
        sent = asyncio.run(_publish(settings, file, events, progress))
    if json:
        typer.echo(msgspec.json.encode({"published": sent, "topic": settings.topic("events")}))
    else:
        console.print(f"published {sent:,} events to topic {settings.topic('events')}")


async def _publish(
    settings: Settings, file: str, events: Iterator[Mapping[str, Any] | bytes], progress: Progress
) -> int:
    task = progress.add_task("publish", total=None, rate=0.0)
    sent = 0
    topic = settings.topic("events")
    async with EventProducer(settings.kafka, topic, linger_ms=5, **client_options(settings)) as producer:
        try:
            async for event in _each(file, events):
                await _send(producer, event, f"{file}, event {sent + 1}")
                sent += 1
                if sent % LOOK_EVERY == 0:
                    progress.update(task, completed=sent, rate=progress.tasks[0].speed or 0.0)
        except BadInputError as error:
            raise BadInputError(f"{error}; the {sent:,} events before it are sent") from error
    progress.update(task, completed=sent)
    return sent


async def _send(producer: EventProducer, event: Mapping[str, Any] | bytes, place: str) -> None:
    try:
        await producer.send_soon(event)
    except BadInputError as error:
        raise BadInputError(f"{place}: {error}") from error


async def _each(file: str, events: Iterator[Mapping[str, Any] | bytes]) -> AsyncIterator[Mapping[str, Any] | bytes]:
    """Events of the file; a pipe is waited for in a thread, so that what came is sent while nothing comes."""
    if file == "-":
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event
    else:
        for event in events:
            yield event


def _mapped(file: str) -> Iterator[bytes]:
    """Events of lines in whatever shape, as a worker would map them.

    Raises
    ------
    BadInputError
        At the first line, or element of a line, that no worker would take; names line and reason.
    """
    for line, value, headers in lines_of(file):
        if isinstance(value, BadInputError):
            raise value
        batch = decode((Draft(line, time.time_ns() // 1_000_000, None, value, headers),))
        for dead in batch.dead:
            raise BadInputError(f"{file}, line {line}: {dead.reason}: {dead.detail}")
        if batch.controls:
            raise BadInputError(f"{file}, line {line}: a control record, which is no event")
        yield from map(json_of, batch.raw)

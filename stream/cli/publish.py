"""``rivulet publish FILE|-``: send recorded events to the events topic, at once and without waiting for workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stream.cli.common import load_settings
from stream.errors import BadInputError
from stream.kafka import client_options
from stream.producer import EventProducer
from stream.recordings import open_recording
from stream.settings import Settings

LOOK_EVERY = 1_000  # events between two looks at the progress line


def publish(
    file: Annotated[str, typer.Argument(help="JSON Lines, CSV (also .gz, .zst), Parquet; - reads JSON Lines")],
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
) -> None:
    """Publish recorded events; each is checked first, and the first bad one stops with its line.

    Example: tail -f events.jsonl | rivulet publish -
    """
    settings = load_settings(kafka=kafka)
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} events, {task.fields[rate]:,.0f} events/s"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        sent = asyncio.run(_publish(settings, file, progress))
    console.print(f"published {sent:,} events to topic {settings.topic('events')}")


async def _publish(settings: Settings, file: str, progress: Progress) -> int:
    task = progress.add_task("publish", total=None, rate=0.0)
    sent = 0
    topic = settings.topic("events")
    async with EventProducer(settings.kafka, topic, linger_ms=5, **client_options(settings)) as producer:
        async for event in _each(file):
            try:
                await producer.send_soon(event)
            except BadInputError as error:
                raise BadInputError(f"{file}, event {sent + 1}: {error}") from error
            sent += 1
            if sent % LOOK_EVERY == 0:
                progress.update(task, completed=sent, rate=progress.tasks[0].speed or 0.0)
    progress.update(task, completed=sent)
    return sent


async def _each(file: str) -> AsyncIterator[Mapping[str, Any]]:
    """Events of the file; a pipe is waited for in a thread, so that what came is sent while nothing comes."""
    events: Iterator[Mapping[str, Any]] = open_recording(file)
    if file == "-":
        while (event := await asyncio.to_thread(next, events, None)) is not None:
            yield event
    else:
        for event in events:
            yield event

"""``rivulet publish FILE|-``: send recorded events to the events topic, as they are and at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stream.errors import BadInputError
from stream.kafka import client_options
from stream.producer import EventProducer
from stream.recordings import read
from stream.settings import Settings

REFRESH = 1_000  # events between two looks at the progress bar


def publish(
    file: Annotated[str, typer.Argument(help="JSON Lines or CSV, also .gz; - reads JSON Lines from standard input")],
    linger: Annotated[int, typer.Option(min=0, help="ms that an event waits for company in one request")] = 5,
) -> None:
    """Publish a file of events: JSON Lines (events, arrays, {"events": [...]}) or CSV as in the README."""
    settings = Settings()
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} events"), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        sent = asyncio.run(_publish(read(file), file, settings, linger, progress))
    console.print(f"published {sent:,} events to topic {settings.topic('events')}")


async def _publish(
    events: Iterable[Mapping[str, Any]], source: str, settings: Settings, linger_ms: int, progress: Progress
) -> int:
    task = progress.add_task("publish", total=None, rate="")
    sent = 0
    topic = settings.topic("events")
    async with EventProducer(settings.kafka, topic, linger_ms=linger_ms, **client_options(settings)) as producer:
        for sent, event in enumerate(events, 1):
            try:
                await producer.send_soon(event)
            except BadInputError as error:
                raise BadInputError(
                    f"{source}, event {sent}: {error} ({sent - 1} events before it are sent)"
                ) from error
            if sent % REFRESH == 0:
                rate = progress.tasks[task].speed or 0.0
                progress.update(task, completed=sent, rate=f"{rate:,.0f} events/s")
        await producer.flush()
        progress.update(task, completed=sent)
    return sent

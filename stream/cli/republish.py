"""``rivulet republish``: rank every user again with what has been learned."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import TextColumn

from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.replay import republish as run


def republish(
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Wait until the workers have drained their topics, then publish all neighbours and rank every user again.

    Use it after a restored or emptied Redis, and after a replay. Needs running workers.

    Example: rivulet republish --kafka broker:9092 --redis redis://cache:6379/0
    """
    settings = load_settings(kafka=kafka, redis=redis)
    with showing(TextColumn("{task.description}: {task.fields[missing]:,} records to go")) as progress:
        task = progress.add_task("republishing", total=None, missing=0)
        done = asyncio.run(
            run(settings, lambda what, missing: progress.update(task, description=what, missing=missing))
        )
    if json:
        typer.echo(msgspec.json.encode(done))
    else:
        Console(stderr=True, soft_wrap=True).print(
            f"published the neighbours of {done.neighbours} partitions and the lists of {done.lists:,} users"
        )

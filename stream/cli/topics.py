"""``rivulet topics``: create the topics that are missing, check the others."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from stream import topics as layouts
from stream.cli.common import load_settings
from stream.cli.showing import waiting
from stream.kafka import client_options


def topics(
    check: Annotated[bool, typer.Option("--check", help="create nothing; fail if one is missing or differs")] = False,
    replication: Annotated[
        int | None, typer.Option(min=1, help="copies of each partition; default 3, or as many as there are brokers")
    ] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Create the topics with their partitions and clean-up policies, and show them; existing ones are never changed.

    Example: rivulet topics --replication 3
    """
    settings = load_settings(kafka=kafka)
    layout = layouts.layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
    created: list[str] = []
    with waiting("topics"):
        if check:
            asyncio.run(layouts.check(settings.kafka, layout, **client_options(settings)))
        else:
            created = asyncio.run(layouts.create(settings.kafka, layout, replication, **client_options(settings)))
    rows = [_facts(topic, topic.name in created) for topic in layout]
    if json:
        typer.echo(msgspec.json.encode(rows))
        return
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if not check:
        Console().print(f"{len(created)} created" if created else "all were there")


def _facts(topic: layouts.Topic, created: bool) -> dict[str, str | int]:
    return {
        "topic": topic.name,
        "partitions": topic.partitions,
        "cleanup": topic.config["cleanup.policy"],
        "state": "created" if created else "there",
        "purpose": topic.purpose,
    }

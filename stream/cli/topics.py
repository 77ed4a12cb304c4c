"""``rivulet topics``: create the topics that are missing, check the others."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from stream import topics as layouts
from stream.cli.common import load_settings
from stream.kafka import client_options


def topics(
    check: Annotated[bool, typer.Option("--check", help="create nothing; fail if one is missing or differs")] = False,
    replication: Annotated[
        int | None, typer.Option(min=1, help="copies of each partition; default 3, or as many as there are brokers")
    ] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
) -> None:
    """Create the topics with their partitions and clean-up policies, and show them; existing ones are never changed."""
    settings = load_settings(kafka=kafka)
    layout = layouts.layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
    created: list[str] = []
    if check:
        asyncio.run(layouts.check(settings.kafka, layout, **client_options(settings)))
    else:
        created = asyncio.run(layouts.create(settings.kafka, layout, replication, **client_options(settings)))
    Console().print(_table(layout, set(created)))


def _table(layout: tuple[layouts.Topic, ...], created: set[str]) -> Table:
    table = Table("topic", "partitions", "clean-up", "", "for")
    for topic in layout:
        state = "created" if topic.name in created else "there"
        table.add_row(topic.name, str(topic.partitions), topic.config["cleanup.policy"], state, topic.purpose)
    return table

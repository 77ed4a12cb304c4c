"""``rivulet shop``: a synthetic shop full of visitors, on the Kafka of the settings."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress, TextColumn

from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.demo.traffic import Traffic
from stream.permissions import SHOP, require
from stream.settings import Settings


def shop(
    rate: Annotated[float, typer.Option(help="Events per second.", min=1, max=5_000)] = 200.0,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds.", min=0.1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the shop.")] = 1,
    stock: Annotated[bool, typer.Option(help="Publish catalogue and offers first.")] = True,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Publish what the visitors of a synthetic shop do, with its catalogue and offers, until Ctrl-C or SIGTERM.

    For trying out an installation: the events are made up. `rivulet demo` brings broker, Redis and worker as well.

    Example: rivulet shop --rate 200 --duration 60
    """
    settings = load_settings(kafka=kafka)
    with showing(TextColumn("{task.completed:,.0f} events")) as progress:
        sent = asyncio.run(_publish(settings, Traffic(settings, seed=seed, rate=rate), duration, progress, stock=stock))
    if json:
        typer.echo(msgspec.json.encode({"published": sent, "topic": settings.topic("events")}))
    else:
        typer.echo(f"published {sent:,} events to topic {settings.topic('events')}")


async def _publish(
    settings: Settings, traffic: Traffic, duration: float | None, progress: Progress, *, stock: bool
) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await require(settings, SHOP)
    task = progress.add_task("shop", total=None)
    async with traffic:
        if stock:
            await traffic.stock()
        running = asyncio.create_task(traffic.run(stop, duration))
        while not running.done():
            await asyncio.wait([running], timeout=0.5)
            progress.update(task, completed=traffic.sent)
        await running
    return traffic.sent

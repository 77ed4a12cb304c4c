"""``rivulet forget USER``: remove a person from what was learned, and keep replays from learning them again."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from stream.answers import Forgotten
from stream.cli.common import load_settings
from stream.cli.showing import waiting
from stream.events import Forget
from stream.privacy import ask

LATER: Final = """\
Ends by itself: snapshots that still hold the user, as new ones replace them; records of topics and dead letters, with
their retention. Not removed: recordings in files, which are their owner's; and what no longer tells one person from
another (centres of segments, trending of a segment)."""


def forget(
    user: Annotated[str, typer.Argument(help="Customer id, or cookie id; each is forgotten by its own command.")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a worker.")] = 30.0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
) -> None:
    """Forget a user: history, profile, lists, and the user's part in what was learned of items. Needs running workers.

    Events from before are not learned again, also in a replay. Events from afterwards begin a new user.

    Example: rivulet forget u1 --json
    """
    settings = load_settings(kafka=kafka, redis=redis)
    with waiting("waiting for a worker"):
        report = asyncio.run(ask(settings, Forget(user=user, request=uuid.uuid4().hex), timeout))
    assert isinstance(report, Forgotten)
    if json:
        typer.echo(msgspec.json.encode(report))
    else:
        _show(report, Console(soft_wrap=True))


def _show(report: Forgotten, console: Console) -> None:
    until = datetime.fromtimestamp(report.until_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if report.already:
        console.print(f"had been forgotten already, up to {until}")
        return
    console.print(f"forgotten up to {until}" if report.known else f"nothing was kept; forgotten up to {until}")
    console.print(f"subtracted: {report.touches:,} touches, {report.pairs:,} pairs of items")
    if report.cut:
        console.print("the history was full: what came before it stays in sums over all users, which decay")
    console.print(f"deleted in Redis: {report.keys} keys")
    console.print(LATER)

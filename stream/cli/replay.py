"""``rivulet replay FILE``: a recorded stream through the same code, through Kafka or in this process."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from stream.cli.common import load_settings
from stream.errors import BadInputError
from stream.events import timestamp_us
from stream.memory_store import MemoryStore
from stream.recordings import open_recording
from stream.settings import Settings


def replay(
    file: Annotated[str, typer.Argument(help="JSON Lines or CSV, also .gz; - reads standard input")],
    speed: Annotated[str, typer.Option(help="Times faster than recorded: 1, 100 ...; or max.")] = "max",
    local: Annotated[bool, typer.Option("--local", help="Without Kafka and Redis, in this process.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --local: write every key and value here (JSON Lines).")] = None,
    republish: Annotated[bool, typer.Option("--republish", help="Rank every user once more at the end.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print what was sent, as JSON; --local always does.")] = False,
) -> None:
    """Replay a recording at its own pace, faster, or as fast as the workers keep up.

    Example: rivulet replay clicks.csv.gz --speed 100
    """
    settings = load_settings(kafka=kafka, redis=redis)
    pace = None if speed == "max" else _positive(speed)
    total = None if file == "-" else _counted(file)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f} events/s, lag {task.fields[lag]:,}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = _Bar(progress, total)
        if local:
            asyncio.run(_local(settings, bar.watch(open_recording(file)), out, republish=republish))
        else:
            began = time.monotonic()
            sent = asyncio.run(_through_kafka(settings, open_recording(file), pace, bar, republish=republish))
            if json:
                typer.echo(msgspec.json.encode({"sent": sent, "seconds": round(time.monotonic() - began, 3)}))


def _counted(file: str) -> int:
    with Console(stderr=True).status(f"counting {escape(file)}"):
        return sum(1 for _ in open_recording(file))


class _Bar:
    """A progress bar with events per second and lag."""

    def __init__(self, progress: Progress, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task("replay", total=total, rate=0.0, lag=0)

    def show(self, sent: int, lag: int = 0) -> None:
        rate = self._progress.tasks[self._task].speed or 0.0
        self._progress.update(self._task, completed=sent, rate=rate, lag=lag)

    def watch(self, events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for number, event in enumerate(events, 1):
            yield event
            if number % 1_000 == 0:
                self.show(number)


def _positive(speed: str) -> float:
    try:
        value = float(speed)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise BadInputError(f"--speed takes a number above 0 or max, not {speed!r}")
    return value


async def _through_kafka(
    settings: Settings, events: Iterator[dict[str, Any]], speed: float | None, bar: _Bar, *, republish: bool
) -> int:
    from stream.replay import replay as run
    from stream.replay import republish as run_again

    done = await run(settings, events, speed, lambda pace: bar.show(pace.sent, pace.lag))
    if republish:
        await run_again(settings)
    return done.sent


async def _local(settings: Settings, events: Iterator[Mapping[str, Any]], out: Path | None, *, republish: bool) -> None:
    from stream.app import rules_of
    from stream.local import LocalPipeline

    store = MemoryStore()
    pipeline = LocalPipeline(
        store,
        rules_of(settings),
        prefix=settings.prefix,
        partitions=settings.events_partitions,
        item_partitions=settings.covisits_partitions,
    )
    encoded = (
        (_key(event), timestamp_us(event["event_timestamp"]) // 1000, msgspec.json.encode(event)) for event in events
    )
    while chunk := list(islice(encoded, 100_000)):
        await pipeline.feed(chunk)
    if republish:
        await pipeline.republish()
    counts = sum((shard.counts for shard in pipeline.users.shards.values()), start=Counter())
    typer.echo(
        msgspec.json.encode({**counts, "lists": pipeline.counts["lists"], "keys": sum(1 for _ in store)}).decode()
    )
    if out is not None:
        _dump(store, out)


def _dump(store: MemoryStore, out: Path) -> None:
    """Every key, sorted, with its value: two runs over the same recording give the same bytes."""
    with out.open("wb") as file:
        for key, value in store.items():
            file.write(msgspec.json.encode({"key": key.decode(), "value": _readable(value)}) + b"\n")


def _readable(value: bytes | dict[bytes, bytes]) -> str | dict[str, str]:
    if isinstance(value, dict):
        return {name.decode(): content.decode() for name, content in sorted(value.items())}
    return value.decode(errors="backslashreplace")


def _key(event: Mapping[str, Any]) -> bytes:
    user: str = event.get("user_id") or event["user_pseudo_id"]
    return user.encode()

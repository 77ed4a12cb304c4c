"""``rivulet record OUT``: a topic into compressed files that replays, checks and evaluations read."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import TextColumn

from stream.beginning import Plan
from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.errors import BadInputError
from stream.moments import duration_ms
from stream.recorder import Recorder, Standing, Summary
from stream.recordings.segments import Segments
from stream.settings import Settings

MB = 1_000_000


def record(
    out: Annotated[Path, typer.Argument(help="Folder of the files; one that holds a recording is continued.")],
    topic: Annotated[str, typer.Option(help="Topic, without the prefix of RIVULET_TOPIC_PREFIX.")] = "events",
    start: Annotated[
        str, typer.Option("--from", help="beginning, now, offset:12, offset:0=12,1=7, a time, or a duration ago (2h).")
    ] = "now",
    until: Annotated[
        str, typer.Option("--until", help="now, offset:..., a time, or a duration from now (10m); none = until Ctrl-C.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="All that is there: --from beginning --until now.")] = False,
    rotate_mb: Annotated[float, typer.Option(min=0.001, help="Begin another file after so many MB.")] = 256.0,
    rotate_every: Annotated[str, typer.Option(help="Begin another file after so long (1h); none = by size only.")] = "",
    accept_gap: Annotated[
        bool, typer.Option("--accept-gap", help="Go on though the broker deleted records that were to come.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
) -> None:
    """Record a topic: every record's bytes, key, headers, time and place, as JSON Lines in zstd (`zstd -dc`).

    Ended or killed at any moment and started again it goes on without gap or repeat; --from counts at the first start
    only. Ctrl-C and SIGTERM end it cleanly.

    Examples: `rivulet record today` (until Ctrl-C), `rivulet record all --all`,
    `rivulet record noon --from 2026-01-31T12:00:00Z --until 1h`, `rivulet record dead --topic events.dlq --all`
    """
    settings = load_settings(kafka=kafka)
    if everything and (until or start != "now"):
        raise BadInputError("--all is --from beginning --until now: give it alone")
    plan = Plan(
        settings.topic_prefix + topic,
        "beginning" if everything else start,
        "now" if everything else until,
        accept_gap,
    )
    with Segments(out, plan.topic, round(rotate_mb * MB), _seconds(rotate_every)) as segments:
        summary = asyncio.run(_record(settings, plan, segments))
    if json:
        typer.echo(msgspec.json.encode(summary).decode())
    else:
        _show(summary)


def _seconds(text: str) -> float | None:
    if not text:
        return None
    ms = duration_ms(text)
    if not ms:
        raise BadInputError(f"--rotate-every takes a duration such as 90s or 1h, not {text!r}")
    return ms / 1_000


async def _record(settings: Settings, plan: Plan, segments: Segments) -> Summary:
    recorder = Recorder(settings, plan, segments)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, recorder.stopping.set)
    columns = (
        TextColumn("{task.completed:,.0f} records, {task.fields[rate]:,.0f}/s, lag {task.fields[lag]:,}"),
        TextColumn("{task.fields[file]}"),
    )
    with showing(*columns, keep=True) as progress:
        task = progress.add_task("record", total=None, rate=0.0, lag=0, file=str(segments.folder))

        def show(standing: Standing) -> None:
            rate = progress.tasks[0].speed or 0.0
            file = segments.files[-1] if segments.files else ""
            progress.update(task, completed=standing.records, rate=rate, lag=standing.lag, file=file)

        recorder.report = show
        return await recorder.run()


def _show(summary: Summary) -> None:
    more = f" ({summary.total:,} with earlier runs)" if summary.resumed else ""
    end = "complete" if summary.complete else "ended; the same command goes on"
    console = Console()
    console.print(f"recorded {summary.records:,} records of topic {summary.topic}{more} in {summary.folder}: {end}")
    if summary.lost:
        console.print(f"lost: {summary.lost:,} records, deleted by the broker before they were recorded")

"""``rivulet doctor``: what is in the way of this installation, and what to do about it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.cli.common import load_settings
from stream.cli.showing import waiting
from stream.doctor.finding import Finding
from stream.settings import Settings

COLOURS: Final = {"ok": "green", "warning": "yellow", "problem": "red", "unknown": "cyan"}


class Report(msgspec.Struct, frozen=True):
    """What ``--json`` prints; `ok` is whether no finding is a problem."""

    ok: bool
    findings: list[Finding]


def doctor(
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check broker, topics, Redis, rights, clocks, disk, kernels and libraries; each finding says what to do.

    Nothing is changed; on Redis, a worker's commands are tried on keys of a user who does not exist. Ends with exit
    code 1 if there is a problem. Example: rivulet doctor --json
    """
    settings = load_settings(kafka=kafka, redis=redis)
    with waiting("looking"):
        findings = asyncio.run(_findings(settings))
    sound = all(finding.state != "problem" for finding in findings)
    if json:
        typer.echo(msgspec.json.encode(Report(sound, findings)))
    else:
        _show(findings)
    if not sound:
        raise typer.Exit(1)


async def _findings(settings: Settings) -> list[Finding]:
    from stream.doctor.kafka import check_kafka
    from stream.doctor.machine import check_machine  # with all that workers consist of
    from stream.doctor.redis import check_redis

    kafka, redis = await asyncio.gather(check_kafka(settings), check_redis(settings))
    return [*kafka, *redis, *check_machine(settings)]


def _show(findings: list[Finding]) -> None:
    table = Table("", "where", "check", "found")
    for finding in findings:
        mark = f"[{COLOURS[finding.state]}]{finding.state}[/]"
        detail = escape(finding.detail) + (f"\n[bold]{escape(finding.fix)}[/]" if finding.fix else "")
        table.add_row(mark, finding.area, escape(finding.check), detail)
    console = Console()
    console.print(table)
    problems = sum(finding.state == "problem" for finding in findings)
    console.print("no problems" if not problems else f"{problems} problem{'s' if problems > 1 else ''}")

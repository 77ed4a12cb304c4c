"""``rivulet dlq list|show|retry|drop``: look after what could not be taken."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from typing import Annotated, Any, Final, get_args

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import TextColumn
from rich.table import Column, Table

from stream.adapters import LetterReason
from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.errors import BadInputError
from stream.letters import Filter, Letter, Letters, Number
from stream.moments import iso, moment_ms
from stream.retry import Outcome
from stream.retry import retry as send_again
from stream.settings import Settings

app = typer.Typer(
    help="List, show, send again or drop dead letters: what could not be taken, with its reason and its bytes."
    "\n\nExample: rivulet dlq list --since 2h",
    no_args_is_help=True,
)
CHUNK: Final = 10_000
COUNTED: Final = TextColumn("{task.completed:,.0f} letters")
_OFFSETS: Final = re.compile(r"(\d+)(?:-(\d+))?")

NumbersArgument = Annotated[list[str] | None, typer.Argument(help="Numbers of letters, as `dlq list` shows them.")]
ReasonOption = Annotated[list[str] | None, typer.Option("--reason", help="Of this reason; repeatable.")]
SinceOption = Annotated[str, typer.Option("--since", help="Written from then on: a time, or a duration ago (2h).")]
UntilOption = Annotated[str, typer.Option("--until", help="Written before: a time, or a duration ago.")]
TopicOption = Annotated[str | None, typer.Option("--topic", help="From this topic (without its prefix).")]
PartitionOption = Annotated[int | None, typer.Option("--partition", min=0, help="From this partition of it.")]
OffsetOption = Annotated[str, typer.Option("--offset", help="From this offset of it, or these: 12-40.")]
AllOption = Annotated[bool, typer.Option("--all", help="All open letters.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KafkaOption = Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")]


@app.command("list")
def list_(
    reason: ReasonOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    topic: TopicOption = None,
    partition: PartitionOption = None,
    offset: OffsetOption = "",
    settled: Annotated[bool, typer.Option("--settled", help="Those retried or dropped, too.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Most letters shown; all are counted.")] = 50,
    json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """List letters and count them by reason.

    Example: `rivulet dlq list --reason schema --since 2h`
    """
    settings = load_settings(kafka=kafka)
    wanted = _filter(settings, [], reason, since, until, topic, partition, offset)
    reasons, states, shown = asyncio.run(_list(settings, wanted, settled, limit))
    if json:
        rows = [_facts(letter) for letter in shown]
        typer.echo(msgspec.json.encode({"letters": rows, "reasons": reasons, "states": states}).decode())
        return
    console = Console()
    if shown:
        table = Table("number", "written", "reason", Column("detail", overflow="fold"), "from", "bytes", "state")
        for column in table.columns:
            column.no_wrap = column.header != "detail"  # places and times are what one filters by
        for letter in shown:
            row = (letter.number, iso(letter.written_ms * 1000), letter.reason, letter.detail, letter.origin)
            table.add_row(*(escape(str(cell)) for cell in (*row, f"{len(letter.value):,}", letter.state)))
        console.print(table)
    by_reason = ", ".join(f"{count:,} {name}" for name, count in reasons.most_common())
    console.print(f"{reasons.total():,} letters{': ' if by_reason else ''}{by_reason}")


@app.command()
def show(
    numbers: Annotated[list[str], typer.Argument(help="Numbers of letters, as `dlq list` shows them.")],
    json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Show letters whole, with the bytes that were refused.

    Example: `rivulet dlq show 17`
    """
    settings = load_settings(kafka=kafka)
    wanted = Filter(numbers=frozenset(Number.parse(text) for text in numbers))
    _, _, found = asyncio.run(_list(settings, wanted, True, len(wanted.numbers)))
    console = Console(soft_wrap=True)
    for letter in found:
        facts = _facts(letter) | {"key": _shown(letter.key), "headers": [[n, _shown(v)] for n, v in letter.headers]}
        facts["value"] = _shown(letter.value)
        if json:
            typer.echo(msgspec.json.encode(facts).decode())
        else:
            for name, value in facts.items():
                console.print(f"{name}: {value}", markup=False, highlight=False)
            console.print()
    if missing := wanted.numbers - {letter.number for letter in found}:
        raise BadInputError(f"there is no dead letter {', '.join(map(str, sorted(missing)))}")


@app.command()
def retry(
    numbers: NumbersArgument = None,
    reason: ReasonOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    topic: TopicOption = None,
    partition: PartitionOption = None,
    offset: OffsetOption = "",
    everything: AllOption = False,
    again: Annotated[bool, typer.Option("--again", help="Those retried or dropped before, too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent.")] = False,
    json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Send letters to the topic they came from, their bytes as they are. Nothing counts twice: ids stay what they are.

    What a worker would still refuse is not sent and stays; the exit code is 4 then. Letters that were sent are
    remembered in the topic, and another retry leaves them out.

    Example: `rivulet dlq retry --reason unmapped`
    """
    settings = load_settings(kafka=kafka)
    wanted = _chosen(settings, numbers, reason, since, until, topic, partition, offset, everything)
    outcome = asyncio.run(_retry(settings, wanted, again=again, dry_run=dry_run))
    if json:
        typer.echo(msgspec.json.encode(outcome).decode())
    else:
        _tell(outcome, dry_run=dry_run)
    if outcome.refused:
        raise typer.Exit(BadInputError.exit_code)


@app.command()
def drop(
    numbers: NumbersArgument = None,
    reason: ReasonOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    topic: TopicOption = None,
    partition: PartitionOption = None,
    offset: OffsetOption = "",
    everything: AllOption = False,
    json: JsonOption = False,
    kafka: KafkaOption = None,
) -> None:
    """Mark letters as dropped: `list` and `retry` leave them out. Their bytes stay for as long as the topic keeps them.

    Example: `rivulet dlq drop --reason not_json --until 7d`
    """
    settings = load_settings(kafka=kafka)
    wanted = _chosen(settings, numbers, reason, since, until, topic, partition, offset, everything)
    dropped = asyncio.run(_drop(settings, wanted))
    if json:
        typer.echo(msgspec.json.encode({"dropped": dropped}).decode())
    else:
        Console().print(f"dropped {dropped:,} letters")


def _filter(
    settings: Settings,
    numbers: list[str] | None,
    reason: list[str] | None,
    since: str,
    until: str,
    topic: str | None,
    partition: int | None,
    offset: str,
) -> Filter:
    now_ms = time.time_ns() // 1_000_000
    found = _OFFSETS.fullmatch(offset) if offset else None
    if offset and found is None:
        raise BadInputError(f"--offset takes 12 or 12-40, not {offset!r}")
    if unknown := set(reason or ()).difference(get_args(LetterReason)):
        known = ", ".join(get_args(LetterReason))
        raise BadInputError(f"--reason: there is no {min(unknown)!r}, only {known}")
    return Filter(
        frozenset(Number.parse(text) for text in numbers or ()),
        frozenset(reason or ()),
        moment_ms("--since", since, now_ms) if since else None,
        moment_ms("--until", until, now_ms) if until else None,
        None if topic is None else settings.topic(topic),
        partition,
        range(int(found[1]), int(found[2] or found[1]) + 1) if found else None,
    )


def _chosen(settings: Settings, numbers: list[str] | None, *options: Any) -> Filter:
    """A filter for what changes something: all letters only if that was said."""
    *filters, everything = options
    wanted = _filter(settings, numbers, *filters)
    if bool(wanted) == everything:
        raise BadInputError("name letters by number or filter, or all of them with --all")
    return wanted


async def _list(
    settings: Settings, wanted: Filter, settled: bool, limit: int
) -> tuple[Counter[str], Counter[str], list[Letter]]:
    reasons: Counter[str] = Counter()
    states: Counter[str] = Counter()
    shown: list[Letter] = []
    with showing(COUNTED) as progress:
        task = progress.add_task("letters")
        async with Letters(settings) as letters:
            async for letter in letters.select(wanted, settled=settled):
                reasons[letter.reason] += 1
                states[letter.state] += 1
                if len(shown) < limit:
                    shown.append(letter)
                progress.update(task, completed=reasons.total())
    return reasons, states, shown


async def _retry(settings: Settings, wanted: Filter, *, again: bool, dry_run: bool) -> Outcome:
    with showing(COUNTED) as progress:
        task = progress.add_task("letters")

        def show(judged: int) -> None:
            progress.update(task, completed=judged)

        async with Letters(settings) as letters:
            return await send_again(settings, letters, wanted, again=again, dry_run=dry_run, report=show)


async def _drop(settings: Settings, wanted: Filter) -> int:
    dropped = 0
    with showing(COUNTED) as progress:
        task = progress.add_task("letters")
        async with Letters(settings) as letters:
            numbers: list[Number] = []
            async for letter in letters.select(wanted):
                numbers.append(letter.number)
                progress.update(task, completed=dropped + len(numbers))
                if len(numbers) >= CHUNK:
                    await letters.settle(numbers, "dropped")
                    dropped += len(numbers)
                    numbers = []
            if numbers:
                await letters.settle(numbers, "dropped")
    return dropped + len(numbers)


def _facts(letter: Letter) -> dict[str, Any]:
    return {
        "number": str(letter.number),
        "written": iso(letter.written_ms * 1000),
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "index": letter.index,
        "bytes": len(letter.value),
        "state": letter.state,
    }


def _shown(content: bytes | None) -> str | None:
    """Bytes as text; what is none as escapes."""
    return None if content is None else content.decode(errors="backslashreplace")


def _tell(outcome: Outcome, *, dry_run: bool) -> None:
    console = Console()
    verb = "would send" if dry_run else "sent"
    console.print(f"{verb} {outcome.letters:,} letters again, as {outcome.records:,} records")
    if outcome.refused:
        console.print(f"{outcome.refused.total():,} would be refused again and stay:")
        for number, reason, detail in outcome.first:
            console.print(f"  {number}: {reason}: {detail}", markup=False, highlight=False)

"""``rivulet replay FILE``: recorded streams through the same code, through Kafka or in this process."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from stream.cli.check import show_verdicts
from stream.cli.common import load_settings
from stream.cli.showing import showing
from stream.cli.skipping import Skipped
from stream.errors import BadInputError
from stream.moments import moment_ms
from stream.pacing import PAUSE, Pacer, parse_speed, steer
from stream.recordings.files import Meter, OnBad, expand
from stream.recordings.mapping import FieldMap
from stream.rounds import Item, Source, Users, between, rounds
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.replay import Pace


@dataclass(slots=True)
class Choice:
    """What of the files is replayed, and how often and as whom."""

    files: list[str]
    source: Source
    on_bad: OnBad
    start_us: int | None
    until_us: int | None
    most: int | None
    users: Users
    meter: Meter = field(default_factory=Meter)

    def items(self) -> Iterator[Item]:
        """What is published, in order."""
        return rounds(lambda: between(self.source, self.start_us, self.until_us), self.most, self.users)

    @property
    def size(self) -> int | None:
        """Bytes on disk of all rounds; None if that is not known."""
        if self.most is None or self.files == ["-"]:
            return None
        return self.most * sum(Path(file).stat().st_size for file in self.files)


def replay(
    files: Annotated[
        list[str],
        typer.Argument(
            help="JSON Lines, CSV (both also .gz, .zst), Parquet, recordings, folders of these; - = standard input"
        ),
    ],
    speed: Annotated[str, typer.Option(help="Times faster than recorded: 1, 100 ...; max; pause.")] = "max",
    steered: Annotated[
        bool, typer.Option("--steer", help="While running, each line of standard input is a new speed.")
    ] = False,
    start: Annotated[str, typer.Option("--from", help="Events from this time on: ISO-8601, or unix ms.")] = "",
    until: Annotated[str, typer.Option("--until", help="Events before this time.")] = "",
    columns: Annotated[
        list[str] | None, typer.Option("--map", help="column=field, for files with columns of their own; repeatable.")
    ] = None,
    constants: Annotated[
        list[str] | None, typer.Option("--set", help="field=value, for what no column has; repeatable.")
    ] = None,
    loop: Annotated[str, typer.Option(help="Rounds, or forever; each one's times are behind the one's before.")] = "1",
    users: Annotated[str, typer.Option(help="Rename visitors: a suffix, or a pattern such as '{user}-{round}'.")] = "",
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count damaged input.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be sent; needs no Kafka.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Without Kafka and Redis, in this process.")] = False,
    out: Annotated[Path | None, typer.Option(help="With --local: write every key and value here (JSON Lines).")] = None,
    republish: Annotated[bool, typer.Option("--republish", help="Rank every user once more at the end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
) -> None:
    """Replay recordings at their own pace, faster, or as fast as the workers keep up.

    Records of `rivulet record` go as they stand: key, bytes, identity and time. Damaged input is named by file and line
    and ends the run.

    Examples: `rivulet replay clicks.csv.gz --speed 100`, `rivulet replay today --loop 3 --users '-{round}'`,
    `rivulet replay a.parquet --map uid=user_id --map movie=item_id --map at=event_timestamp --set event_name=rate`
    """
    settings = load_settings(kafka=kafka, redis=redis)
    pace = parse_speed(speed)
    console = Console(stderr=True)
    skipped = Skipped(skip_bad, console)
    choice = _choice(files, skipped, start, until, columns, constants, loop, users)
    if steered and choice.files == ["-"]:
        raise BadInputError("--steer: standard input holds the events already")
    if pace == PAUSE and not steered:
        raise BadInputError("--speed pause goes on only with --steer")
    if choice.most is None and (dry_run or local):
        raise BadInputError("--loop forever never ends with --dry-run or --local: give a number")
    if dry_run:
        _dry_run(choice, skipped, json=json)
        return
    counts: dict[str, Any]
    with _progress() as progress:
        bar = _Bar(progress, choice)
        if local:
            counts = asyncio.run(_local(settings, bar.watch(choice.items()), out, skipped, republish=republish))
        else:
            done = asyncio.run(_through_kafka(settings, choice, pace, bar, steered=steered, republish=republish))
            counts = {"sent": done.sent, "books": dict(done.books)}
    counts |= {"skipped": skipped.count, "controls_left_out": choice.source.left_out}
    if json or local:
        typer.echo(msgspec.json.encode(counts).decode())
    else:
        _tell(console, done, skipped.count)


def _choice(
    files: list[str],
    skipped: Skipped,
    start: str,
    until: str,
    columns: list[str] | None,
    constants: list[str] | None,
    loop: str,
    users: str,
) -> Choice:
    names = expand(files)
    fields = FieldMap.parse(columns or (), constants or ()) if columns or constants else None
    meter = Meter()
    if loop != "1" and names == ["-"]:
        raise BadInputError("--loop: standard input can be read only once")
    return Choice(
        names,
        Source(names, fields, skipped, meter),
        skipped,
        moment_ms("--from", start, time.time_ns() // 1_000_000) * 1000 if start else None,
        moment_ms("--until", until, time.time_ns() // 1_000_000) * 1000 if until else None,
        _rounds(loop),
        Users(users),
        meter,
    )


def _rounds(loop: str) -> int | None:
    if loop == "forever":
        return None
    if not (loop.isdecimal() and int(loop) > 0):
        raise BadInputError(f"--loop takes a number above 0 or forever, not {loop!r}")
    return int(loop)


def _progress() -> Progress:
    text = "{task.fields[sent]:,} events, {task.fields[rate]:,.0f}/s, lag {task.fields[lag]:,}"
    return showing(BarColumn(), TextColumn(text), TimeRemainingColumn(), keep=True)


class _Bar:
    """A progress bar over the files' bytes, with events per second and lag."""

    def __init__(self, progress: Progress, choice: Choice) -> None:
        self._progress = progress
        self._meter = choice.meter
        self._task = progress.add_task("replay", total=choice.size, sent=0, rate=0.0, lag=0)

    def show(self, sent: int, lag: int = 0) -> None:
        elapsed = self._progress.tasks[self._task].elapsed or 0.0
        rate = sent / elapsed if elapsed > 0 else 0.0
        self._progress.update(self._task, completed=self._meter.bytes, sent=sent, rate=rate, lag=lag)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def watch(self, events: Iterable[Item]) -> Iterator[Item]:
        number = 0
        for number, event in enumerate(events, 1):
            yield event
            if number % 1_000 == 0:
                self.show(number)
        self.show(number)


def _dry_run(choice: Choice, skipped: Skipped, *, json: bool) -> None:
    """Judge everything as a worker would; exit code 4 if something would be refused."""
    from stream.dry_run import judge

    with _progress() as progress:
        verdicts = judge(_Bar(progress, choice).watch(choice.items()), time.time_ns() // 1_000_000)
    if json:
        found = msgspec.to_builtins(verdicts)
        found |= {"skipped": skipped.count, "controls_left_out": choice.source.left_out}
        typer.echo(msgspec.json.encode(found).decode())
    else:
        console = Console()
        show_verdicts(verdicts, console, "record")
        console.print(f"skipped: {skipped.count:,}; control records left out: {choice.source.left_out:,}")
    if verdicts.refused:
        raise typer.Exit(BadInputError.exit_code)


async def _through_kafka(
    settings: Settings, choice: Choice, speed: float | None, bar: _Bar, *, steered: bool, republish: bool
) -> Pace:
    from stream.replay import replay as run
    from stream.replay import republish as run_again

    pacer = Pacer(speed)
    if steered:
        steer(pacer, bar.say)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        """Publish no more, wait for the workers; a second Ctrl-C does not."""
        ended.set()
        pacer.set(None)
        loop.remove_signal_handler(signal.SIGINT)

    loop.add_signal_handler(signal.SIGINT, end)

    def refused(error: BadInputError) -> None:
        choice.on_bad(BadInputError(f"{choice.source.where}: {error}"))

    items = takewhile(lambda _: not ended.is_set(), choice.items())
    pace = await run(settings, items, pacer, lambda now: bar.show(now.sent, now.lag), refused)
    if republish:
        await run_again(settings, lambda _, missing: bar.show(pace.sent, missing))
    return pace


def _tell(console: Console, done: Pace, skipped: int) -> None:
    """What was sent and what became of it: else a recording that is too old for the topic is passed over in silence."""
    books = ", ".join(f"{count:,} {name}" for name, count in done.books.most_common() if name != "without_id")
    console.print(f"sent {done.sent:,} events; meanwhile the workers counted {books or 'nothing'}", highlight=False)
    if done.books["late"]:
        console.print("late: behind the newest event of its partition by more than RIVULET_LATENESS_HOURS; not learned")
    if skipped:
        console.print(f"skipped {skipped:,} damaged lines or refused events")


async def _local(
    settings: Settings, items: Iterator[Item], out: Path | None, on_bad: OnBad, *, republish: bool
) -> dict[str, int]:
    from stream.dry_run import as_records
    from stream.local import LocalPipeline
    from stream.memory_store import MemoryStore

    store = MemoryStore()
    pipeline = LocalPipeline.of(settings, store)
    encoded = ((raw.key or b"", raw.timestamp, raw.value or b"") for raw in as_records(items, on_bad))
    while chunk := list(islice(encoded, 100_000)):
        await pipeline.feed(chunk)
        pipeline.served.clear()  # nobody reads the log of what would have been served
    if republish:
        await pipeline.republish()
    counts = sum((shard.counts for shard in pipeline.users.shards.values()), start=Counter())
    if out is not None:
        _dump(store, out)
    return {**counts, "lists": pipeline.counts["lists"], "keys": sum(1 for _ in store)}


def _dump(store: Any, out: Path) -> None:
    """Every key, sorted, with its value: two runs over the same recording give the same bytes."""
    with out.open("wb") as file:
        for key, value in store.items():
            file.write(msgspec.json.encode({"key": key.decode(), "value": _readable(value)}) + b"\n")


def _readable(value: bytes | Mapping[bytes, bytes]) -> str | dict[str, str]:
    if isinstance(value, Mapping):
        return {name.decode(): content.decode() for name, content in sorted(value.items())}
    return value.decode(errors="backslashreplace")

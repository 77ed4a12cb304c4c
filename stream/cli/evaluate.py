"""``rivulet evaluate FILE``: how well the models predict what visitors of a recording did next, beside baselines."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from importlib import import_module
from typing import Annotated, Any, Final, cast

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.bootstrap import Interval, paired_intervals
from models.evaluation import Contender, Stream, measure, prepare, reciprocal_ranks
from stream.errors import BadInputError
from stream.events import KIND_WEIGHTS
from stream.recordings import read_table

CONTENDERS: Final = {
    "covisit": "models.item_similarity",
    "sknn": "models.session_knn",
    "popularity": "models.popularity",
    "sequential_rules": "models.sequential_rules",
    "blend": "models.blend_ranker",
}
PARTS: Final = {f"blend.{part}": part for part in ("covisit", "next", "sessions", "walk", "seen")}
BY_PARTITION: Final = {"sknn", "blend", *PARTS}  # what visitors of one partition teach, those of others do not see
WARM_UP: Final = 200  # events that make a contender compile every kernel

Result = dict[str, float | Interval]


def _stream(file: str, start: float, frozen: bool, progress: Progress) -> tuple[int, Stream]:
    task = progress.add_task("reading", total=None)
    recording = read_table(file, lambda rows: progress.update(task, description=f"reading {rows:,} rows"))
    weights = np.array([KIND_WEIGHTS.get(kind, 0.0) for kind in recording.kinds], dtype=np.float32)
    weight = weights[recording.kind] if len(weights) else np.empty(0, dtype=np.float32)
    columns = (recording.key, recording.item, recording.ts_ms // 1000, weight, recording.item_ids)
    stream = prepare(*columns, start=start, frozen=frozen)
    progress.update(task, description=f"{len(recording):,} rows read", total=1, completed=1)
    return len(recording), stream


def _run(name: str, run: Contender, stream: Stream, k: int, progress: Progress) -> tuple[Result, NDArray[np.float64]]:
    """Result and reciprocal ranks of one contender; compiling and loading its kernels does not count."""
    task = progress.add_task(f"{name}: compiling", total=None)
    run(stream.head(WARM_UP), k)
    progress.update(task, description=f"{name}: learning and ranking")
    began = time.perf_counter()
    lists = run(stream, k)
    seconds = time.perf_counter() - began
    progress.update(task, description=name, total=1, completed=1)
    result: Result = {**asdict(measure(stream, lists))}
    result["events_per_s"] = round(len(stream) / seconds) if len(stream) else 0
    return result, reciprocal_ranks(stream, lists)


def _add_intervals(stream: Stream, results: dict[str, Result], ranks: dict[str, NDArray[np.float64]]) -> None:
    """Intervals of hit rate and reciprocal rank, and of how far the blend is ahead on the same visitors."""
    visitors = stream.key[stream.scored]
    for key, values in (("hr", {name: np.sign(rank) for name, rank in ranks.items()}), ("mrr", ranks)):
        alone = paired_intervals(visitors, values)
        paired = paired_intervals(visitors, values, against="blend") if "blend" in values else {}
        for name, result in results.items():
            result[f"{key}_interval"] = alone[name]
            if name in paired and name != "blend":
                low, high = paired[name]
                result[f"blend_ahead_{key}_interval"] = (-high, -low)


def _table(file: str, events: int, evaluated: int, k: int, results: dict[str, Result]) -> Table:
    table = Table(title=f"{escape(file)}: {events:,} events, {evaluated:,} predicted, lists of {k}")
    table.add_column("model")
    for column in ("HR", "MRR", "NDCG", "precision", "recall", "F1", "coverage", "popularity", "predictions"):
        table.add_column(column, justify="right")
    table.add_column("events/s", justify="right")
    for name, result in results.items():
        sure = [_with_spread(result, key) for key in ("hr", "mrr")]
        shares = [f"{result[key]:.4f}" for key in ("ndcg", "precision", "recall", "f1", "coverage")]
        rest = [f"{result['popularity']:.1f}", f"{result['predictions']:,}", f"{result['events_per_s']:,}"]
        table.add_row(name, *sure, *shares, *rest)
    return table


def _with_spread(result: Result, key: str) -> str:
    """A figure and half the width of its 95 % interval."""
    low, high = cast(Interval, result[f"{key}_interval"])
    return f"{result[key]:.4f} ±{(high - low) / 2:.3f}"


def _chosen(models: str, partitions: int) -> dict[str, Contender]:
    """Contenders by name. Their modules are imported here: the other verbs need none of them."""
    names = list(CONTENDERS if not models else [*CONTENDERS, *PARTS] if models == "all" else models.split(","))
    chosen: dict[str, Contender] = {}
    for name in names:
        if name not in CONTENDERS and name not in PARTS:
            known = ", ".join(["all", *CONTENDERS, *PARTS])
            raise BadInputError(f"--models: there is no {name!r}; choose from {known}")
        run = import_module(CONTENDERS.get(name, CONTENDERS["blend"])).run
        options: dict[str, Any] = {"partitions": partitions} if name in BY_PARTITION else {}
        if name in PARTS:
            options["part"] = PARTS[name]
        chosen[name] = partial(run, **options)
    return chosen


def evaluate(
    file: Annotated[str, typer.Argument(help="recording: .csv, .jsonl (also .gz, .zst), .parquet, or - (JSON Lines)")],
    start: Annotated[float, typer.Option("--from", min=0, max=1, help="share of events before the scored ones")] = 0.8,
    k: Annotated[int, typer.Option(min=1, help="length of the lists")] = 20,
    models: Annotated[str, typer.Option(help="names with commas, or all: with the blend's parts alone")] = "",
    partitions: Annotated[int, typer.Option(min=1, help="partitions of visitors, each with sessions of its own")] = 1,
    frozen: Annotated[bool, typer.Option("--frozen", help="learn nothing from the scored events")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Test, then learn a recording: each event is predicted from what came before it, then learned."""
    errors = Console(stderr=True)
    contenders = _chosen(models, partitions)
    results: dict[str, Result] = {}
    ranks: dict[str, NDArray[np.float64]] = {}
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        events, stream = _stream(file, start, frozen, progress)
        for name, run in contenders.items():
            results[name], ranks[name] = _run(name, run, stream, k, progress)
    _add_intervals(stream, results, ranks)
    evaluated = int(stream.scored.sum())
    if json:
        report = {"file": file, "events": events, "evaluated": evaluated, "k": k, "models": results}
        typer.echo(msgspec.json.encode(report))
    else:
        Console().print(_table(file, events, evaluated, k, results))

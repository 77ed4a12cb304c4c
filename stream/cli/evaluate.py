"""``rivulet evaluate FILE``: how well the models predict what visitors of a recording did next, beside baselines."""

from __future__ import annotations

import time
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Final

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from models.evaluation import Contender, Metrics, Stream, measure, prepare
from stream.events import KIND_WEIGHTS
from stream.recordings import read_table

CONTENDERS: Final = {
    "covisit": "models.item_similarity",
    "sknn": "models.session_knn",
    "popularity": "models.popularity",
    "sequential_rules": "models.sequential_rules",
}
WARM_UP: Final = 200  # events that make a contender compile every kernel

Result = dict[str, float]


def _stream(file: str, start: float, progress: Progress) -> tuple[int, Stream]:
    task = progress.add_task("reading", total=None)
    recording = read_table(file, lambda rows: progress.update(task, description=f"reading {rows:,} rows"))
    weights = np.array([KIND_WEIGHTS.get(kind, 0.0) for kind in recording.kinds], dtype=np.float32)
    weight = weights[recording.kind] if len(weights) else np.empty(0, dtype=np.float32)
    columns = (recording.key, recording.item, recording.ts_ms // 1000, weight, recording.item_ids)
    stream = prepare(*columns, start=start)
    progress.update(task, description=f"{len(recording):,} rows read", total=1, completed=1)
    return len(recording), stream


def _result(name: str, stream: Stream, k: int, progress: Progress) -> Result:
    """Run one contender; compiling and loading its kernels does not count."""
    run: Contender = import_module(CONTENDERS[name]).run
    task = progress.add_task(f"{name}: compiling", total=None)
    run(stream.head(WARM_UP), k)
    progress.update(task, description=f"{name}: learning and ranking")
    began = time.perf_counter()
    lists = run(stream, k)
    seconds = time.perf_counter() - began
    progress.update(task, description=name, total=1, completed=1)
    metrics: Metrics = measure(stream, lists)
    return {**asdict(metrics), "events_per_s": round(len(stream) / seconds) if len(stream) else 0}


def _table(file: str, events: int, evaluated: int, k: int, results: dict[str, Result]) -> Table:
    table = Table(title=f"{escape(file)}: {events:,} events, {evaluated:,} predicted, lists of {k}")
    table.add_column("model")
    for column in ("HR", "MRR", "NDCG", "precision", "recall", "F1", "coverage", "popularity", "predictions"):
        table.add_column(column, justify="right")
    table.add_column("events/s", justify="right")
    for name, result in results.items():
        shares = [f"{result[key]:.4f}" for key in ("hr", "mrr", "ndcg", "precision", "recall", "f1", "coverage")]
        rest = [f"{result['popularity']:.1f}", f"{result['predictions']:,}", f"{result['events_per_s']:,}"]
        table.add_row(name, *shares, *rest)
    return table


def evaluate(
    file: Annotated[str, typer.Argument(help="recording: .csv, .csv.gz, .jsonl, .jsonl.gz or - (JSON Lines)")],
    start: Annotated[float, typer.Option("--from", min=0, max=1, help="share of events before the scored ones")] = 0.8,
    k: Annotated[int, typer.Option(min=1, help="length of the lists")] = 20,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Test, then learn a recording: each event is predicted from what came before it, then learned."""
    errors = Console(stderr=True)
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        events, stream = _stream(file, start, progress)
        names = [name for name, module in CONTENDERS.items() if find_spec(module)]
        results = {name: _result(name, stream, k, progress) for name in names}
    evaluated = int(stream.scored.sum())
    if json:
        report = {"file": file, "events": events, "evaluated": evaluated, "k": k, "models": results}
        typer.echo(msgspec.json.encode(report))
    else:
        Console().print(_table(file, events, evaluated, k, results))

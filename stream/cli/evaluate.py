"""``rivulet evaluate FILE``: how well the models predict what visitors of a recording did next, beside baselines."""

from __future__ import annotations

import time
from dataclasses import asdict
from functools import partial
from typing import Annotated, Final, cast

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from models.bootstrap import Interval, paired_intervals
from models.evaluation import Contender, Stream, measure, reciprocal_ranks
from stream.cli.contenders import BY_PARTITION, CONTENDERS, KNOWN, able, load, require, run_of, steps

WARM_UP: Final = 200  # events that make a contender compile every kernel

COLUMNS: Final = (
    *("HR", "MRR", "NDCG", "precision", "recall", "F1", "coverage", "popularity", "bias", "novelty", "calibration"),
    *("repeats", "predictions", "events/s"),
)

Result = dict[str, float | Interval | None]


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


def _add_intervals(
    visitors: NDArray[np.str_], results: dict[str, Result], ranks: dict[str, NDArray[np.float64]]
) -> None:
    """Intervals of hit rate and reciprocal rank, and of how far the blend is ahead on the same visitors."""
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
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for name, result in results.items():
        sure = [_with_spread(result, key) for key in ("hr", "mrr")]
        shares = [f"{result[key]:.4f}" for key in ("ndcg", "precision", "recall", "f1", "coverage")]
        calibration = result["calibration"]
        rest = [
            f"{result['popularity']:.1f}",
            f"{result['popularity_bias']:.2f}",
            f"{result['novelty']:.1f}",
            "-" if calibration is None else f"{calibration:.2f}",
            f"{result['repeat_share']:.2f}",
            f"{result['predictions']:,}",
            f"{result['events_per_s']:,}",
        ]
        table.add_row(name, *sure, *shares, *rest)
    return table


def _with_spread(result: Result, key: str) -> str:
    """A figure and half the width of its 95 % interval."""
    low, high = cast(Interval, result[f"{key}_interval"])
    return f"{result[key]:.4f} ±{(high - low) / 2:.3f}"


def evaluate(
    file: Annotated[str, typer.Argument(help="recording: .csv, .jsonl (also .gz, .zst), .parquet, or - (JSON Lines)")],
    start: Annotated[float, typer.Option("--from", min=0, max=1, help="share of events before the scored ones")] = 0.8,
    k: Annotated[int, typer.Option(min=1, help="length of the lists")] = 20,
    models: Annotated[str, typer.Option(help="names with commas, or all: every model, the blend's parts alone")] = "",
    items: Annotated[str | None, typer.Option(help="catalogue; else FILE's name with .items before .csv")] = None,
    partitions: Annotated[int, typer.Option(min=1, help="partitions of visitors, each with sessions of its own")] = 1,
    frozen: Annotated[bool, typer.Option("--frozen", help="learn nothing from the scored events")] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Test, then learn a recording: each event is predicted from what came before it, then learned.

    Example: rivulet evaluate clicks.csv.gz --models blend,covisit --json
    """
    names = list(CONTENDERS if not models else KNOWN if models == "all" else models.split(","))
    options = {name: {"partitions": partitions} if name in BY_PARTITION else {} for name in names}
    contenders = {name: partial(run_of(name), **options[name]) for name in names}
    results: dict[str, Result] = {}
    ranks: dict[str, NDArray[np.float64]] = {}
    with steps() as progress:
        loaded = load(file, items, progress)
        stream = loaded.stream(start, frozen=frozen)
        for name, run in contenders.items():
            if models == "all" and not able(name, stream):
                continue
            require(name, loaded, stream)
            results[name], ranks[name] = _run(name, run, stream, k, progress)
        progress.add_task("intervals", total=None)
        _add_intervals(loaded.visitors(stream), results, ranks)
    events, evaluated = len(loaded.recording), int(stream.scored.sum())
    if json:
        report = {"file": file, "events": events, "evaluated": evaluated, "k": k, "models": results}
        typer.echo(msgspec.json.encode(report))
    else:
        Console().print(_table(file, events, evaluated, k, results))

"""``rivulet tune FILE``: search better parameters of a model on a recording, by successive halving."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from models.evaluation import Metrics, measure
from models.halving import Setting, Trial, draw, rungs, successive_halving
from stream.cli.configurations import Configuration, defaults
from stream.cli.contenders import Loaded, load, require, steps
from stream.errors import BadInputError

SPAN: Final = 8.0  # a parameter is searched from its default divided by this to its default times this
UNSEEN: Final = 0.8  # share of the recording on which the search sees, learns and scores; the rest judges its result


def _metrics(loaded: Loaded, configuration: Configuration, k: int, until: float) -> Metrics:
    """Quality on the last fifth of the first `until` of the recording."""
    stream = loaded.stream(UNSEEN, until=until)
    return measure(stream, configuration.contender()(stream, k))


def _space(model: str, names: str) -> dict[str, float]:
    """The parameters to search, with their defaults."""
    known = defaults(model)
    wanted = names.split(",") if names else [name for name in known if name != "partitions"]
    for name in wanted:
        if name not in known:
            raise BadInputError(f"--parameters: {model} has no {name!r}; it has {', '.join(known) or 'none'}")
    if not wanted:
        raise BadInputError(f"--model: {model} has no parameters to tune")
    return {name: known[name] for name in wanted}


def tune(
    file: Annotated[str, typer.Argument(help="recording: .csv, .jsonl (also .gz, .zst), .parquet, or - (JSON Lines)")],
    model: Annotated[str, typer.Option(help="model to tune, as in evaluate --models")] = "covisit",
    parameters: Annotated[str, typer.Option(help="names with commas; else all of the model's")] = "",
    trials: Annotated[int, typer.Option(min=2, help="settings to try")] = 27,
    metric: Annotated[str, typer.Option(help="hr, mrr or ndcg")] = "mrr",
    k: Annotated[int, typer.Option(min=1, help="length of the lists")] = 20,
    items: Annotated[str | None, typer.Option(help="catalogue; else FILE's name with .items before .csv")] = None,
    out: Annotated[str, typer.Option(help="file to write the best settings to")] = "tuned.toml",
    seed: Annotated[int, typer.Option(help="draws other settings")] = 0,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Search better parameters of a model by successive halving, judged on events the search has not seen.

    Example: rivulet tune clicks.csv.gz --model covisit --trials 27 --out tuned.toml
    """
    if metric not in ("hr", "mrr", "ndcg"):
        raise BadInputError(f"--metric: must be hr, mrr or ndcg, not {metric!r}")
    default = _space(model, parameters)
    with steps() as progress:
        loaded = load(file, items, progress)
        require(model, loaded, loaded.stream())
        task = progress.add_task("compiling", total=None)
        tried = 0

        def score(setting: Setting, share: float) -> float:
            nonlocal tried
            found = float(getattr(_metrics(loaded, Configuration(model, setting), k, UNSEEN * share), metric))
            tried += 1
            progress.update(task, description=f"{tried} runs, now on {share:.0%} of the search's events")
            return found

        ranges = {name: (value / SPAN, value * SPAN) for name, value in default.items()}
        found = successive_halving(draw(ranges, default, trials, seed), score, rungs(trials))
        best = Configuration(model, found[0].setting)
        judged = {
            "default": _metrics(loaded, Configuration(model, {}), k, 1.0),
            "tuned": _metrics(loaded, best, k, 1.0),
        }
    text = best.toml(f"found by rivulet tune for {metric}@{k}")
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--out: {out}: {error.strerror}") from error
    if json:
        report: dict[str, Any] = {
            "file": file,
            "model": model,
            "metric": metric,
            "out": out,
            "parameters": best.parameters,
        }
        report |= {"trials": [trial._asdict() for trial in found], "unseen": judged}
        typer.echo(msgspec.json.encode(report))
    else:
        Console().print(_table(found, metric), _judgement(judged, metric), text, sep="\n", markup=False)


def _table(found: list[Trial], metric: str) -> Table:
    table = Table(title="Best settings by share of the data and quality")
    names = sorted(found[0].setting)
    for column in (*names, "share", metric):
        table.add_column(column, justify="right")
    for trial in found[:10]:
        table.add_row(*(f"{trial.setting[n]:.4g}" for n in names), f"{trial.share:.0%}", f"{trial.score:.4f}")
    return table


def _judgement(judged: dict[str, Metrics], metric: str) -> str:
    before, after = (getattr(judged[name], metric) for name in ("default", "tuned"))
    return f"On the last fifth, which the search did not see: {metric} {before:.4f} by default, {after:.4f} tuned."

"""``rivulet compare A.toml B.toml FILE``: two configurations on one recording, and whose lists differ most."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.bootstrap import Interval, paired_intervals
from models.evaluation import Stream, measure, reciprocal_ranks
from stream.cli.configurations import read_configuration
from stream.cli.contenders import Loaded, load, require, steps

SHOWN: Final = ("hr", "mrr", "ndcg", "coverage", "popularity_bias", "novelty", "calibration", "repeat_share")
Lists = NDArray[np.int32]


def differences(a: Lists, b: Lists) -> NDArray[np.float64]:
    """For each pair of lists, the share of the longer one's items that the other has not: 0 = the same items.

    Two lists without items do not differ.
    """
    found = np.zeros(len(a))
    for n in range(len(a)):
        mine, theirs = set(a[n][a[n] >= 0].tolist()), set(b[n][b[n] >= 0].tolist())
        longer = max(len(mine), len(theirs))
        found[n] = 1 - len(mine & theirs) / longer if longer else 0.0
    return found


def _users(
    names: NDArray[np.str_], differing: NDArray[np.float64], ranks: list[NDArray[np.float64]], n: int
) -> list[dict[str, Any]]:
    """The users whose lists differ most on average, ties by name; `names` says whose each list is."""
    users, index = np.unique(names, return_inverse=True)
    lists = np.bincount(index, minlength=len(users))
    sums = [np.bincount(index, values, minlength=len(users)) for values in (differing, *map(np.sign, ranks))]
    order = np.lexsort((users, -sums[0] / np.maximum(lists, 1)))[:n]
    return [
        {
            "user": str(users[u]),
            "lists": int(lists[u]),
            "differing": float(sums[0][u] / lists[u]),
            "hits_a": int(sums[1][u]),
            "hits_b": int(sums[2][u]),
        }
        for u in order
    ]


def compare(
    a: Annotated[str, typer.Argument(help="configuration, as rivulet tune writes it")],
    b: Annotated[str, typer.Argument(help="the other one")],
    file: Annotated[str, typer.Argument(help="recording: .csv, .jsonl (also .gz, .zst), .parquet, or - (JSON Lines)")],
    start: Annotated[float, typer.Option("--from", min=0, max=1, help="share of events before the scored ones")] = 0.8,
    k: Annotated[int, typer.Option(min=1, help="length of the lists")] = 20,
    users: Annotated[int, typer.Option(min=0, help="users to show")] = 10,
    items: Annotated[str | None, typer.Option(help="catalogue; else FILE's name with .items before .csv")] = None,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Compare two configurations on one recording, with paired intervals; name the users whose lists differ most.

    Example: rivulet compare tuned.toml default.toml clicks.csv.gz
    """
    configurations = {"a": read_configuration(a), "b": read_configuration(b)}
    with steps() as progress:
        loaded = load(file, items, progress)
        stream = loaded.stream(start)
        lists: dict[str, Lists] = {}
        for name, configuration in configurations.items():
            require(configuration.model, loaded, stream)
            task = progress.add_task(f"{name}: {configuration.model}", total=None)
            lists[name] = configuration.contender()(stream, k)
            progress.update(task, total=1, completed=1)
        progress.add_task("intervals", total=None)
        report = {"file": file, "k": k} | _report(loaded, stream, lists, users)
    if json:
        typer.echo(msgspec.json.encode(report))
    else:
        Console().print(_table(file, a, b, report), _most(report))


def _report(loaded: Loaded, stream: Stream, lists: dict[str, Lists], users: int) -> dict[str, Any]:
    """Metrics of both, how sure their differences are, and `users` users whose lists differ most."""
    report: dict[str, Any] = {name: asdict(measure(stream, found)) for name, found in lists.items()}
    ranks = {name: reciprocal_ranks(stream, found) for name, found in lists.items()}
    differing, visitors = differences(lists["a"], lists["b"]), loaded.visitors(stream)
    report |= {f"b_ahead_{name}_interval": ends for name, ends in _ahead(visitors, ranks).items()}
    report["differing"] = float(differing.mean()) if len(differing) else 0.0
    report["users"] = _users(visitors, differing, [ranks["a"], ranks["b"]], users)
    return report


def _ahead(visitors: NDArray[np.str_], ranks: dict[str, NDArray[np.float64]]) -> dict[str, Interval]:
    """95 % intervals of how far b is ahead of a on the same visitors."""
    hits = {name: np.sign(rank) for name, rank in ranks.items()}
    pairs = {"hr": hits, "mrr": ranks}
    return {name: paired_intervals(visitors, outcomes, against="a")["b"] for name, outcomes in pairs.items()}


def _table(file: str, a: str, b: str, report: dict[str, Any]) -> Table:
    table = Table(title=f"{escape(file)}: {report['a']['predictions']:,} lists of {report['k']}")
    for column in ("metric", a, b, "b - a", "95 % interval"):
        table.add_column(escape(column), justify="left" if column == "metric" else "right")
    for name in SHOWN:
        mine, theirs = report["a"][name], report["b"][name]
        if mine is None or theirs is None:
            continue
        low, high = report.get(f"b_ahead_{name}_interval", (None, None))
        interval = f"{low:+.4f} to {high:+.4f}" if low is not None else ""
        table.add_row(name, f"{mine:.4f}", f"{theirs:.4f}", f"{theirs - mine:+.4f}", interval)
    return table


def _most(report: dict[str, Any]) -> Table:
    table = Table(title=f"Whose lists differ most ({report['differing']:.0%} of the items on average)")
    for column in ("user", "lists", "differing", "hits a", "hits b"):
        table.add_column(column, justify="left" if column == "user" else "right")
    for user in report["users"]:
        cells = (f"{user['lists']:,}", f"{user['differing']:.0%}", str(user["hits_a"]), str(user["hits_b"]))
        table.add_row(escape(user["user"]), *cells)
    return table

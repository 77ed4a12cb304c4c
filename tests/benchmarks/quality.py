"""How good the lists are on the seven recordings: the blend beside every model alone. Prints the README's tables.

``python -m tests.benchmarks.quality [--files a,b] [--resume] [--results .rivulet/quality.jsonl] [--markdown|--json]``

Runs ``rivulet evaluate FILE --json`` in a fresh process for each file: with all models, split over four partitions, and
frozen. What each prints is kept in the results file at once; ``--resume`` runs only what is not there, and the tables
show what is.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from stream.cli.contenders import KNOWN
from tests.benchmarks.harness import ROOT, arguments, data_folder, machine

Metrics = dict[str, Any]
Pair = tuple[float, float]  # HR@20, MRR@20


class Wanted(NamedTuple):
    """What the blend is to reach on a file, and the aim beyond it."""

    reach: Pair
    aim: Pair


FILES: Final[dict[str, Wanted | None]] = {  # None: the best part, on both
    "retailrocket_seq_pseudots": Wanted((0.495, 0.225), (0.52, 0.25)),
    "yoochoose100k": Wanted((0.605, 0.282), (0.63, 0.30)),
    "bolcom_toy": Wanted((0.672, 0.358), (0.70, 0.38)),
    "rees46_head": None,
    "taobao_2h": None,
    "online_retail": None,
    "movielens100k": None,
}
RUNS: Final = {
    "all": ("--models", "all"),
    "split": ("--models", "blend,sknn", "--partitions", "4"),
    "frozen": ("--models", "blend,covisit,sknn", "--frozen"),
}
BOTH: Final = ("hr", "mrr")
LISTS: Final = {
    "coverage": "coverage",
    "novelty, bits": "novelty",
    "popularity bias": "popularity_bias",
    "calibration, bits": "calibration",
    "repeats": "repeat_share",
}


class Ran(msgspec.Struct):
    """One run of ``rivulet evaluate``: by model what it printed, and what it took."""

    file: str
    run: str
    models: dict[str, Metrics]
    cpu_s: float
    wall_s: float


Found = dict[tuple[str, str], Ran]


def evaluated(file: str, run: str) -> Ran:
    """Run it, compiling included."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    path = str(data_folder() / f"{file}.csv.gz")
    command = [sys.executable, "-m", "stream.cli", "evaluate", path, *RUNS[run], "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    models = msgspec.json.decode(done.stdout)["models"]
    return Ran(file, run, models, round(cpu_s, 1), round(time.monotonic() - began, 1))


def known(results: Path, *, resume: bool) -> Found:
    """What an earlier call found; the file is made anew unless it is to be resumed."""
    if not (resume and results.exists()):
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_bytes(b"")
    lines = msgspec.json.Decoder(Ran)
    runs = [lines.decode(line) for line in results.read_bytes().splitlines()]
    return {(ran.file, ran.run): ran for ran in runs}


def run_all(files: Sequence[str], results: Path, found: Found) -> None:
    """Run what is not found yet, and add it."""
    for file in files:
        for run in RUNS:
            if (file, run) in found:
                continue
            ran = found[file, run] = evaluated(file, run)
            with results.open("ab") as out:
                out.write(msgspec.json.encode(ran) + b"\n")
            print(f"{file} {run}: {ran.cpu_s:.0f} s of CPU, {ran.wall_s:.0f} s", file=sys.stderr, flush=True)


def short(value: float | None, digits: int = 3, sign: str = "") -> str:
    """A figure without the zero before its point; - if there is none."""
    if value is None:
        return "-"
    text = f"{value:{sign}.{digits}f}"
    return text if abs(value) >= 1 else text.replace("0.", ".", 1)


def pair(metrics: Metrics | None) -> str:
    """HR@20 / MRR@20."""
    return "-" if metrics is None else " / ".join(short(metrics[metric]) for metric in BOTH)


def parts(models: dict[str, Metrics]) -> dict[str, Metrics]:
    """All that the blend is compared with: not what knows the catalogue ahead, which no other does."""
    return {name: found for name, found in models.items() if name != "blend" and not name.endswith("_ahead")}


def best(models: dict[str, Metrics], metric: str) -> str:
    """The best part by one metric."""
    alone = parts(models)
    return max(alone, key=lambda name: float(alone[name][metric]))


def ahead(models: dict[str, Metrics], metric: str) -> str:
    """How far the blend is ahead of the best part, with the 95 % interval of that."""
    part = models[best(models, metric)]
    low, high = part[f"blend_ahead_{metric}_interval"]
    lead = short(models["blend"][metric] - part[metric], sign="+")
    return f"{lead} ({short(low, sign='+')} to {short(high, sign='+')})"


def missed(models: dict[str, Metrics], wanted: Pair) -> str:
    """Reached, or the metrics by which it was not."""
    short_of = [name.upper() for name, least in zip(BOTH, wanted, strict=True) if models["blend"][name] < least]
    return f"{' and '.join(short_of)} missed" if short_of else "reached"


def verdict(models: dict[str, Metrics], wanted: Wanted | None) -> str:
    """What was wanted, and whether that and the aim were reached."""
    if wanted is None:
        bar = (models[best(models, "hr")]["hr"], models[best(models, "mrr")]["mrr"])
        return f"best part: {missed(models, bar)}"
    reach, aim = (f"{' / '.join(map(short, bar))}: {missed(models, bar)}" for bar in wanted)
    return f"{reach}; aim {aim}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    first, *others = (f"| {' | '.join(line)} |" for line in (head, *rows))
    return "\n".join([first, "|" + "---|" * len(head), *others])


def against_the_best(found: dict[str, dict[str, Metrics]]) -> str:
    """Per file the blend, the best part, and what was wanted."""
    head = ("file", "blend", "best HR alone", "blend ahead", "best MRR alone", "blend ahead", "wanted of the blend")
    rows = []
    for file, models in found.items():
        compared: list[str] = []
        for metric in BOTH:
            name = best(models, metric)
            compared += [f"{short(models[name][metric])} {name}", ahead(models, metric)]
        rows.append((file, pair(models["blend"]), *compared, verdict(models, FILES[file])))
    return table(head, rows)


def every_model(found: dict[str, dict[str, Metrics]]) -> str:
    """Per model HR@20 / MRR@20 on each file, and how wide the widest interval of each file is."""
    names = sorted(KNOWN, key=lambda name: (name != "blend", "." in name, name.endswith("_ahead")))
    rows = [(name, *(pair(models.get(name)) for models in found.values())) for name in names]
    widest = (
        "95 % interval, at most ±",
        *(" / ".join(short(width(models, m)) for m in BOTH) for models in found.values()),
    )
    return table(("model", *found), [*rows, widest])


def width(models: dict[str, Metrics], metric: str) -> float:
    """Half of the widest interval."""
    return max(float(high - low) / 2 for low, high in (found[f"{metric}_interval"] for found in models.values()))


def lists(found: dict[str, dict[str, Metrics]]) -> str:
    """Per file what the lists are like beside being right: the blend's, and those of the best part by MRR."""
    rows = []
    for file, models in found.items():
        name = best(models, "mrr")
        both = [models["blend"], models[name]]
        rows.append((file, name, *(", ".join(short(one[key], 2) for one in both) for key in LISTS.values())))
    return table(("file", "best MRR alone", *LISTS), rows)


def other_modes(found: Found) -> str:
    """Per file with state split over four partitions, and frozen after training."""
    columns = {
        "blend, `--partitions 4`": ("split", "blend"),
        "sknn, `--partitions 4`": ("split", "sknn"),
        "blend, `--frozen`": ("frozen", "blend"),
        "covisit, `--frozen`": ("frozen", "covisit"),
        "sknn, `--frozen`": ("frozen", "sknn"),
    }
    rows = [
        (
            file,
            *(pair(found[file, run].models[name]) if (file, run) in found else "-" for run, name in columns.values()),
        )
        for file in FILES
        if any((file, run) in found for run, _ in columns.values())
    ]
    return table(("file", *columns), rows)


def markdown(found: Found) -> str:
    """The README's tables, one below the other."""
    whole = {file: found[file, "all"].models for file in FILES if (file, "all") in found}
    shown = [against_the_best(whole), lists(whole), every_model(whole), other_modes(found)]
    return "\n\n".join(shown)


def options() -> argparse.Namespace:
    """What is asked for."""
    parser = arguments("The blend and every model alone on the recordings in RIVULET_DATA.")
    parser.add_argument("--markdown", action="store_true", help="print the README's tables, as without --json")
    parser.add_argument("--files", default=",".join(FILES), help="names with commas; the tables show all that is known")
    parser.add_argument("--results", type=Path, default=Path(".rivulet/quality.jsonl"))
    parser.add_argument("--resume", action="store_true", help="leave out the runs that the results file holds")
    return parser.parse_args()


def main() -> None:
    """Run and print."""
    chosen = options()
    files = chosen.files.split(",")
    if unknown := set(files) - set(FILES):
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(FILES)}")
    found = known(chosen.results, resume=chosen.resume)
    run_all(files, chosen.results, found)
    if chosen.json:
        print(msgspec.json.encode({"runs": list(found.values()), "machine": machine()}).decode())
    else:
        print(markdown(found))


if __name__ == "__main__":
    main()

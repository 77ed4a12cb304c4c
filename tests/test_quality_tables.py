"""The README's tables of quality: what counts as the best part, and what is said of aims that were missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from tests.benchmarks.quality import RUNS, Ran, Wanted, ahead, best, known, markdown, short, verdict


def metrics(hr: float, mrr: float) -> dict[str, Any]:
    spread = {f"{name}_interval": (value - 0.01, value + 0.01) for name, value in (("hr", hr), ("mrr", mrr))}
    lead = {"blend_ahead_hr_interval": (0.006, 0.014), "blend_ahead_mrr_interval": (-0.004, 0.004)}
    lists = {"coverage": 0.5, "novelty": 10.04, "popularity_bias": 1.2, "calibration": None, "repeat_share": 0.1}
    return {"hr": hr, "mrr": mrr} | spread | lead | lists


MODELS = {
    "blend": metrics(0.61, 0.28),
    "covisit": metrics(0.6, 0.27),
    "blend.walk": metrics(0.55, 0.28),
    "blend_ahead": metrics(0.9, 0.9),
}


def test_the_best_part_is_by_each_metric_and_none_that_knows_the_catalogue_ahead() -> None:
    assert [best(MODELS, metric) for metric in ("hr", "mrr")] == ["covisit", "blend.walk"]
    assert ahead(MODELS, "hr") == "+.010 (+.006 to +.014)"
    assert ahead(MODELS, "mrr") == "+.000 (-.004 to +.004)"


def test_what_is_missed_is_said() -> None:
    assert verdict(MODELS, None) == "best part: reached"
    assert verdict(MODELS | {"content": metrics(0.62, 0.1)}, None) == "best part: HR missed"
    wanted = Wanted((0.605, 0.28), (0.63, 0.30))
    assert verdict(MODELS, wanted) == ".605 / .280: reached; aim .630 / .300: HR and MRR missed"


def test_figures_lose_only_the_zero_before_the_point() -> None:
    assert [short(value, 2) for value in (0.5, 1.0, 10.04, 20.5, -0.25, None)] == [
        ".50",
        "1.00",
        "10.04",
        "20.50",
        "-.25",
        "-",
    ]


def test_what_was_run_is_not_run_again_unless_the_file_is_made_anew(tmp_path: Path) -> None:
    results = tmp_path / "of" / "quality.jsonl"
    assert known(results, resume=True) == {}
    ran = Ran("bolcom_toy", "all", MODELS, 1.0, 2.0)
    results.write_bytes(msgspec.json.encode(ran) + b"\n")
    assert known(results, resume=True)["bolcom_toy", "all"].models["covisit"]["hr"] == 0.6
    assert known(results, resume=False) == {}
    assert not results.read_bytes()


def test_every_table_has_a_row_per_file_that_was_run() -> None:
    sknn = dict(MODELS, sknn=MODELS["covisit"])
    found = {("bolcom_toy", run): Ran("bolcom_toy", run, sknn, 1.0, 1.0) for run in RUNS}
    best, lists, every, modes = (table.splitlines() for table in markdown(found).split("\n\n"))
    assert best[2].endswith("| .672 / .358: HR and MRR missed; aim .700 / .380: HR and MRR missed |")
    assert lists[2] == "| bolcom_toy | blend.walk | .50, .50 | 10.04, 10.04 | 1.20, 1.20 | -, - | .10, .10 |"
    assert every[2] == "| blend | .610 / .280 |"
    assert every[-1] == "| 95 % interval, at most ± | .010 / .010 |"
    assert modes[2] == "| bolcom_toy | .610 / .280 | .600 / .270 | .610 / .280 | .600 / .270 | .600 / .270 |"

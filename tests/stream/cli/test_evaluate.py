from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from stream.cli.evaluate import evaluate
from stream.errors import BadInputError


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Forty visits of three items; the second follows the first, and then the first comes again."""
    rows = ["ts,user,session,item,type,value"]
    for visit in range(40):
        for step, item in enumerate((visit % 4, visit % 4 + 4, visit % 4)):
            rows.append(f"{1_700_000_000_000 + 1000 * len(rows)},u{visit},s{visit},i{item},view,{step}")
    path = tmp_path / "visits.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def report(*arguments: str) -> dict[str, dict[str, float | list[float]]]:
    app = typer.Typer()
    app.command()(evaluate)
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert told.keys() >= {"file", "events", "evaluated", "k", "models"}
    models: dict[str, dict[str, float | list[float]]] = told["models"]
    wanted = {"hr", "mrr", "ndcg", "precision", "recall", "f1", "coverage", "popularity", "predictions", "events_per_s"}
    assert all(figures.keys() >= wanted for figures in models.values()), models
    return models


def test_models_are_told_with_intervals_and_how_far_the_blend_is_ahead(recording: Path) -> None:
    models = report(str(recording), "--models", "popularity,blend", "--partitions", "2")
    assert list(models) == ["popularity", "blend"]
    blend, other = models["blend"], models["popularity"]
    assert blend["hr"] == blend["mrr"] == 1.0
    assert blend["hr_interval"] == [1.0, 1.0]
    assert "blend_ahead_hr_interval" not in blend
    low, high = other["blend_ahead_mrr_interval"]  # type: ignore[misc]  # a pair
    assert isinstance(other["mrr"], float)
    assert 0 < low <= 1 - other["mrr"] <= high


def test_a_users_sessions_are_one_visitor(tmp_path: Path) -> None:
    """One user always goes on to the popular item, the other never: two visitors say nothing of a third."""
    lines = ["ts,user,session,item,type,value"]
    for visit in range(80):
        for item in (f"i{visit}", "top" if visit % 2 else f"rare{visit}"):
            lines.append(f"{1_700_000_000_000 + len(lines)},u{visit % 2},s{visit},{item},view,")
    path = tmp_path / "two.csv"
    path.write_text("\n".join(lines) + "\n")
    figures = report(str(path), "--models", "popularity", "--from", "0.5", "--k", "1")["popularity"]
    assert (figures["hr"], figures["hr_interval"]) == (0.5, [0.0, 1.0])


def test_frozen_models_learn_nothing_from_what_they_are_scored_on(recording: Path) -> None:
    with recording.open("a") as file:
        for visit in range(10):
            for item in ("new1", "new2"):
                file.write(f"{1_700_000_900_000 + visit},late{visit},late{visit},{item},view,\n")
    learned = report(str(recording), "--from", "0.857", "--models", "covisit,sknn,blend,sequential_rules")
    frozen = report(str(recording), "--from", "0.857", "--models", "covisit,sknn,blend,sequential_rules", "--frozen")
    for name in learned:
        assert learned[name]["hr"] == 0.9, name  # all but the first visitor of the new items
        assert frozen[name]["hr"] == 0.0, name


def test_frozen_models_learn_no_more_of_visitors_whom_they_know(tmp_path: Path) -> None:
    """All were learned with two items. What they go on to is known, but four others come before it."""
    touches = [(f"u{n}", item) for item in ("tent", "mat") for n in range(40)]
    touches += [("v1", "new1"), ("v2", "new2"), *((f"w{n}", f"decoy{n}") for n in range(4))]
    touches += [(f"u{n}", item) for n in range(40) for item in ("new1", "tent", "new2")]
    path = tmp_path / "fashion.csv"
    lines = [f"{1_700_000_000_000 + n},{user},{user},{item},view," for n, (user, item) in enumerate(touches)]
    path.write_text("\n".join(["ts,user,session,item,type,value", *lines]) + "\n")
    learned, frozen = (
        report(str(path), "--from", "0.4174", "--k", "3", "--models", "covisit,sknn,blend,blend.sessions", *more)
        for more in ((), ("--frozen",))
    )
    for name in learned:
        assert learned[name]["hr"] > 0.8, name  # type: ignore[operator]  # not an interval
        assert frozen[name]["hr"] == pytest.approx(1 / 3), name  # the tent, which they knew of


def test_an_unknown_model_is_named_with_the_known_ones(recording: Path) -> None:
    with pytest.raises(BadInputError, match="there is no model 'blnd'; choose from covisit"):
        report(str(recording), "--models", "blnd")


def test_a_catalogue_beside_the_recording_makes_content_a_contender(recording: Path) -> None:
    with pytest.raises(BadInputError, match="content needs a catalogue, which it does not have"):
        report(str(recording), "--models", "content")
    table = ["item,title,category,price,brand"]
    table += [f"i{n},thing {n % 4},c{n % 4},{10 + n},maker{n % 4}" for n in range(8)]
    (recording.parent / "visits.items.csv").write_text("\n".join(table) + "\n")
    models = report(str(recording), "--models", "content,content_ahead,tencent_rec,popularity", "--k", "1")
    assert models["content"]["hr"] == models["content_ahead"]["hr"] == 1.0
    content, popular = (models[name]["calibration"] for name in ("content", "popularity"))
    assert isinstance(content, float)
    assert isinstance(popular, float)
    assert content < popular
    assert models["content"]["repeat_share"] > 0  # type: ignore[operator]  # not an interval
    assert models["tencent_rec"]["calibration"] is not None


def test_metrics_of_categories_are_missing_without_a_catalogue(recording: Path) -> None:
    models = report(str(recording), "--models", "popularity")
    assert models["popularity"]["calibration"] is None

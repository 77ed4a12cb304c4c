from __future__ import annotations

import json
import random
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from stream.cli.compare import compare, differences
from stream.cli.configurations import Configuration, defaults, read_configuration
from stream.cli.tune import tune
from stream.errors import BadInputError


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Fashion changes every 6,000 s: what is popular now was not before, so that a short half-life is right."""
    chance, rows = random.Random(5), ["ts,user,session,item,type,value"]
    for n in range(1_500):
        era, user = n // 50, n % 25
        item = f"i{5 * era + chance.randrange(5)}"
        rows.append(f"{1_700_000_000_000 + 120_000 * n},u{user},,{item},view,")
    path = tmp_path / "fashions.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def run(verb: Any, *arguments: str) -> str:
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False).stdout


def test_tune_varies_the_blend(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.toml"
    assert defaults("blend").keys() == {"partitions", "half_life_s", "rate", "near"}
    options = ("--model", "blend", "--trials", "3", "--k", "5", "--out", str(out), "--json")
    found = json.loads(run(tune, str(recording), *options))
    assert found["parameters"].keys() == {"half_life_s", "rate", "near"}
    assert len({trial["score"] for trial in found["trials"]}) > 1  # the parameters reach the lists
    assert read_configuration(str(out)).model == "blend"


def test_tune_finds_a_shorter_half_life_and_writes_what_compare_reads(recording: Path, tmp_path: Path) -> None:
    out, slow = tmp_path / "tuned.toml", tmp_path / "slow.toml"
    options = ("--model", "popularity", "--trials", "9", "--k", "5", "--out", str(out))
    found = json.loads(run(tune, str(recording), *options, "--json"))
    assert found["parameters"]["half_life_s"] < 86_400
    assert found["unseen"]["tuned"]["mrr"] > found["unseen"]["default"]["mrr"]
    assert len(found["trials"]) == 9
    assert tomllib.loads(out.read_text())["model"] == "popularity"
    assert read_configuration(str(out)).parameters == pytest.approx(found["parameters"], rel=1e-5)
    assert json.loads(run(tune, str(recording), *options, "--json")) == found  # the same seed, the same search

    slow.write_text('model = "popularity"\n[parameters]\nhalf_life_s = 1e9\n')
    report = json.loads(run(compare, str(slow), str(out), str(recording), "--k", "5", "--users", "3", "--json"))
    assert report["b"]["mrr"] > report["a"]["mrr"]
    low, high = report["b_ahead_mrr_interval"]
    assert 0 < low <= report["b"]["mrr"] - report["a"]["mrr"] <= high
    assert 0 < report["differing"] <= 1
    shares = [user["differing"] for user in report["users"]]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert all(user["user"].startswith("u") and user["lists"] > 0 for user in report["users"])
    same = json.loads(run(compare, str(slow), str(slow), str(recording), "--json"))
    assert same["differing"] == 0
    assert same["b_ahead_hr_interval"] == [0, 0]
    assert "Whose lists differ most" in run(compare, str(slow), str(out), str(recording))
    assert "which the search did not see" in run(tune, str(recording), *options)


def test_differences_of_lists() -> None:
    a = np.array([[1, 2, 3], [1, -1, -1], [-1, -1, -1], [4, 5, 6]], dtype=np.int32)
    b = np.array([[3, 1, 2], [1, 2, -1], [-1, -1, -1], [7, 8, 9]], dtype=np.int32)
    assert differences(a, b).tolist() == [0.0, 0.5, 0.0, 1.0]


def test_parameters_go_to_the_model_in_their_type() -> None:
    assert defaults("sequential_rules") == {"steps": 10, "rules": 100}
    contender: Any = Configuration("sequential_rules", {"steps": 2.6, "rules": 0.2}).contender()
    assert contender.keywords == {"steps": 3, "rules": 1}
    text = Configuration("popularity", {"half_life_s": 1234.56789}).toml("two\nlines")
    assert text == '# two\n# lines\nmodel = "popularity"\n\n[parameters]\nhalf_life_s = 1234.57\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model = 3", 'needs model = "name"'),
        ('model = "covisit"\nother = 1', "and nothing else"),
        ('model = "covist"', "model: there is no model 'covist'"),
        ('model = "popularity"\n[parameters]\nspeed = 1', "speed: popularity has only half_life_s"),
        ('model = "popularity"\n[parameters]\nhalf_life_s = 0', "half_life_s: must be a number > 0, not 0"),
        ('model = "popularity"\n[parameters]\nhalf_life_s = "1"', "must be a number > 0, not '1'"),
        ("model =", "c.toml: "),
    ],
)
def test_a_configuration_that_is_wrong_is_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(BadInputError, match=problem):
        read_configuration(str(path))


def test_options_that_are_wrong_are_named(recording: Path, tmp_path: Path) -> None:
    for options, problem in (
        (("--metric", "luck"), "must be hr, mrr or ndcg"),
        (("--parameters", "speed"), "covisit has no 'speed'; it has half_life_s"),
        (("--model", "blend.covisit", "--parameters", "speed"), "blend.covisit has no 'speed'"),
        (("--model", "content"), "needs a catalogue"),
    ):
        with pytest.raises(BadInputError, match=problem):
            run(tune, str(recording), *options)
    with pytest.raises(BadInputError, match="No such file"):
        read_configuration(str(tmp_path / "absent.toml"))

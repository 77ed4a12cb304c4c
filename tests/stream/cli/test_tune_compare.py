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

from models.blend_features import VOTERS
from models.covisitation import power_law
from stream.cli.common import load_settings
from stream.cli.compare import compare, differences
from stream.cli.configurations import Configuration, defaults, read_configuration
from stream.cli.tune import tune
from stream.errors import BadInputError, ConfigurationError
from stream.keys import Keys
from stream.rules import rules_of, space_of
from stream.stages.ranking import BlendRanking, CovisitRanking
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules


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
    assert tomllib.loads(out.read_text())["evaluate"]["model"] == "popularity"
    assert read_configuration(str(out)).parameters == pytest.approx(found["parameters"], rel=1e-5)
    assert json.loads(run(tune, str(recording), *options, "--json")) == found  # the same seed, the same search

    slow.write_text('[evaluate]\nmodel = "popularity"\nhalf_life_s = 1e9\n')
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


def test_a_users_sessions_are_one_visitor_also_where_two_are_compared(tmp_path: Path) -> None:
    """What was popular for ever is right for one user, what is popular just now for the other."""
    lines = ["ts,user,session,item,type,value"]
    for visit in range(120):
        item = "old" if visit < 60 or visit % 2 else "now"
        for touched in (f"i{visit}", item):
            lines.append(f"{1_700_000_000_000 + 1000 * len(lines)},u{visit % 2},s{visit},{touched},view,")
    path, old, new = tmp_path / "two.csv", tmp_path / "old.toml", tmp_path / "new.toml"
    path.write_text("\n".join(lines) + "\n")
    old.write_text(Configuration("popularity", {"half_life_s": 1e9}).toml())
    new.write_text(Configuration("popularity", {"half_life_s": 1.0}).toml())
    report = json.loads(run(compare, str(old), str(new), str(path), "--k", "1", "--from", "0.75", "--json"))
    assert report["a"]["hr"] == 0.5
    low, high = report["b_ahead_hr_interval"]
    assert (low, high) == (-1.0, 0.0)


def test_differences_of_lists() -> None:
    a = np.array([[1, 2, 3], [1, -1, -1], [-1, -1, -1], [4, 5, 6]], dtype=np.int32)
    b = np.array([[3, 1, 2], [1, 2, -1], [-1, -1, -1], [7, 8, 9]], dtype=np.int32)
    assert differences(a, b).tolist() == [0.0, 0.5, 0.0, 1.0]


def test_parameters_go_to_the_model_in_their_type() -> None:
    assert defaults("sequential_rules") == {"steps": 10, "rules": 100}
    contender: Any = Configuration("sequential_rules", {"steps": 2.6, "rules": 0.2}).contender()
    assert contender.keywords == {"steps": 3, "rules": 1}


def test_a_file_says_what_a_worker_takes_and_what_only_compare_does(tmp_path: Path) -> None:
    path = tmp_path / "tuned.toml"
    given = {"half_life_s": 86_400.0, "vote_exponent": 1.23456789, "step_share": 0.25, "teach_exponent": 2.0}
    path.write_text(Configuration("covisit", given).toml("two\nlines"))
    assert path.read_text().splitlines() == [
        *("# two", "# lines", 'ranking = "covisit"', "half_life_days = 1.0", "near = 1.23457", "step_share = 0.25", ""),
        *("# workers have this fixed: what follows is for rivulet compare alone", "[evaluate]", "teach_exponent = 2.0"),
    ]
    found = read_configuration(str(path))
    assert (found.model, found.parameters) == ("covisit", {**given, "vote_exponent": 1.23457})
    popular = Configuration("popularity", {"half_life_s": 5.0})
    assert popular.toml() == (
        "\n# no worker ranks by popularity: what follows is for rivulet compare alone\n"
        '[evaluate]\nmodel = "popularity"\nhalf_life_s = 5.0\n'
    )


def test_a_worker_ranks_with_what_was_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tuned.toml"
    monkeypatch.setenv("RIVULET_SETTINGS", str(path))
    path.write_text(Configuration("blend", {"half_life_s": 43_200.0, "rate": 0.2, "near": 0.7}).toml())
    settings = load_settings()
    rules, space = rules_of(settings), space_of(settings)
    assert (rules.ranking, rules.blend_rate, rules.near, space.rows.half_life_s) == ("blend", 0.2, 0.7, 43_200.0)
    stage, successor = (UserStage(space, Keys(), rules, 1) for _ in range(2))
    stage.open(0, None)
    successor.open(0, stage.copy(0).whole())
    assert stage.shards[0].blend.rate == successor.shards[0].blend.rate == 0.2
    assert isinstance(stage.ranking, BlendRanking)
    assert stage.ranking._votes.near.tolist() == power_law(0.7, VOTERS).tolist()
    path.write_text(Configuration("covisit", {"vote_exponent": 0.7, "step_share": 0.1, "teach_exponent": 2.0}).toml())
    stage = UserStage(space, Keys(), rules_of(load_settings()), 1)
    assert isinstance(stage.ranking, CovisitRanking)
    assert stage.ranking._votes.near.tolist() == power_law(0.7).tolist()
    assert stage.ranking._votes.step_share == 0.1
    path.write_text(Configuration("popularity", {"half_life_s": 5.0}).toml())
    with pytest.raises(ConfigurationError, match="model: no worker ranks by popularity; this is for `rivulet compare`"):
        load_settings()


def test_a_worker_that_nobody_tuned_ranks_with_the_models_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIVULET_SETTINGS", raising=False)
    assert rules_of(load_settings()) == UserRules()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ranking = 3", 'needs ranking = "blend" or "covisit", or model = "name" in a table'),
        ("near = 1.0", 'needs ranking = "blend"'),
        ('ranking = "blend"\n[evaluate]\nmodel = "popularity"', 'needs ranking = "blend"'),
        ('[evaluate]\nmodel = "blend"', 'needs ranking = "blend"'),
        ("ranking = [1]", 'needs ranking = "blend"'),
        ("evaluate = 1", 'needs ranking = "blend"'),
        (
            'ranking = "covisit"\nother = 1',
            "other: covisit has only half_life_days, near, step_share, \\[eval",
        ),
        ('ranking = "covisit"\nteach_exponent = 1', "teach_exponent: covisit has only"),
        ('ranking = "covisit"\nkafka = "b:1"', "kafka: covisit has only"),
        ('[evaluate]\nmodel = "covist"', "model: there is no model 'covist'"),
        ('[evaluate]\nmodel = "popularity"\nspeed = 1', "speed: popularity has only \\[evaluate\\] half_life_s"),
        ('[evaluate]\nmodel = "popularity"\nhalf_life_s = 0', "half_life_s: must be a number > 0, not 0"),
        ('ranking = "blend"\nblend_rate = "1"', "blend_rate: must be a number > 0, not '1'"),
        ("ranking =", "c.toml: "),
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

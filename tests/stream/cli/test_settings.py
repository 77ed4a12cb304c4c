"""Settings from flags, environment and a file, in this order; what is wrong with a file is one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.cli import build
from stream.cli.common import load_settings
from stream.errors import ConfigurationError
from stream.settings import Settings

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a settings file that the environment names."""
    path = tmp_path / "shop.toml"

    def written(text: str) -> Path:
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("RIVULET_SETTINGS", str(path))
        return path

    return written


def test_flags_go_before_the_environment_before_the_file_before_the_default(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write('kafka = "file:1"\nredis = "redis://file/0"\ngroup = "file"\nk = 7\nkafka_check_hostname = false\n')
    monkeypatch.setenv("RIVULET_REDIS", "redis://environment/0")
    monkeypatch.setenv("RIVULET_GROUP", "environment")
    settings = load_settings(group="flag", kafka=None)
    assert (settings.group, settings.redis, settings.kafka) == ("flag", "redis://environment/0", "file:1")
    assert (settings.k, settings.kafka_check_hostname, settings.prefix) == (7, False, "rv")


def test_a_variable_that_is_no_setting_is_told_and_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HISTROY", "QQ", "TEST_KAFKA", "TEST_AWAY_S", "DATA", "KERNEL_CACHE"):
        monkeypatch.setenv(f"RIVULET_{name}", "7")
    monkeypatch.setenv("RIVULET_SETTINGS", "")
    monkeypatch.setenv("RIVULET_LOG_LEVEL", "info")
    monkeypatch.setenv("rivulet_group", "ours")
    assert load_settings().group == "ours"
    assert capsys.readouterr().err.splitlines() == [
        "rivulet: RIVULET_HISTROY is no setting. Did you mean RIVULET_HISTORY?",
        "rivulet: RIVULET_QQ is no setting. See `rivulet settings` for all.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kafak = 'x:1'", "kafak is no setting; did you mean kafka?"),
        ("wholly_unknown = 1", "wholly_unknown is no setting; see `rivulet settings` for all"),
        ("[kafka]\nserver = 'x'", "kafka={'server': 'x'}: Input should be a valid string"),
        ("segments = 1", "segments=1: Input should be greater than or equal to 2"),
        ("on_gap = 'ignore'", "on_gap='ignore': Input should be 'stop' or 'accept'"),
        ("kafka_password = 'x'", "kafka_password is a secret: take it out and set RIVULET_KAFKA_PASSWORD"),
        ("snapshot_key = 'x'", "snapshot_key is a secret"),
        ("redis = 'redis://h/0?password=word'", "redis holds a password: take it out and set RIVULET_REDIS_PASSWORD"),
        ("redis = 'redis://u:word@h/0'", "redis holds a password: take it out and set RIVULET_REDIS_PASSWORD"),
        ("kafka = ", "is not TOML: Invalid value (at end of document)"),
        ("k = 1\nk = 2", "is not TOML: Cannot overwrite a value"),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line_that_names_file_and_key(write: Any, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(ConfigurationError) as refused:
        load_settings()
    told = str(refused.value)
    assert told.startswith(f"settings file {path}")
    assert message in told
    assert "\n" not in told
    assert "word" not in told.replace("password", "").replace("PASSWORD", "")


def test_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RIVULET_SETTINGS", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigurationError, match=r"^settings file .*none\.toml: No such file or directory$"):
        load_settings()


def test_bad_values_name_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"^--web-port='x': Input should be a valid integer"):
        load_settings(web_port="x")
    monkeypatch.setenv("RIVULET_K", "1000")
    with pytest.raises(ConfigurationError, match=r"^setting k \(RIVULET_K\)='1000': Input should be less than"):
        load_settings()


def test_the_verb_shows_sources_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIVULET_SETTINGS", raising=False)
    monkeypatch.setenv("RIVULET_SETTINGS", "")  # so that what the verb sets is taken back
    monkeypatch.setenv("RIVULET_REDIS", "rediss://u:word@h/0?password=word")
    monkeypatch.setenv("RIVULET_KAFKA_PASSWORD", "word")
    path = tmp_path / "shop.toml"
    path.write_text("history = 9\n")
    result = CliRunner().invoke(build(), ["--settings", str(path), "settings", "--json"], catch_exceptions=False)
    rows = {row["setting"]: row for row in json.loads(result.stdout)}
    assert list(rows) == [f"RIVULET_{name.upper()}" for name in Settings.model_fields]
    assert (rows["RIVULET_HISTORY"]["value"], rows["RIVULET_HISTORY"]["source"]) == (9, "file")
    assert (rows["RIVULET_REDIS"]["value"], rows["RIVULET_REDIS"]["source"]) == (
        "rediss://u:***@h/0?password=***",
        "environment",
    )
    assert rows["RIVULET_K"]["source"] == "default"
    assert "word" not in result.stdout.replace("password", "").replace("PASSWORD", "").replace("Password", "")


def test_the_readme_example_is_a_settings_file(write: Any) -> None:
    (example,) = re.findall(r"```toml\n(kafka = .*?)```", README, re.S)
    write(example)
    settings = load_settings()
    assert settings.kafka_sasl_mechanism == "SCRAM-SHA-512"
    assert settings.events_partitions == 16


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KAFKA", "foo:bar", "'foo:bar' is not host:port"),
        ("KAFKA", "", "'' is not host:port"),
        ("KAFKA", "a:9092,b", "'b' is not host:port"),
        ("GROUP", "", "at least 1 character"),
        ("GATEWAY_ORIGINS", "https://a.example, shop.example", "'shop.example' is no origin such as https://"),
        ("GATEWAY_ORIGINS", "https://a.example/page", "'https://a.example/page' is no origin"),
        ("LATENESS_HOURS", "inf", "finite number"),
        ("SESSION_S", "nan", "finite number"),
    ],
)
def test_what_could_only_fail_later_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(f"RIVULET_{name}", value)
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        load_settings()
    assert f"RIVULET_{name}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_servers_and_any_case_of_the_log_level_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVULET_KAFKA", "a:9092,[::1]:9093")
    monkeypatch.setenv("RIVULET_LOG_LEVEL", "WARNING")
    settings = load_settings()
    assert (settings.kafka, settings.log_level) == ("a:9092,[::1]:9093", "warning")


def test_the_version_is_told() -> None:
    shown = CliRunner().invoke(build(), ["--version"])
    assert re.fullmatch(r"rivulet \d+\.\d+\.\d+\s*", shown.stdout)

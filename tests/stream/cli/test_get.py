"""``rivulet get`` against a real Redis."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis
import typer
from typer.testing import CliRunner

from stream.cli.get import GRANTS as SAID
from stream.cli.get import get
from stream.errors import BadInputError
from stream.keys import Keys
from stream.stages.privacy import GRANTS
from tests.patience import PATIENCE_S
from tests.reader_shop import rendered

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cli() -> typer.Typer:
    app = typer.Typer()
    app.command()(get)
    return app


def fill(url: str, keys: Keys) -> None:
    offers = {"v": 1, "ts": 5, "offers": [{"id": "o1", "score": 2.0, "until": 4_102_444_800_000, "why": "i9"}]}
    with redis.Redis.from_url(url) as client:
        client.set(keys.recs("u1"), rendered(["item[bold]", "b"], ts=1_700_000_000_000), ex=3_600)
        client.set(keys.offers("u1"), json.dumps(offers), ex=3_600)
        client.hset(keys.profile("u1"), mapping={"segment": "3", "last_ts": "1700000000000"})


def test_get_prints_the_page_of_a_user(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    fill(redis_url, Keys(topic_prefix))
    done = CliRunner().invoke(
        cli, ["u1", "--offers", "--redis", redis_url, "--prefix", topic_prefix], catch_exceptions=False
    )
    for text in ("u1  segment 3", "2023-11-14 22:13:20 UTC", "item[bold]", "covisit", "o1", "2100-01-01"):
        assert text in done.stdout


def test_get_prints_json(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    fill(redis_url, Keys(topic_prefix))
    arguments = ["u1", "--redis", redis_url, "--prefix", topic_prefix, "--k", "1", "--json"]
    page = json.loads(CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout)
    assert page["recommendations"]["items"] == ["item[bold]"]
    assert (page["profile"], page["offers"][0]["id"], page["user"]) == (
        {"segment": "3", "last_ts": "1700000000000"},
        "o1",
        "u1",
    )


def test_get_shows_what_is_asked_for(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    keys = Keys(topic_prefix)
    fill(redis_url, keys)
    with redis.Redis.from_url(redis_url) as client:
        client.set(keys.item("i9"), '{"v":1,"title":"Tunnel [tent]"}', ex=3_600)
        bag = {"title": "Bag", "price": 19.5, "currency": "EUR", "category": "camping", "availability": "limited"}
        client.set(keys.item("b"), json.dumps({"v": 1, **bag}), ex=3_600)
    address = ["u1", "--redis", redis_url, "--prefix", topic_prefix]

    def shown(*flags: str) -> str:
        return CliRunner(env={"COLUMNS": "200"}).invoke(cli, [*address, *flags], catch_exceptions=False).stdout

    plain = shown()
    assert "Bag" in plain
    assert "19.5 EUR" in plain
    assert "o1" not in plain
    assert "last_ts" not in plain
    assert "Others who looked at Tunnel [tent]" in shown("--why")
    assert "o1" in shown("--offers")
    assert "2023-11-14" in shown("--profile").split("last_ts")[1]
    assert "item[bold]" not in shown("--category", "camping")
    assert "item[bold]" not in shown("--min-price", "19", "--max-price", "20", "--availability", "limited")
    assert "does the catalogue tell prices" in shown("--max-price", "19")
    with pytest.raises(BadInputError, match="no availability"):
        shown("--availability", "in_stock", "--availability", "soon")
    assert json.loads(shown("--json"))["because"][0] == "Others who looked at Tunnel [tent] also looked at this"


def test_watching_prints_what_has_changed_and_ends_cleanly(redis_url: str, topic_prefix: str) -> None:
    keys = Keys(topic_prefix)
    fill(redis_url, keys)
    flags = ["u1", "--redis", redis_url, "--prefix", topic_prefix, "--watch", "--every", "0.05", "--json"]
    command = [sys.executable, "-m", "stream.cli", "get", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as watching:
        assert watching.stdout is not None
        try:
            assert json.loads(watching.stdout.readline())["recommendations"]["items"] == ["item[bold]", "b"]
            with redis.Redis.from_url(redis_url) as client:
                client.set(keys.recs("u1"), rendered(["new"]), ex=3_600)
            assert json.loads(watching.stdout.readline())["recommendations"]["items"] == ["new"]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(PATIENCE_S) == 0
            assert watching.stdout.read() == ""
        finally:
            watching.kill()


def test_get_says_when_there_is_nothing(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    done = CliRunner().invoke(cli, ["nobody", "--redis", redis_url, "--prefix", topic_prefix], catch_exceptions=False)
    assert "no recommendations, not even trending items" in done.stdout
    call = ["nobody", "--redis", redis_url, "--prefix", topic_prefix, "--category", "no [such]"]
    done = CliRunner().invoke(cli, call, catch_exceptions=False)
    assert "does the catalogue have category no [such]?" in done.stdout


def test_ids_are_whole_in_a_narrow_terminal(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    keys, item = Keys(topic_prefix), "cast-iron-pan-" * 6
    with redis.Redis.from_url(redis_url) as client:
        client.set(keys.recs("u1"), rendered([item], ts=1_700_000_000_000), ex=3_600)
    address = ["u1", "--redis", redis_url, "--prefix", topic_prefix]
    said = CliRunner(env={"COLUMNS": "60"}).invoke(cli, address, catch_exceptions=False).stdout
    rows = [line.split("│") for line in said.splitlines() if line.startswith("│")]
    assert "".join(row[2].strip() for row in rows) == item


@pytest.mark.parametrize(
    ("consent", "words"),
    [
        ("0", "nothing said"),
        ("33", "analytics_storage granted, ad_personalization denied"),
        ("8", "personalization_storage denied"),
    ],
)
def test_consent_is_told_in_words(
    redis_url: str, topic_prefix: str, cli: typer.Typer, consent: str, words: str
) -> None:
    assert {name: 2 * place for place, name in enumerate(SAID)} == GRANTS  # as the workers write it
    keys = Keys(topic_prefix)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(keys.profile("u1"), mapping={"consent": consent})
    address = ["u1", "--profile", "--redis", redis_url, "--prefix", topic_prefix]
    said = CliRunner(env={"COLUMNS": "200"}).invoke(cli, address, catch_exceptions=False).stdout
    assert f"{consent} ({words})" in said

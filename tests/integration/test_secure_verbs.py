"""Commands under TLS, a login and the README's access lists: each role does its work, and no more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stream.cli import build
from stream.errors import ConfigurationError
from stream.kafka import careful_producer
from stream.settings import Settings
from stream.topics import create, layout
from tests.gateways import gateway
from tests.integration.test_secure import login
from tests.records import event
from tests.secure_servers import Certificates, SecureKafka, SecureRedis
from tests.worker_process import environment

VIEW = event("u1", "tent")  # of the time of the other tests on these servers: theirs must not be late
As = Callable[..., str]


@pytest.fixture(scope="module")
def servers(
    secure_kafka: SecureKafka, certificates: Certificates, secure_redis: SecureRedis
) -> Callable[..., Settings]:
    asyncio.run(create(secure_kafka.bootstrap, layout()))

    def settings(user: str, **more: Any) -> Settings:
        cache = secure_redis if user in ("operator", "privacy", "frontend", "worker") else None
        return login(user, secure_kafka, certificates, cache, **more)

    return settings


@pytest.fixture
def as_user(servers: Callable[..., Settings]) -> As:
    """Runs ``rivulet`` with somebody's login; what it prints."""

    def run(user: str, *arguments: str, code: int = 0, stdin: str = "") -> str:
        result = CliRunner().invoke(build(), arguments, env=environment(servers(user)), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result.stdout

    return run


def test_the_shops_producer_publishes_and_no_more(as_user: As) -> None:
    assert json.loads(as_user("producer", "publish", "-", "--json", stdin=json.dumps(VIEW)))["published"] == 1
    with pytest.raises(ConfigurationError):
        as_user("producer", "catalogue", "put", "-", stdin='{"item_id":"tent"}')
    with pytest.raises(ConfigurationError):
        as_user("producer", "dlq", "list")


async def test_a_gateway_needs_what_a_producer_needs(servers: Callable[..., Settings]) -> None:
    settings = servers("producer").model_dump(exclude={"kafka", "gateway_port", "gateway_private_port"})
    async with gateway(servers("producer").kafka, **settings) as (_, door):
        assert (await door.ask("GET", "/readyz")).status == 200
        assert (await door.post([VIEW, {}])).said["accepted"] == 1


def test_who_keeps_the_catalogue_puts_lists_and_withdraws(as_user: As, tmp_path: Path) -> None:
    feed = tmp_path / "feed.jsonl"
    feed.write_text('{"item_id":"tent","price":5}\n{"item_id":"bag"}\n')
    assert json.loads(as_user("stock", "catalogue", "put", str(feed), "--json"))["written"] == 2
    feed.write_text('{"item_id":"tent","price":6}\n')
    assert json.loads(as_user("stock", "catalogue", "put", str(feed), "--whole", "--json"))["withdrawn"] == 1
    assert json.loads(as_user("stock", "catalogue", "list", "--json"))["price"] == 6
    assert json.loads(as_user("stock", "catalogue", "withdraw", "tent", "--json")) == {"withdrawn": 1}
    offers = tmp_path / "offers.toml"
    offers.write_text('[[offers]]\nid = "o"\nitems = ["tent"]\nvalue = 1.0\n')
    assert json.loads(as_user("stock", "offers", str(offers), "--json"))["published"] == 1
    with pytest.raises(ConfigurationError):
        as_user("stock", "publish", "-", stdin=json.dumps(VIEW))


def test_an_operator_records_and_looks_after_dead_letters(
    as_user: As, servers: Callable[..., Settings], tmp_path: Path
) -> None:
    async def refused() -> None:
        async with careful_producer(servers("worker")) as producer:
            headers = [("reason", b"not_json"), ("topic", b"events"), ("partition", b"0"), ("offset", b"0")]
            for value in (json.dumps(event("u", "tent")).encode(), b"{"):
                await producer.send_and_wait("events.dlq", value, key=b"u", headers=headers)

    asyncio.run(refused())
    assert json.loads(as_user("operator", "dlq", "list", "--json"))["reasons"] == {"not_json": 2}
    assert json.loads(as_user("operator", "dlq", "retry", "--all", "--json", code=4))["records"] == 1
    assert json.loads(as_user("operator", "dlq", "drop", "--all", "--json")) == {"dropped": 1}
    assert json.loads(as_user("operator", "record", str(tmp_path / "out"), "--all", "--json"))["records"] >= 1
    assert json.loads(as_user("operator", "get", "u1", "--json"))["user"] == "u1"
    with pytest.raises(ConfigurationError):
        as_user("operator", "offers", "--withdraw", "o")


VERBS = [
    ("dlq", "list"),
    ("record", "{folder}", "--all"),
    ("catalogue", "list"),
    ("catalogue", "put", "{folder}/items.jsonl"),
    ("offers", "{folder}/offers.toml"),
]


@pytest.mark.parametrize("arguments", VERBS, ids=" ".join)
@pytest.mark.parametrize(
    ("wrong", "said"), [({"kafka_password": "wrong"}, "refused the login"), ({"topic_prefix": "no-"}, "does not exist")]
)
def test_a_refused_login_and_a_missing_topic_are_told_at_once(
    servers: Callable[..., Settings], tmp_path: Path, arguments: tuple[str, ...], wrong: dict[str, str], said: str
) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id":"tent"}\n')
    (tmp_path / "offers.toml").write_text('[[offers]]\nid = "o"\nitems = ["tent"]\nvalue = 1.0\n')
    given = [argument.format(folder=tmp_path) for argument in arguments]
    result = CliRunner().invoke(build(), given, env=environment(servers("operator", **wrong)))
    assert isinstance(result.exception, ConfigurationError), result.output
    assert said in str(result.exception)

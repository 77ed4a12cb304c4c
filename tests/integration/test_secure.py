"""TLS, logins and the README's access lists on real servers: what is allowed works, what is not ends in one line."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from stream.answers import Forgotten
from stream.cli.doctor import _findings
from stream.client import Client
from stream.contact import dial
from stream.doctor.redis import check_redis
from stream.errors import ConfigurationError, RivuletError, UnavailableError
from stream.events import Forget
from stream.kafka import client_options
from stream.keys import Keys
from stream.permissions import SHOP, require
from stream.preflight import check
from stream.privacy import ask
from stream.producer import EventProducer
from stream.redis_address import redis_address
from stream.replay import replay, republish
from stream.settings import Settings
from stream.topics import create, layout
from tests.brokers import RedisServer, free_ports
from tests.patience import PATIENCE_S
from tests.records import event
from tests.secure_servers import KAFKA_USERS, Certificates, SecureKafka, SecureRedis, readme_acls
from tests.worker_process import WorkerProcess, compile_once

SCRAM = "SCRAM-SHA-512"


@pytest.fixture(scope="module")
def topics(secure_kafka: SecureKafka) -> None:
    asyncio.run(create(secure_kafka.bootstrap, layout()))


def login(
    user: str, broker: SecureKafka, certificates: Certificates, cache: SecureRedis | None = None, **changes: Any
) -> Settings:
    """Settings of one of the users of the README's access lists."""
    settings: dict[str, Any] = {
        "kafka": broker.secure,
        "kafka_security": "SASL_SSL",
        "kafka_sasl_mechanism": SCRAM,
        "kafka_username": user,
        "kafka_password": SecretStr(KAFKA_USERS.get(user, "")),
        "kafka_ca": certificates.ca,
        "web_port": 0,
    }
    if cache is not None:
        settings |= {
            "redis": cache.address,
            "redis_username": user,
            "redis_password": SecretStr(f"{user.upper()}-PASSWORD"),
            "redis_ca": certificates.ca,
        }
    return Settings(**(settings | changes))


@pytest.mark.usefixtures("topics")
async def test_an_event_is_learned_read_and_forgotten_under_the_access_lists(
    secure_kafka: SecureKafka, secure_redis: SecureRedis, certificates: Certificates, tmp_path: Path
) -> None:
    await asyncio.to_thread(compile_once)
    quick: dict[str, Any] = {"session_s": 3, "publish_every_s": 1, "snapshot_folder": str(tmp_path / "snapshots")}
    worker = WorkerProcess(login("worker", secure_kafka, certificates, secure_redis, **quick))
    frontend = login("frontend", secure_kafka, certificates, secure_redis)
    shop = login("producer", secure_kafka, certificates, kafka_sasl_mechanism="PLAIN")
    try:
        items: list[str] = []
        end = time.monotonic() + PATIENCE_S
        async with (
            EventProducer(shop.kafka, **client_options(shop)) as producer,
            Client(redis_address(frontend), strict=True) as client,
        ):
            for number in range(6):
                for item in ("tent", "stove"):
                    await producer.send(event(f"u{number}", item, at=number))
            while "stove" not in items:  # who is ranked before the others' events are learned gets it at the next touch
                assert worker.running, worker.output
                assert time.monotonic() < end, worker.output
                await producer.send(event("u9", "tent", at=20))
                await asyncio.sleep(0.1)
                found = await client.recommendations("u9")
                items = found.items if found.source == "recs" else []
        privacy = login("privacy", secure_kafka, certificates, secure_redis)
        answer = await ask(privacy, Forget(user="u9", request="r1"), PATIENCE_S)
        assert isinstance(answer, Forgotten)
        assert answer.known
        assert answer.touches >= 1
        async with Client(redis_address(frontend), strict=True) as client:
            assert (await client.recommendations("u9")).source != "recs"
        operator = login("operator", secure_kafka, certificates, secure_redis)
        async with asyncio.timeout(PATIENCE_S):
            assert (await replay(operator, [event("u7", "tent", at=30)], None)).sent == 1
            await republish(operator)
        assert await worker.terminate() == 0
    finally:
        worker.end()


def token(subject: str) -> str:
    """A token as Kafka's unsecured validator takes it: for tests only, nothing signs it."""
    claims = {"sub": subject, "iat": time.time(), "exp": time.time() + 600}
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in ({"alg": "none"}, claims))
    return ".".join(part.rstrip("=") for part in parts) + "."


@pytest.fixture
def ways(secure_kafka: SecureKafka, certificates: Certificates, tmp_path: Path) -> Mapping[str, dict[str, Any]]:
    """Settings that differ for each way to log in as ``producer``."""
    (tmp_path / "token").write_text(token("producer"))
    certificate, key = certificates.issue("producer", "producer.example", password="key-word")
    return {
        "PLAIN": {"kafka_sasl_mechanism": "PLAIN"},
        "SCRAM-SHA-256": {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
        "OAUTHBEARER": {"kafka_sasl_mechanism": "OAUTHBEARER", "kafka_token_file": tmp_path / "token"},
        "certificate": {
            "kafka": secure_kafka.mutual,
            "kafka_security": "SSL",
            "kafka_certificate": certificate,
            "kafka_key": key,
            "kafka_key_password": SecretStr("key-word"),
        },
        "host name not looked at": {"kafka": secure_kafka.misnamed, "kafka_check_hostname": False},
    }


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-256", "OAUTHBEARER", "certificate", "host name not looked at"])
async def test_every_way_to_log_in_is_known_as_the_same_user(
    way: str, ways: Mapping[str, dict[str, Any]], secure_kafka: SecureKafka, certificates: Certificates
) -> None:
    settings = login("producer", secure_kafka, certificates, **ways[way])
    await require(settings, {"events": ("Write",)})
    with pytest.raises(ConfigurationError, match=r"^Kafka does not allow Write on topic items: kafka-acls\.sh "):
        await require(settings, SHOP)
    async with EventProducer(settings.kafka, **client_options(settings)) as producer:
        assert (await producer.send(event("u1", "tent", at=1))).offset >= 0


REFUSALS: dict[str, tuple[dict[str, Any], type[RivuletError], str]] = {
    "wrong password": (
        {"kafka_password": SecretStr("x")},
        ConfigurationError,
        "refused the login .* see RIVULET_KAFKA_SASL_MECHANISM and RIVULET_KAFKA_USERNAME, RIVULET_KAFKA_PASSWORD",
    ),
    "wrong password, PLAIN": (
        {"kafka_password": SecretStr("x"), "kafka_sasl_mechanism": "PLAIN"},
        ConfigurationError,
        "refused the login",
    ),
    "bad token": ({"kafka_sasl_mechanism": "OAUTHBEARER"}, ConfigurationError, "see .*RIVULET_KAFKA_TOKEN_FILE"),
    "no token": (
        {"kafka_sasl_mechanism": "OAUTHBEARER", "kafka_token_file": None},
        ConfigurationError,
        "needs RIVULET_KAFKA_TOKEN_FILE",
    ),
    "unknown authority": ({"kafka_ca": "other"}, ConfigurationError, "not trusted .* see RIVULET_KAFKA_CA"),
    "another host": ({"kafka": "misnamed"}, ConfigurationError, "not trusted .*RIVULET_KAFKA_CHECK_HOSTNAME"),
    "no authority": ({"kafka_ca": "missing"}, ConfigurationError, "RIVULET_KAFKA_CA=.*missing.pem: No such file"),
    "no certificate": (
        {"kafka": "mutual", "kafka_security": "SSL"},
        UnavailableError,
        r"want a client certificate \(RIVULET_KAFKA_CERTIFICATE\)",
    ),
    "no TLS": ({"kafka_security": "PLAINTEXT"}, UnavailableError, "does its port speak PLAINTEXT"),
    "no login expected": (
        {"kafka": "plain", "kafka_security": "SASL_PLAINTEXT"},
        ConfigurationError,
        "expects no login at this port",
    ),
    "nothing allowed": (
        {"kafka_username": "stranger", "kafka_password": SecretStr(KAFKA_USERS["stranger"])},
        ConfigurationError,
        "does not allow Read on topic events: kafka-acls.sh .* --allow-principal User:stranger --operation Read",
    ),
    "another group": (
        {"group": "strangers"},
        ConfigurationError,
        "does not allow Read on group strangers: kafka-acls.sh",
    ),
    "nobody there": ({"kafka": "nobody"}, UnavailableError, "does not answer"),
    "Redis: wrong password": (
        {"redis_password": SecretStr("x")},
        ConfigurationError,
        "Redis refused the login or database: .*(WRONGPASS|username-password)",
    ),
    "Redis: nothing allowed": (
        {"redis_username": "frontend", "redis_password": SecretStr("FRONTEND-PASSWORD")},
        ConfigurationError,
        "(?i)Redis .*(NOPERM|no permissions)",
    ),
    "Redis: unknown authority": ({"redis_ca": "other"}, ConfigurationError, "not trusted .*see RIVULET_REDIS_CA"),
    "Redis: no authority": ({"redis_ca": "missing"}, ConfigurationError, "RIVULET_REDIS_CA=.*: No such file"),
    "Redis: no TLS": (
        {"redis": "redis://127.0.0.1/0"},
        ConfigurationError,
        "RIVULET_REDIS=redis://127.0.0.1/0 does not use TLS: write rediss://",
    ),
}


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("what", REFUSALS)
async def test_a_worker_that_may_not_start_says_why_in_one_line(
    what: str, secure_kafka: SecureKafka, secure_redis: SecureRedis, certificates: Certificates, tmp_path: Path
) -> None:
    changes, kind, message = REFUSALS[what]
    (tmp_path / "token").write_text("nonsense")
    places = {"other": certificates.other_ca, "missing": tmp_path / "missing.pem"}
    servers = {
        "misnamed": secure_kafka.misnamed,
        "mutual": secure_kafka.mutual,
        "plain": secure_kafka.bootstrap,
        "nobody": f"127.0.0.1:{free_ports(1)[0]}",
    }
    meant = {name: places.get(value, servers.get(value, value)) if isinstance(value, str) else value
             for name, value in changes.items()}  # fmt: skip
    options = {"kafka_token_file": tmp_path / "token", "snapshot_folder": str(tmp_path)} | meant
    with pytest.raises(kind, match=message) as refused:
        await check(login("worker", secure_kafka, certificates, secure_redis, **options))
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == (2 if kind is ConfigurationError else 3)


@pytest.mark.usefixtures("topics")
async def test_the_doctor_tells_what_a_login_is_not_allowed(
    secure_kafka: SecureKafka, secure_redis: SecureRedis, certificates: Certificates, tmp_path: Path
) -> None:
    folder = {"snapshot_folder": str(tmp_path)}
    fine = await _findings(login("worker", secure_kafka, certificates, secure_redis, **folder))
    assert [finding for finding in fine if finding.state == "problem"] == []
    by_check = {(finding.area, finding.check): finding for finding in fine}
    assert by_check["kafka", "rights"].state == by_check["redis", "rights"].state == "ok"
    assert by_check["redis", "clock"].state == "ok"
    hidden = by_check["kafka", "topic events"]
    assert (hidden.state, hidden.fix) == ("unknown", "Allow DescribeConfigs on events to have it checked.")

    frontend = {"redis_username": "frontend", "redis_password": SecretStr("FRONTEND-PASSWORD")}
    bad = await _findings(login("stranger", secure_kafka, certificates, secure_redis, **folder, **frontend))
    problems = [finding for finding in bad if finding.state == "problem"]
    assert {finding.area for finding in problems} == {"kafka", "redis"}
    assert all(finding.fix for finding in problems)
    assert sum("--operation Read --topic" in finding.fix for finding in problems) == 7


async def test_redis_may_want_a_certificate_and_show_one_of_another_host(certificates: Certificates) -> None:
    certificate, key = certificates.issue("client", "client.example")
    mine: dict[str, Any] = {"redis_certificate": certificate, "redis_key": key}
    with SecureRedis(certificates, strict=True) as server:
        login: dict[str, Any] = {"redis_username": "admin", "redis_password": SecretStr("admin-secret")}

        def settings(**changes: Any) -> Settings:
            return Settings(redis=server.address, redis_ca=certificates.ca, **(login | changes))

        wanted = r"wants? a client certificate.*RIVULET_REDIS_CERTIFICATE"  # guessed where it hangs up without a word
        for changes, said in (
            ({"redis_check_hostname": False}, wanted),
            (mine, "not trusted .* see RIVULET_REDIS_CA and RIVULET_REDIS_CHECK_HOSTNAME"),
        ):
            (finding,) = await check_redis(settings(**changes))
            assert re.search(said, finding.detail), finding
            assert "\n" not in finding.detail
        allowed = settings(redis_check_hostname=False, **mine)
        assert [finding.state for finding in await check_redis(allowed)].count("problem") == 0
        async with Client(redis_address(allowed), strict=True) as client:
            assert (await client.recommendations("u1")).items == []


@pytest.fixture(scope="module")
def listed_redis() -> Any:
    """Any Redis or Valkey with the README's access lists, without TLS."""
    with RedisServer() as server:
        with server.client() as client:
            for line in readme_acls("text"):
                _, user, *rules = line.split()
                client.execute_command("ACL", "SETUSER", user, *rules)
            keys = Keys()
            client.set(keys.recs("u1"), b'{"v":1,"items":["a"],"scores":[1.0]}')
            client.set(keys.offers("u1"), b'{"v":1,"ts":1,"offers":[]}')
            client.set(keys.privacy("u1"), b"{}")
            client.set(keys.trending(), b'{"v":1,"items":["b"],"scores":[1.0]}')
            client.hset(keys.profile("u1"), "segment", "3")
        yield server


async def test_a_frontend_reads_lists_and_offers_and_nothing_of_the_person(listed_redis: RedisServer) -> None:
    url = f"redis://frontend:FRONTEND-PASSWORD@127.0.0.1:{listed_redis.port}/0"
    async with Client(url, strict=True) as client:
        assert (await client.recommendations("u1")).items == ["a", "b"]
        assert await client.offers("u1") == []
        with pytest.raises(ConfigurationError, match=r"(?i)no permissions"):
            await client.profile("u1")
    keys = Keys()
    with redis.Redis.from_url(url) as frontend:
        for command in (
            ("GET", keys.privacy("u1")),
            ("HGETALL", keys.profile("u1")),
            ("HGETALL", keys.meta),
            ("SET", keys.recs("u1"), "x"),
            ("DEL", keys.recs("u1")),
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("CONFIG", "GET", "*"),
            ("GET", "elsewhere"),
        ):
            with pytest.raises(redis.exceptions.NoPermissionError):
                frontend.execute_command(*command)


def test_who_answers_privacy_requests_cannot_write_lists(listed_redis: RedisServer) -> None:
    keys = Keys()
    with redis.Redis(port=listed_redis.port, username="privacy", password="PRIVACY-PASSWORD") as privacy:
        assert privacy.mget([keys.recs("u1"), keys.offers("u1"), keys.privacy("u1")])[0] is not None
        assert privacy.mget([keys.recs("u1", "cart")]) == [None]  # an export asks for the lists of all placements
        for command in (("SET", keys.recs("u1"), "x"), ("DEL", keys.recs("u1")), ("HGETALL", keys.meta)):
            with pytest.raises(redis.exceptions.NoPermissionError):
                privacy.execute_command(*command)


async def test_a_worker_and_its_doctor_need_no_more_than_the_list_says(listed_redis: RedisServer) -> None:
    settings = Settings(
        redis=f"redis://127.0.0.1:{listed_redis.port}/0",
        redis_username="worker",
        redis_password=SecretStr("WORKER-PASSWORD"),
    )
    findings = {finding.check: finding.state for finding in await check_redis(settings)}
    assert findings == dict.fromkeys(("reachable", "version", "clock", "contract", "rights"), "ok") | {
        "memory": "warning"
    }
    with listed_redis.client() as client:
        assert client.keys("*rivulet-doctor*") == []


async def test_the_first_server_that_answers_is_taken(secure_kafka: SecureKafka) -> None:
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    connection = await dial(f"{nobody}, {secure_kafka.bootstrap}", security_protocol="PLAINTEXT")
    assert connection.connected()
    connection.close()
    with pytest.raises(UnavailableError, match=nobody):
        await dial(nobody)

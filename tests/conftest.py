"""Fixtures of all tests: real servers, started once and only when a test asks for one; a unique prefix; the data.

``RIVULET_TEST_KAFKA`` and ``RIVULET_TEST_REDIS`` name servers to use instead of own ones. What is missing here skips
its tests with one clear line; with ``CI=true`` it fails them.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from stream.demo.embedded import EmbeddedRedis
from tests.brokers import KafkaBroker, MissingPartError, RedisCluster, RedisServer, free_ports, kafka_answers
from tests.proxy import Proxy
from tests.secure_servers import KAFKA_USERS, Certificates, SecureKafka, SecureRedis, readme_acls

# How long an example takes is up to the machine; whatever else the profile of the environment says stays.
settings.register_profile("patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

KAFKA_FIXTURES = {"kafka", "kafka_broker", "kafka_detour", "secure_kafka"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a real Kafka, so that ``-m 'not kafka'`` leaves it out."""
    for item in items:
        if KAFKA_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kafka)


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


Server = TypeVar("Server", KafkaBroker, RedisServer, RedisCluster, SecureKafka, SecureRedis)


@contextmanager
def _own(kind: Callable[[], Server]) -> Iterator[Server]:
    """A server that runs for as long as its fixture, or a skip where its parts are missing."""
    try:
        server = kind()
    except MissingPartError as error:
        missing(str(error))
    try:
        server.start()
    except MissingPartError as error:
        missing(str(error))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of a real Apache Kafka that all tests share: use ``topic_prefix`` for every name."""
    if address := os.environ.get("RIVULET_TEST_KAFKA"):
        if not kafka_answers(address):
            pytest.fail(f"RIVULET_TEST_KAFKA={address} does not answer", pytrace=False)
        yield address
        return
    with _own(KafkaBroker) as broker:
        yield broker.bootstrap


@pytest.fixture
def kafka_broker() -> Iterator[KafkaBroker]:
    """A private broker that the test may kill, pause and restart."""
    with _own(KafkaBroker) as broker:
        yield broker


@pytest.fixture
async def kafka_detour() -> AsyncIterator[tuple[KafkaBroker, Proxy]]:
    """A private broker, and a proxy to it: who comes by the proxy is told of no other way."""
    (port,) = free_ports(1)
    async with Proxy(port) as proxy:
        with _own(lambda: KafkaBroker(detour=(port, proxy.port))) as broker:
            yield broker, proxy


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """Address of a real Redis that all tests share: use ``topic_prefix`` for every key."""
    if address := os.environ.get("RIVULET_TEST_REDIS"):
        yield address
        return
    with _own(RedisServer) as server:
        yield server.url


@pytest.fixture(scope="session")
def embedded_redis() -> Iterator[str]:
    """Address of the demo's Valkey, shared like `redis_url`."""
    with EmbeddedRedis() as server:
        yield server.url


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A private Redis that the test may kill, pause and restart."""
    with _own(RedisServer) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """Three real masters; tests that move slots move them back or do not care where they are."""
    with _own(RedisCluster) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def certificates() -> Iterator[Certificates]:
    """An authority of our own and what it has signed."""
    made = Certificates()
    yield made
    made.close()


@pytest.fixture(scope="session")
def secure_kafka(certificates: Certificates) -> Iterator[SecureKafka]:
    """A broker with TLS, logins and the README's access lists."""
    with _own(lambda: SecureKafka(certificates, KAFKA_USERS)) as broker:
        for command in readme_acls("console"):
            broker.allow(command)
        yield broker


@pytest.fixture(scope="session")
def secure_redis(certificates: Certificates) -> Iterator[SecureRedis]:
    """A Redis with TLS and the README's access lists."""
    with _own(lambda: SecureRedis(certificates, readme_acls("text"))) as server:
        yield server


@pytest.fixture
def topic_prefix() -> str:
    """A prefix for topics, groups and keys that no other test uses."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the event recordings: ``RIVULET_DATA``, else ``shared/data`` beside the repository."""
    folder = Path(os.environ.get("RIVULET_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        missing(f"no event recordings at {folder} (set RIVULET_DATA)")
    return folder

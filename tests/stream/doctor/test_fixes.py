"""Each finding that is not fine says what to do, also where servers tell little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed
from pydantic import SecretStr

from stream.demo.embedded import EmbeddedKafka, EmbeddedRedis
from stream.doctor import kafka
from stream.doctor.finding import Finding
from stream.doctor.kafka import check_kafka
from stream.doctor.redis import check_redis
from stream.settings import Settings
from stream.topics import layout


def untold(findings: list[Finding]) -> dict[str, str]:
    """Fixes of what could not be checked, but for topics' configurations."""
    return {each.check: each.fix for each in findings if each.state == "unknown" and "topic" not in each.check}


def test_a_finding_that_is_not_fine_needs_a_fix() -> None:
    assert Finding("redis", "clock", "ok", "as ours").fix == ""
    with pytest.raises(ValueError, match="redis clock is unknown and nothing says what to do"):
        Finding("redis", "clock", "unknown", "not told")


async def test_a_broker_that_tells_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> int:
        raise KafkaError

    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "below"
    with EmbeddedKafka({topic.name: topic.partitions for topic in layout()}) as broker:
        settings = Settings(kafka=broker.bootstrap, snapshot_folder=str(folder))
        fixes = untold(await check_kafka(settings))
        assert fixes == {
            "rights": "If the broker knows ACLs, compare them with Access lists in the README.",
            "snapshots": f"Make {folder} readable, and allow this login Read on the group and its topics.",
            "clock": "Send an event and run `rivulet doctor` again.",
        }
        monkeypatch.setattr(kafka, "_newest_stamp", fails)
        assert "look after the brokers" in untold(await check_kafka(settings))["clock"]
    with EmbeddedKafka() as broker:
        fixes = untold(await check_kafka(Settings(kafka=broker.bootstrap, snapshot_folder=str(tmp_path))))
    assert fixes == {"clock": "Create it (`rivulet topics`), or allow this login Read on it."}


async def test_a_login_that_may_read_nothing() -> None:
    with EmbeddedRedis() as server:
        client: Any
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "poor", "on", ">word", "+info")
        settings = Settings(redis=server.url, redis_username="poor", redis_password=SecretStr("word"))
        fixes = untold(await check_redis(settings))
    assert fixes == {
        "clock": "Allow this login TIME to have the clock checked.",
        "contract": "Allow this login HGET on rv:meta.",
    }

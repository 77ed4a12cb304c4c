"""``rivulet record`` as it is typed, on the embedded broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from typer.testing import CliRunner

from stream.cli import build
from stream.demo.embedded import EmbeddedKafka
from stream.errors import BadInputError, ConfigurationError, RivuletError, UnavailableError
from stream.recordings import open_recording
from tests.records import event


@pytest.fixture
def broker() -> Iterator[str]:
    with EmbeddedKafka({"events": 2, "events.dlq": 1}) as embedded:
        yield embedded.bootstrap


def publish(bootstrap: str, events: list[dict[str, Any]]) -> None:
    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
            for number, each in enumerate(events):
                value = msgspec.json.encode(each)
                await producer.send_and_wait("events", value, key=b"k", partition=number % 2)

    asyncio.run(send())


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(build(), ["record", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_all_that_is_there_and_later_what_came(broker: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(broker, [event("u", f"i{n}", at=n, event_id=f"{n}") for n in range(10)])
    first = run(str(out), "--all", "--kafka", broker)
    assert (first["records"], first["next"], first["complete"]) == (10, {"0": 5, "1": 5}, True)
    with pytest.raises(BadInputError, match="also beginning, now, offset:12"):
        run(str(out), "--from", "yesterady", "--until", "now", "--kafka", broker)
    publish(broker, [event("u", f"i{n}", at=n, event_id=f"{n}") for n in range(10, 14)])
    second = run(str(out), "--all", "--kafka", broker)
    assert (second["records"], second["total"], second["resumed"]) == (4, 14, True)
    assert second["files"] == first["files"]
    (file,) = out.iterdir()
    found = [each["event_id"] for each in open_recording(file)]
    assert sorted(found, key=int) == [str(n) for n in range(14)]


def test_from_now_on_for_a_while(broker: str, tmp_path: Path) -> None:
    publish(broker, [event("u", "i")] * 4)
    summary = run(str(tmp_path / "out"), "--until", "300ms", "--kafka", broker)
    assert (summary["records"], summary["complete"], summary["next"]) == (0, True, {"0": 2, "1": 2})


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        (["--topic", "none"], ConfigurationError, "topic none does not exist"),
        (["--from", "12"], BadInputError, "not '12'; also beginning, now, offset:12"),
        (["--all", "--until", "1h"], BadInputError, "give it alone"),
        (["--rotate-every", "often"], BadInputError, "--rotate-every takes a duration"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    broker: str, tmp_path: Path, arguments: list[str], error: type[RivuletError], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        run(str(tmp_path / "out"), *arguments, "--kafka", broker)


def test_a_folder_of_another_topic_and_a_broker_that_is_away(broker: str, tmp_path: Path) -> None:
    run(str(tmp_path), "--all", "--kafka", broker)
    with pytest.raises(ConfigurationError, match="the folder holds a recording of topic events"):
        run(str(tmp_path), "--topic", "events.dlq", "--all", "--kafka", broker)
    with pytest.raises(UnavailableError, match="does not answer"):
        run(str(tmp_path / "b"), "--kafka", "127.0.0.1:1")

"""``rivulet publish`` and ``rivulet topics`` as they are typed, on the embedded broker."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from typer.testing import CliRunner

from stream.cli import build
from stream.demo.embedded import EmbeddedKafka
from stream.errors import BadInputError, ConfigurationError
from stream.topics import layout

VIEW = {"event_name": "view_item", "user_id": "u1", "item_id": "i1", "event_timestamp": 1_700_000_000_000_000}


@pytest.fixture
def broker() -> Iterator[str]:
    with EmbeddedKafka({topic.name: topic.partitions for topic in layout()}) as embedded:
        yield embedded.bootstrap


def _run(*arguments: str, stdin: str | None = None) -> str:
    result = CliRunner().invoke(build(), arguments, input=stdin, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def _items(bootstrap: str) -> list[str]:
    """Items of all published events, in the order of their only user."""

    async def read() -> list[str]:
        async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
            partitions = [TopicPartition("events", p) for p in range(4)]
            consumer.assign(partitions)
            expected = sum((await consumer.end_offsets(partitions)).values())
            items: list[str] = []
            while len(items) < expected:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    items += [json.loads(record.value)["item_id"] for record in records]
            return items

    return asyncio.run(read())


def _lines(items: range) -> str:
    return "".join(json.dumps({**VIEW, "item_id": f"i{i}"}) + "\n" for i in items)


def test_a_file_arrives_in_order(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(_lines(range(3_000)))
    assert "published 3,000 events to topic events" in _run("publish", str(file), "--kafka", broker)
    assert _items(broker) == [f"i{i}" for i in range(3_000)]


def test_csv_and_standard_input(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("ts,user,session,item,type,value\n1700000000000,u1,,a,view,\n1700000001000,u1,,b,cart,\n")
    _run("publish", str(file), "--kafka", broker)
    _run("publish", "-", "--kafka", broker, stdin=_lines(range(2)))
    assert _items(broker) == ["a", "b", "i0", "i1"]


def test_a_bad_line_is_named_and_what_stood_before_it_is_sent(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(_lines(range(5)) + '{"event_name":"view_item","user_id":3}\n' + _lines(range(5, 9)))
    with pytest.raises(BadInputError, match=r"events\.jsonl, line 6, user_id.*; the 5 events before it are sent"):
        _run("publish", str(file), "--kafka", broker)
    assert _items(broker) == [f"i{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "a.csv",
            "at,who\n1,2\n",
            "line 1, header: must be ts,.*; `rivulet replay --map` takes other columns; nothing",
        ),
        ("a.jsonl", "{}\n", "line 1, event.*; nothing was sent"),
    ],
)
def test_a_file_that_is_bad_from_its_first_line(
    broker: str, tmp_path: Path, name: str, text: str, problem: str
) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(BadInputError, match=problem):
        _run("publish", str(file), "--kafka", broker)


def test_a_file_of_retailrocket_with_its_header(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text("timestamp,visitorid,event,itemid,transactionid\r\n1433221332117,257597,view,355908,\r\n")
    _run("publish", "--any-shape", str(file), "--kafka", broker)
    assert _items(broker) == ["355908"]


def test_an_event_that_only_the_worker_would_refuse_is_named(broker: str, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    bad = json.dumps({**VIEW, "event_timestamp": 4 * 10**15}) + "\n"
    file.write_text(_lines(range(2)) + "\n \n" + bad + _lines(range(2, 4)))
    with pytest.raises(BadInputError, match=r"events\.jsonl, line 5: .*time_absurd.*; the 2 events"):
        _run("publish", str(file), "--kafka", broker)
    assert _items(broker) == ["i0", "i1"]


@pytest.mark.parametrize("mapping", [[], ["--any-shape"]])
def test_bad_lines_are_left_out_and_counted_when_asked_for(broker: str, tmp_path: Path, mapping: list[str]) -> None:
    file = tmp_path / "events.jsonl"
    late = json.dumps({**VIEW, "event_timestamp": 4 * 10**15})
    file.write_text(_lines(range(1)) + "{nonsense\n\n" + late + "\n" + _lines(range(1, 3)))
    said = _run("publish", str(file), "--skip-bad", *mapping, "--kafka", broker)
    assert "events.jsonl, line 2" in said
    assert "events.jsonl, line 4: " in said
    assert "published 3 events to topic events; skipped 2 bad ones" in said
    assert _items(broker) == ["i0", "i1", "i2"]


def test_other_shapes_are_mapped_when_asked_for(broker: str, tmp_path: Path) -> None:
    items = {"items": [{"item_id": "a"}]}
    ga4 = {
        "client_id": "u1",
        "events": [{"name": "view_item", "params": items}, {"name": "add_to_cart", "params": items}],
    }
    segment = {"type": "track", "event": "Product Viewed", "userId": "u1", "properties": {"product_id": "b"}}
    file = tmp_path / "calls.jsonl"
    file.write_text(json.dumps(ga4) + "\n" + json.dumps([segment]) + "\n" + json.dumps(VIEW) + "\n")
    with pytest.raises(BadInputError, match=r"calls\.jsonl, line 1"):
        _run("publish", str(file), "--kafka", broker)
    assert json.loads(_run("publish", str(file), "--any-shape", "--json", "--kafka", broker).splitlines()[-1]) == {
        "published": 4,
        "skipped": 0,
        "topic": "events",
    }
    file.write_text(json.dumps(segment) + "\n" + json.dumps({**segment, "type": "group"}) + "\n")
    with pytest.raises(BadInputError, match=r"calls\.jsonl, line 2: "):
        _run("publish", str(file), "--any-shape", "--kafka", broker)


def test_what_is_good_of_a_batch_is_sent_when_asked_for(broker: str, tmp_path: Path) -> None:
    call = {"type": "track", "event": "Product Viewed", "userId": "u1"}
    calls = [{**call, "properties": {"product_id": name}} for name in ("a", "b")]
    file = tmp_path / "calls.jsonl"
    file.write_text(json.dumps({"batch": [calls[0], {**call, "type": "group"}, calls[1]]}) + "\n")
    with pytest.raises(BadInputError, match=r"calls\.jsonl, line 1: unmapped: .*; nothing was sent"):
        _run("publish", "--any-shape", str(file), "--kafka", broker)
    said = _run("publish", "--any-shape", "--skip-bad", str(file), "--kafka", broker)
    assert "calls.jsonl, line 1: unmapped: " in said
    assert "published 2 events to topic events; skipped 1 bad ones" in said
    file.write_text('{"control":"rank_all"}\n')
    said = _run("publish", "--any-shape", "--skip-bad", str(file), "--kafka", broker)
    assert "line 1: a control record, which is no event" in said


def test_topics_shows_what_is_there(broker: str) -> None:
    output = _run("topics", "--kafka", broker)
    assert all(topic.name in output for topic in layout())
    assert "all were there" in output
    assert "created" not in output
    with pytest.raises(ConfigurationError, match="does not exist"):
        CliRunner().invoke(
            build(),
            ["topics", "--check", "--kafka", broker],
            env={"RIVULET_TOPIC_PREFIX": "x-"},
            catch_exceptions=False,
        )

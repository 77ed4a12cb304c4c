"""``rivulet record`` on a real Kafka: killed while records arrive, continued, and every offset is there once."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # no py.typed

from stream.beginning import Plan
from stream.demo.shop import Shop
from stream.recorder import Recorder
from stream.recordings.files import OnBad, expand, stop
from stream.recordings.reading import read
from stream.recordings.records import Raw
from stream.recordings.segments import Segments
from stream.replay import replay
from stream.rounds import Source
from stream.settings import Settings
from tests.patience import PATIENCE_S
from tests.worker_process import Installation, environment

PARTITIONS = 3
Place = tuple[int, int]


@asynccontextmanager
async def topic(kafka: str, prefix: str) -> AsyncIterator[Any]:
    """A producer to a topic ``events`` of its own."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(prefix + "events", PARTITIONS, 1, topic_configs={"retention.ms": "-1"})])
    finally:
        await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=kafka, acks="all", linger_ms=2) as producer:
        yield producer


async def write(producer: Any, prefix: str, numbers: range) -> dict[Place, Any]:
    """Records of all kinds of bytes; what stands where."""
    noise = random.Random(numbers.start)
    sent = []
    for number in numbers:
        value = None if number % 50 == 0 else noise.randbytes(number % 300) if number % 7 == 0 else b'{"n":%d}' % number
        key = None if number % 11 == 0 and value is not None else b"\xff%d" % number
        headers = [("h", b"\x00\xfe")] if number % 13 == 0 else []
        where = {"partition": number % PARTITIONS, "timestamp_ms": 1_700_000_000_000 + number}
        future = await producer.send(prefix + "events", value, key=key, headers=headers, **where)
        sent.append((future, (key, value, tuple(headers), where["timestamp_ms"])))
    return {((done := await future).partition, done.offset): content for future, content in sent}


async def start(settings: Settings, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "stream.cli",
        "record",
        *arguments,
        env=environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finished(process: asyncio.subprocess.Process) -> dict[str, Any]:
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    summary: dict[str, Any] = json.loads(out)
    return summary


def recorded(folder: Path, on_bad: OnBad = stop) -> list[tuple[int, Raw]]:
    found = []
    for path in sorted(folder.iterdir()):
        for _, each in read(path, on_bad):
            assert isinstance(each, tuple)
            found.append(each)
    return found


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*"))


async def until(look: Callable[[], int], least: int) -> int:
    """Wait until a count is reached."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if (now := look()) >= least:
                return now
            await asyncio.sleep(0.02)


async def test_a_killed_recorder_goes_on_without_gap_or_repeat(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    settings = Settings(kafka=kafka, topic_prefix=topic_prefix)
    folder = tmp_path / "out"
    arguments = [str(folder), "--from", "beginning", "--rotate-mb", "0.02"]
    async with topic(kafka, topic_prefix) as producer:
        truth = await write(producer, topic_prefix, range(3_000))
        size = 0
        for kill in range(2):  # each time after it has written something, while more arrives
            process = await start(settings, *arguments)
            size = await until(lambda: size_of(folder), size + 1)
            truth |= await write(producer, topic_prefix, range(3_000 + kill * 500, 3_500 + kill * 500))
            process.send_signal(signal.SIGKILL)
            await process.communicate()
        summary = await finished(await start(settings, *arguments, "--until", "now", "--json"))
        again = await finished(await start(settings, *arguments, "--until", "now", "--json"))

    records = recorded(folder)
    found = {(partition, raw.offset): raw for partition, raw in records}
    assert len(records) == len(found) == len(truth) == summary["total"]
    assert found.keys() == truth.keys()
    assert {place: (raw.key, raw.value, raw.headers, raw.timestamp) for place, raw in found.items()} == truth
    for partition in range(PARTITIONS):
        offsets = [raw.offset for where, raw in records if where == partition]
        assert offsets == list(range(len(offsets)))
    assert (summary["resumed"], summary["complete"], summary["lost"]) == (True, True, 0)
    assert len(list(folder.iterdir())) > 1
    assert (again["records"], again["total"], again["next"]) == (0, len(truth), summary["next"])


async def test_a_recording_is_replayed_with_the_bytes_and_the_outcome_it_had(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    events = [dict(each) for each in Shop(seed=4, users=50).events(300)]
    for number in range(0, 300, 30):
        del events[number]["event_id"]
    first = Installation(kafka, redis_url, tmp_path / "1", topic_prefix + "1-")
    second = Installation(kafka, redis_url, tmp_path / "2", topic_prefix + "2-")
    async with first, second:
        first.start()
        await first.publish([*events, b"{nonsense"], key="nobody")
        await first.drained()
        plan = Plan(first.settings.topic("events"), "beginning", "now")
        with Segments(tmp_path / "out", plan.topic) as segments:
            summary = await Recorder(first.settings, plan, segments).run()
        assert (summary.records, summary.complete) == (301, True)

        second.start()
        source = Source(expand([str(tmp_path / "out")]), None, stop)
        await second.finish(replay(second.settings, source, None), "replayed")
        mine, theirs = await first.counts(), await second.counts()
        assert mine.pop("without_id") == 10
        assert mine["learned"] == 300
        assert +mine == +theirs
        one, two = [
            {(raw.partition, raw.key, raw.value) for raw in await shop.read("events")} for shop in (first, second)
        ]
        assert len(one & two) == len(one) - 10  # all but those that were given an id

        # the same once more: everything is known, with and without ids of their own
        await second.finish(replay(second.settings, Source(expand([str(tmp_path / "out")]), None, stop), 1e9), "again")
        again = await second.counts()
        assert (again["learned"], again["duplicates"]) == (300, mine["duplicates"] + 300)


async def test_bounds_by_time_and_offset_and_a_clean_end(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    settings = Settings(kafka=kafka, topic_prefix=topic_prefix)
    async with topic(kafka, topic_prefix) as producer:
        await write(producer, topic_prefix, range(300))
        live = await start(settings, str(tmp_path / "live"), "--json")  # from now on
        await until(lambda: size_of(tmp_path / "live"), 1)
        times = ["--from", "1700000000100", "--until", "2023-11-14T22:13:20.200Z"]
        by_time = await finished(await start(settings, str(tmp_path / "time"), *times, "--json"))
        offsets = ["--from", "offset:10", "--until", "offset:0=20,1=15"]
        by_offset = await finished(await start(settings, str(tmp_path / "offset"), *offsets, "--json"))
        await write(producer, topic_prefix, range(300, 330))
        await until(lambda: len(recorded(tmp_path / "live", lambda _: None)), 30)  # the end may be half written
        live.send_signal(signal.SIGTERM)
        lively = await finished(live)
    assert by_time["records"] == 100
    assert [raw.timestamp for _, raw in recorded(tmp_path / "time")] == list(
        range(1_700_000_000_100, 1_700_000_000_200)
    )
    assert by_offset["records"] == 10 + 5 + 90  # a partition that is not named ends where it is
    assert lively["records"] == 30
    assert lively["complete"] is False
    assert lively["next"] == {str(partition): 110 for partition in range(PARTITIONS)}


async def test_bounds_by_duration(kafka: str, topic_prefix: str, tmp_path: Path) -> None:
    """From two hours ago until two seconds from now: it ends by itself, with what came meanwhile."""
    settings = Settings(kafka=kafka, topic_prefix=topic_prefix)
    arguments = (str(tmp_path / "out"), "--from", "2h", "--until", "2s", "--json")
    async with topic(kafka, topic_prefix) as producer:

        async def said(*hours_ago: float) -> None:
            for hours in hours_ago:
                at = time.time_ns() // 1_000_000 - round(hours * 3_600_000)
                await producer.send_and_wait(topic_prefix + "events", b"%g" % hours, partition=0, timestamp_ms=at)

        await said(3, 2.5, 1, 0.5)
        summary = await finished(await start(settings, *arguments))
        await said(0)
    assert [raw.value for _, raw in recorded(tmp_path / "out")] == [b"1", b"0.5"]
    assert (summary["records"], summary["complete"]) == (2, True)

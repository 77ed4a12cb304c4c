"""The embedded pair: what it can do, what it cannot, and that nothing is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]  # no py.typed

from stream.demo.embedded import EmbeddedKafka, EmbeddedRedis
from stream.errors import ConfigurationError
from stream.topics import Topic, check, create, layout
from tests.brokers import is_listening, wait_for
from tests.patience import PATIENCE_S


def _port(address: str) -> int:
    return int(address.rsplit(":", 1)[1].partition("/")[0])


async def test_a_group_reads_and_commits_what_an_idempotent_producer_wrote() -> None:
    with EmbeddedKafka({"events": 4}) as broker:
        async with AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap, enable_idempotence=True, acks="all"
        ) as producer:
            acks = [await producer.send("events", b"%d" % i, key=b"u%d" % (i % 20)) for i in range(500)]
            await asyncio.gather(*acks)
        consumer = AIOKafkaConsumer(
            "events",
            bootstrap_servers=broker.bootstrap,
            group_id="g",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        async with consumer:
            seen: set[bytes] = set()
            async with asyncio.timeout(PATIENCE_S):
                while len(seen) < 500:
                    batches = await consumer.getmany(timeout_ms=100)
                    seen |= {record.value for records in batches.values() for record in records}
            await consumer.commit()
            partitions = [TopicPartition("events", p) for p in range(4)]
            assert sum([await consumer.committed(partition) for partition in partitions]) == 500


async def test_topics_have_the_partitions_of_the_layout() -> None:
    topics = layout(events_partitions=3, covisits_partitions=2)
    with EmbeddedKafka({topic.name: topic.partitions for topic in topics}) as broker:
        await check(broker.bootstrap, topics)
        assert await create(broker.bootstrap, topics) == []
        with pytest.raises(ConfigurationError, match="topic events has 3 partitions, expected 5"):
            await check(broker.bootstrap, layout(events_partitions=5))


async def test_old_records_vanish_silently_above_five_megabytes() -> None:
    with EmbeddedKafka({"t": 1}) as broker:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap) as producer:
            for _ in range(120):
                await producer.send_and_wait("t", bytes(100_000))
        async with AIOKafkaConsumer(bootstrap_servers=broker.bootstrap) as consumer:
            partition = TopicPartition("t", 0)
            first = (await consumer.beginning_offsets([partition]))[partition]
            last = (await consumer.end_offsets([partition]))[partition]
    assert last == 120
    assert 40 <= last - first <= 60


async def test_topics_cannot_be_created_by_clients() -> None:
    with EmbeddedKafka() as broker, pytest.raises(ConfigurationError, match="cannot create topics"):
        await create(broker.bootstrap, [Topic("t", 1, "")])


def test_both_listen_on_the_loopback_only_and_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    me = psutil.Process()
    others = set(me.children(recursive=True))
    with EmbeddedKafka({"t": 1}) as broker, EmbeddedRedis() as server:
        processes = [me, *set(me.children(recursive=True)) - others]
        ours = {_port(broker.bootstrap), _port(server.url)}
        listening = [c.laddr for p in processes for c in p.net_connections("tcp") if c.status == "LISTEN"]
        assert {a.ip for a in listening if a.port in ours} == {"127.0.0.1"}
        with redis.Redis.from_url(server.url) as client:
            client.set("k", "v")
            assert client.get("k") == b"v"
    assert not any(map(is_listening, ours))
    assert not list(tmp_path.iterdir())
    assert not [p for p in processes[1:] if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_the_server_ends_with_a_process_that_is_killed() -> None:
    program = (
        "from stream.demo.embedded import EmbeddedRedis\n"
        "import signal\n"
        "with EmbeddedRedis() as server:\n"
        "    print(server.url, flush=True)\n"
        "    signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
        assert process.stdout is not None
        port = _port(process.stdout.readline().decode().strip())
        assert is_listening(port)
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not is_listening(port), PATIENCE_S, "the server is still there")

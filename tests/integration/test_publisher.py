"""What a real broker refuses for good, and that the worker then ends with one line instead of waiting for ever."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # no py.typed

from stream.errors import ConfigurationError
from stream.publisher import MAX_RECORD, Publisher
from stream.settings import Settings
from stream.stages.sends import Send
from tests.records import event
from tests.worker_process import Installation


async def narrow(kafka: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    await admin.close()


@pytest.mark.parametrize("size", [2_000, MAX_RECORD + 1])
async def test_a_record_that_is_too_large_is_refused_for_good(kafka: str, topic_prefix: str, size: int) -> None:
    settings = Settings(kafka=kafka, topic_prefix=topic_prefix)
    await narrow(kafka, settings.topic("dlq"))
    publisher = Publisher(settings)
    await publisher.start()
    try:
        with pytest.raises(ConfigurationError, match=rf"refuses records for dlq \(the largest has {size} bytes\)"):
            await publisher.send([Send("dlq", b"x" * size)])
    finally:
        await publisher.stop()


async def test_the_broker_numbers_what_is_sent(kafka: str, topic_prefix: str) -> None:
    """Without idempotence a failed send was followed by successful ones, and a repeated one stood there twice."""
    settings = Settings(kafka=kafka, topic_prefix=topic_prefix)
    await narrow(kafka, settings.topic("dlq"))
    publisher = Publisher(settings)
    await publisher.start()
    try:
        await publisher.send([Send("dlq", b"x", partition=0)] * 2)
        numbered = publisher._producer._txn_manager
        assert numbered is not None
        assert numbered.has_pid()
        assert numbered.sequence_number(TopicPartition(settings.topic("dlq"), 0)) == 2
    finally:
        await publisher.stop()


async def test_a_worker_whose_topic_is_too_narrow_ends_with_one_line(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    await narrow(kafka, f"{topic_prefix}events.dlq")
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        worker = shop.start()
        await shop.publish([event("u", "tent")])
        await shop.publish([b"x" * 3_000], key="p")
        assert await worker.exit_code() == 1
        (line,) = [line for line in worker.output.splitlines() if "worker_stops" in line]
        assert "refuses records for dlq" in line
        assert "shard_reloaded" not in worker.output

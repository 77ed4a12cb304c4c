"""The test servers themselves: what tests rely on when they kill, freeze and restart them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]  # no py.typed

from stream.topics import Topic, create
from tests.brokers import KafkaBroker, RedisCluster, RedisServer, is_listening, kafka_answers, wait_for
from tests.patience import PATIENCE_S


async def test_kafka_keeps_its_data_and_ports_over_a_crash(kafka_broker: KafkaBroker) -> None:
    await create(kafka_broker.bootstrap, [Topic("t", 1, "")])
    async with AIOKafkaProducer(bootstrap_servers=kafka_broker.bootstrap, acks="all") as producer:
        await producer.send_and_wait("t", b"v")
    kafka_broker.kill()
    assert not kafka_answers(kafka_broker.bootstrap)
    kafka_broker.start()
    async with AIOKafkaConsumer(bootstrap_servers=kafka_broker.bootstrap) as consumer:
        assert await consumer.end_offsets([TopicPartition("t", 0)]) == {TopicPartition("t", 0): 1}
    kafka_broker.pause()
    assert not kafka_answers(kafka_broker.bootstrap)
    kafka_broker.resume()  # away for longer than its session: it may have to register once more before it answers
    wait_for(lambda: kafka_answers(kafka_broker.bootstrap), PATIENCE_S, "the broker does not answer")


def test_redis_asks_for_its_password_and_persists_if_told_to() -> None:
    with RedisServer("secret", persist=True) as server:
        with server.client() as client:
            client.set("k", "v")
            run = client.info("server")["run_id"]
        server.restart()
        with server.client() as client:
            assert client.get("k") == b"v"
            assert client.info("server")["run_id"] != run


def test_a_slot_moves_with_its_keys(redis_cluster: RedisCluster) -> None:
    with redis.RedisCluster.from_url(redis_cluster.url) as client:
        client.set("{brokers}:a", "1")
        slot = client.keyslot("{brokers}:a")
        target = (redis_cluster.owner(slot) + 1) % 3
        redis_cluster.move_slot(slot, target)
        assert redis_cluster.owner(slot) == target
        assert client.get("{brokers}:a") == b"1"


def test_servers_end_with_a_test_run_that_is_killed() -> None:
    program = (
        "import signal\n"
        "from tests.brokers import RedisServer\n"
        "server = RedisServer().start()\n"
        "server.pause()\n"
        "print(server.port, server.folder, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=Path.cwd()) as process:
        assert process.stdout is not None
        port, folder = process.stdout.readline().decode().split()
        os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not is_listening(int(port)), PATIENCE_S, "the server is still there")
    wait_for(lambda: not Path(folder).exists(), PATIENCE_S, "its folder is still there")

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
import structlog

from stream.outage import Outage
from stream.pulse import Pulse
from stream.shard import Shard
from stream.transport import TP, Log
from stream.watchdog import Standstill


@dataclass
class Consumer:
    generation: int = 1
    flow_active: bool = True
    age: float = 0.0
    logs: dict[TP, Log] = field(default_factory=dict)

    def contact_age(self) -> float:
        return self.age

    def log_of(self, tp: TP) -> Log | None:
        return self.logs.get(tp)


@dataclass
class World:
    """A worker of two shards with all that its pulse looks at, and a broker that answers at every beat."""

    consumer: Consumer = field(default_factory=Consumer)
    shards: dict[TP, Shard] = field(default_factory=dict)
    stopping: bool = False
    caught_up: asyncio.Event = field(default_factory=asyncio.Event)
    read: int = 0
    closed: bool = False
    topic: str = "events"
    beats: int = 0
    broker: bool = True
    fetched: int = 0
    fetching: bool = True

    def __post_init__(self) -> None:
        self.caught_up.set()
        self.redis, self.snapshots_away = Outage("redis"), Outage("snapshots")
        for topic in ("events", "covisits"):
            shard = Shard(topic, 0, 0.0, next=5)
            self.shards[shard.tp] = shard
            self.consumer.logs[shard.tp] = Log(5, 5, 1, 0)
        me = cast(Any, self)
        self.pulse = Pulse(me, me, me, self.redis, session_s=10)

    def answered(self) -> tuple[int, ...]:
        if self.broker and self.fetching:
            self.fetched = self.beats
        return (self.fetched,)

    def beat(self, times: int = 1, seconds: float = 1.0) -> Standstill | None:
        for _ in range(times):
            self.beats += 1
            self.consumer.age = 0.0 if self.broker else self.consumer.age + seconds
            if self.broker:
                for tp, log in self.consumer.logs.items():
                    self.consumer.logs[tp] = log._replace(answered_ms=self.beats)
            self.pulse.feel(seconds)
        return self.pulse.longest

    def wait(self, topic: str, records: int) -> None:
        """So many records come into a topic."""
        log = self.consumer.logs[TP(topic, 0)]
        self.consumer.logs[TP(topic, 0)] = log._replace(end=log.end + records, position=log.end + records)


@pytest.fixture
def world() -> World:
    return World()


def age(found: Standstill | None) -> float:
    return -1.0 if found is None else found.seconds


def test_nothing_to_do_is_no_standstill_while_the_broker_says_so(world: World) -> None:
    assert age(world.beat(100)) <= 0


def test_a_partition_that_is_not_fetched_any_more_stands_still(world: World) -> None:
    world.beat()
    world.consumer.logs = dict(world.consumer.logs)
    frozen = world.consumer.logs.pop(TP("events", 0))
    for _ in range(9):
        world.beats += 1
        world.consumer.logs = {TP("covisits", 0): Log(5, 5, 1, world.beats), TP("events", 0): frozen}
        world.pulse.feel(1.0)
    assert world.pulse.longest is not None
    assert world.pulse.longest.what.startswith("events-0 is not fetched")
    assert world.pulse.longest.seconds >= 8


def test_a_shard_that_does_not_move_grows_old_and_one_step_makes_it_young(world: World) -> None:
    world.wait("events", 10)
    assert world.beat(31) == Standstill("events-0 stands at offset 5", 30.0)
    world.shards[TP("events", 0)].next = 6
    assert world.beat() == Standstill("events-0 stands at offset 6", 0.0)


def test_shards_that_move_in_turns_are_not_added_up(world: World) -> None:
    for topic in ("events", "covisits"):
        world.wait(topic, 1_000)
    for turn in range(50):
        world.shards[TP(("events", "covisits")[turn % 2], 0)].next += 1
        assert age(world.beat()) <= 1


def test_a_shard_before_its_first_record_has_work_once_something_was_fetched(world: World) -> None:
    shard = world.shards[TP("events", 0)]
    shard.next = -1
    world.consumer.logs[shard.tp] = Log(0, 0, 0, 0)
    assert age(world.beat(10)) <= 0
    assert world.pulse.lags()[shard.tp] == 0
    world.consumer.logs[shard.tp] = Log(7, 7, 1, 0)
    assert world.pulse.lags()[shard.tp] > 0
    assert age(world.beat(10)) == 9


@pytest.mark.parametrize("excuse", ["redis", "kafka", "snapshots", "topic", "stopping", "closed"])
def test_what_has_a_named_reason_is_no_standstill(world: World, excuse: str) -> None:
    world.wait("events", 10)
    world.beat(3)
    if excuse == "redis":
        world.redis.begin("refused")
    if excuse == "snapshots":
        world.snapshots_away.begin("no answer")
    if excuse == "kafka":
        world.broker = False
        world.beat(6)  # the first half of a session is patience
    world.pulse.topic_missing = excuse == "topic"
    world.stopping |= excuse == "stopping"
    world.closed |= excuse == "closed"
    assert age(world.beat(100)) <= 0


def test_a_shard_that_fails_although_the_servers_answer_grows_old(world: World) -> None:
    world.wait("events", 10)
    shard = world.shards[TP("events", 0)]
    shard.failed_at = 7
    for shard.failures in range(1, 32):  # a reload takes it back to where its snapshot was
        shard.next = 5 + shard.failures % 3
        found = world.beat()
    assert found == Standstill("events-0 is reloaded again and again and does not get beyond offset 7", 30.0)
    world.redis.begin("refused")
    assert age(world.beat()) <= 0


def test_an_absent_broker_is_said_once_and_so_is_its_return(world: World) -> None:
    with structlog.testing.capture_logs() as logs:
        world.broker = False
        world.beat(100)
        world.broker = True
        world.beat(100)
    assert [line["event"] for line in logs] == ["kafka_away", "kafka_back"]


def test_a_broadcast_that_is_not_fetched_any_more_stands_still_and_excuses_nothing(world: World) -> None:
    """Its fetcher may be dead; Kafka is not away as long as the group answers."""
    world.beat()
    world.fetching = False
    assert world.beat(36) == Standstill("the broker answers, but the broadcast topics are not fetched any more", 30.0)
    assert not world.pulse.kafka.trouble
    world.wait("events", 10)
    world.pulse.feel(1.0)
    assert "events-0 stands at offset 5" in world.pulse._ages
    world.broker = False
    assert age(world.beat(10)) <= 0
    assert world.pulse.kafka.trouble
    world.broker = True
    world.beat()
    assert not world.pulse.kafka.trouble, "the group answers again"


def test_a_group_that_forgot_this_worker_and_a_flow_that_never_resumed_stand_still(world: World) -> None:
    world.consumer.flow_active = False
    found = world.beat(20)
    assert found is not None
    assert found.what.startswith("records do not flow")
    assert found.seconds == 19
    world.consumer.generation = -1
    found = world.beat(20)
    assert found is not None
    assert "no member of its group" in found.what

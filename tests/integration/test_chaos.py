"""A few seeds of the chaos runner; `tests/chaos.py` itself runs as many as one has time for."""

from __future__ import annotations

from pathlib import Path

from tests.brokers import KafkaBroker, RedisServer
from tests.chaos import PARTITIONS, RECORDING, SESSION_S, Arena, summary
from tests.disturbances import plan
from tests.rough_stream import rough_stream

EVENTS = 60_000
KILLS = 5
WORKERS = 3
SEEDS = (1, 2, 3)


def test_a_plan_is_its_seed_and_has_all_kinds_of_disturbances() -> None:
    steps = plan(7, KILLS, SESSION_S)
    assert steps == plan(7, KILLS, SESSION_S) != plan(8, KILLS, SESSION_S)
    assert sorted(step.kind for step in steps) == ["add", "broker", "freeze", *["kill"] * KILLS, "redis", "remove"]
    assert all(step.lasts_s > SESSION_S for step in steps if step.kind == "freeze")


async def test_chaos_neither_loses_nor_doubles_anything(
    kafka_broker: KafkaBroker, redis_server: RedisServer, data: Path, tmp_path: Path
) -> None:
    arena = Arena(kafka_broker, redis_server, tmp_path, rough_stream(data / RECORDING, EVENTS, PARTITIONS))
    expected = await arena.undisturbed()
    assert len(expected.lists) > EVENTS // 10
    outcomes = [await arena.disturbed(seed, plan(seed, KILLS, SESSION_S), WORKERS, expected) for seed in SEEDS]
    figures = summary(outcomes)
    assert figures["failed"] == [], [(one.seed, one.error, one.examples) for one in outcomes if one.failed]
    assert figures["kills"] == len(SEEDS) * KILLS
    assert figures["repeated"] > 0, "no worker was killed between deltas and snapshot: nothing was tested"

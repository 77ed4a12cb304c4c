"""Brokers and stores are away, slow or damaged: shards wait for them, and nothing is lost or counts twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.brokers import KafkaBroker
from tests.shard_group import Group, opened


async def test_error_that_ends_the_heartbeats_is_followed_by_a_rejoin(group: Group) -> None:
    group.start(session_s=2.0)
    for _ in range(2):
        await group.write(2000)
        await group.until_read()
        joined = group.log().count("Successfully synced")
        (group.folder / "heartbeat-error").touch()
        await group.until(lambda joined=joined: group.log().count("Successfully synced") > joined, "it stays out")  # type: ignore[misc]
    await group.write(2000)
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_error_that_ends_the_heartbeats_is_noticed_while_flow_is_stopped(group: Group) -> None:
    """Flow resumes long after the seek here: it must not take that long.

    The session is long enough for a busy machine: who loses it rejoins, and would wait for the flow from then on.
    """
    worker = group.start(session_s=9.0, resume_s=600.0)
    await group.write(2000)
    await group.until_read()  # the first assignment came before the worker was made slow
    (group.folder / "rejoin").touch()
    await group.until(lambda: group.log().count("Successfully synced") > 1, "no rejoin")
    (group.folder / "heartbeat-error").touch()
    await group.until(lambda: "Joining the group again" in group.log(), "it stays out")
    worker.kill()
    worker.wait()
    await group.write(2000)
    group.start()
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_server_without_answer_is_waited_for(group: Group) -> None:
    await group.write(4000)
    (group.folder / "down").touch()
    group.start(fail="down", fail_at=650)
    await group.until(lambda: group.count("reloads", "a") > 3, "it does not try again")
    (group.folder / "down").unlink()
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_store_of_snapshots_without_answer_is_waited_for(group: Group) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    (group.folder / "no-disk").touch()
    group.start()
    await group.write(400)
    await group.until(lambda: "snapshots_away" in group.log(), "it does not say so")
    assert group.processed() <= 0
    (group.folder / "no-disk").unlink()
    await group.until_read()
    await group.end()
    group.assert_exact()
    assert (group.log().count("snapshots_away"), group.log().count("snapshots_back")) == (1, 1)


async def test_store_whose_snapshots_are_all_damaged_stops_the_worker(group: Group) -> None:
    """To start without what was learned would lose it."""
    await group.write(400)
    group.start()
    await group.until_read()
    await group.end()
    for found in group.store.generations(f"{group.topic}-1"):
        (group.folder / "snapshots" / found.name).write_bytes(b"nothing")
    group.start()
    assert await group.exit_code() != 0
    assert f"snapshots of {group.topic}-1 can be read" in group.log()


async def test_broker_frozen_during_a_rebalance(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    async with opened(kafka_broker.bootstrap, "e", tmp_path) as group:
        await group.write(4000)
        group.start("a", session_s=3.0)
        await group.until_read()
        await group.until(lambda: group.status("a").may_write, "a may not write")
        group.start("b", session_s=3.0)
        await group.until(lambda: "(Re-)joining" in group.log("b"), "b does not join")
        kafka_broker.pause()
        await group.until(lambda: not group.status("a").may_write, "a is not fenced off")
        await asyncio.sleep(3)
        kafka_broker.resume()
        await group.until_shared()
        await group.write(4000)
        await group.until_read()
        await group.end("a")
        await group.end("b")
        group.assert_exact()


async def test_broker_killed_and_started_again(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    async with opened(kafka_broker.bootstrap, "e", tmp_path) as group:
        await group.write(4000)
        group.start(session_s=3.0)
        await group.until(lambda: group.processed() > 100, "it does not read")
        kafka_broker.kill()
        await group.until(lambda: not group.status().may_write, "it is not fenced off")
        kafka_broker.start()
        await group.write(4000)
        await group.until_read()
        await group.end()
        group.assert_exact()


async def test_terminated_while_the_broker_is_frozen(kafka_broker: KafkaBroker, tmp_path: Path) -> None:
    async with opened(kafka_broker.bootstrap, "e", tmp_path) as group:
        await group.write(4000)
        group.start(snapshot_every_s=60)
        await group.until_read()
        kafka_broker.pause()
        try:
            assert await group.end(seconds=60) == 0  # what it waits for would go on as long as the broker is frozen
            group.assert_exact()
        finally:
            kafka_broker.resume()

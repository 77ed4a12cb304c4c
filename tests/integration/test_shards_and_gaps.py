"""The log has holes: they are counted as lost, or stop the worker."""

from __future__ import annotations

import shutil

import numpy as np
from aiokafka import AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete  # type: ignore[import-untyped]  # no py.typed

from tests.shard_group import PARTITIONS, Group


async def delete_below(group: Group, offset: int) -> None:
    """Delete the oldest records of partition 0."""
    admin = AIOKafkaAdminClient(bootstrap_servers=group.kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(group.topic, 0): RecordsToDelete(before_offset=offset)})
    await admin.close()


async def test_deleted_records_are_counted_as_lost(group: Group) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    before = group.ends[0]
    await group.write(4000)
    await delete_below(group, before + 300)
    group.start()
    await group.until_read()
    assert [(loss.first, loss.end, loss.proven) for loss in group.status().losses] == [(before, before + 300, True)]
    assert group.count("lost", "a") == 300


async def test_new_group_starts_at_the_first_record_that_is_left(group: Group) -> None:
    await group.write(4000)
    await delete_below(group, 300)
    group.start()
    await group.until_read()
    assert group.count("lost", "a") == group.count("gaps", "a") == 0
    assert group.count("records", "a") == 3700


async def test_lost_snapshots_cost_nothing_while_the_log_is_whole_and_stop_the_worker_when_it_is_not(
    group: Group,
) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    shutil.rmtree(group.folder / "snapshots")
    group.start()
    await group.until_read()
    await group.end()
    group.assert_exact()
    assert group.log().count("snapshot_missing") == PARTITIONS

    shutil.rmtree(group.folder / "snapshots")
    await delete_below(group, 300)
    group.start()
    assert await group.exit_code() != 0
    assert f"no snapshot of {group.topic}-0 is found, although the group has committed offset 1000" in group.log()
    group.start(on_gap="accept")
    await group.until_read()
    assert [(loss.first, loss.end, loss.proven) for loss in group.status().losses] == [(0, 300, True)]
    assert group.count("lost", "a") == 300


async def _write_with_markers(group: Group) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=group.kafka, transactional_id=group.topic)
    await producer.start()
    for _ in range(2):  # each commit leaves a marker, which takes an offset and is never delivered
        async with producer.transaction():
            for _ in range(10):
                await producer.send_and_wait(group.topic, b"x", partition=0)
    await producer.stop()


async def test_hole_that_the_broker_does_not_explain_stops_the_worker(group: Group) -> None:
    await _write_with_markers(group)
    group.start()
    assert await group.exit_code() != 0
    assert f"1 records of {group.topic}-0 are missing: offsets 10 to 10" in group.log()


async def test_hole_that_the_broker_does_not_explain_can_be_accepted(group: Group) -> None:
    await _write_with_markers(group)
    group.start(on_gap="accept")
    await group.until(lambda: group.position()[0] == 22, "it stays before the hole")  # the last marker is the end
    losses = [(loss.first, loss.end, loss.proven) for loss in group.status().losses]
    assert losses == [(10, 11, False), (21, 22, False)]
    group.ends[0] = 22
    await group.write(400)  # and what comes then is read once
    await group.until_read()
    assert (group.count("records", "a"), group.count("lost", "a")) == (420, 2)


async def test_records_deleted_up_to_the_end_are_lost_although_none_comes_that_shows_it(group: Group) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    before = group.ends[0]
    await group.write(4000)
    admin = AIOKafkaAdminClient(bootstrap_servers=group.kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(group.topic, 0): RecordsToDelete(before_offset=group.ends[0])})
    await admin.close()
    group.start()
    await group.until_read()
    assert [(loss.first, loss.end, loss.proven) for loss in group.status().losses] == [(before, group.ends[0], True)]
    await group.write(400)
    await group.until_read()
    assert group.count("lost", "a") == group.ends[0] - 100 - before


async def test_snapshot_beyond_the_log_stops_the_worker(group: Group) -> None:
    await group.write(400)
    group.store.write(f"{group.topic}-1", 5000, {"state": np.array([5000, 1], np.int64)})
    group.start()
    assert await group.exit_code() != 0
    assert "the topic was made anew or the broker lost records" in group.log()

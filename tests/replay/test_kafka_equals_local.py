"""A recorded stream through Kafka, a worker and Redis leaves the same lists as the pipeline in this process."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from stream.recordings import open_recording
from stream.replay import replay
from tests.worker_process import ROOM, Installation, balance, canonical_users, different, local_lists


@pytest.mark.parametrize(("name", "most"), [("rees46_head", None), ("taobao_2h", 20_000)])
async def test_a_replayed_recording_leaves_the_same_lists(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, data: Path, name: str, most: int | None
) -> None:
    events = list(islice(open_recording(data / f"{name}.csv.gz"), most))
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, neighbours=ROOM, transitions=ROOM) as shop:
        shop.start()
        await shop.finish(replay(shop.settings, events, speed=None), "replayed")
        expected = await local_lists(events, shop.settings)
        await shop.republish()
        found = await shop.lists(canonical_users(events))
        counts = await shop.counts()
    assert counts["learned"] == balance(counts) == len(events)
    assert len(expected) > 1_000
    assert different(found, expected) == []

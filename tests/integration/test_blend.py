"""Workers that rank by the blend: partitions come together over the global stage, and a killed worker goes on."""

from __future__ import annotations

import signal
from itertools import islice
from pathlib import Path
from typing import Any

from stream.demo.shop import Shop
from tests.worker_process import Installation, canonical_users

EVENTS = 16_000  # more touches per partition than lie between two messages to the global stage


async def blends(shop: Installation) -> dict[int, dict[str, Any]]:
    """What `rv:meta` says of the blend of each partition."""
    topic = shop.settings.topic("events") + "-"
    facts = (await shop.progress.facts()).items()
    return {int(name.removeprefix(topic)): fact["blend"] for name, fact in facts if name.startswith(topic)}


async def test_weights_are_learned_shared_and_survive_a_kill(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    source = Shop(seed=4, users=3_000, concurrent=300).events()
    settings: dict[str, Any] = {"ranking": "blend", "events_partitions": 2, "covisits_partitions": 1}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **settings) as shop:
        worker = shop.start()
        first = list(islice(source, EVENTS))
        await shop.publish(first)
        await shop.drained()

        async def together() -> bool:
            await shop.publish(list(islice(source, 40)))
            await shop.drained()
            return all(blend["mean"] > 0 for blend in (await blends(shop)).values())

        await shop.until(together, "not every partition has heard of the mean")

        async def told() -> bool:  # what was sent to the partitions is told of after that
            facts = await shop.progress.facts()
            return bool(facts[shop.settings.topic("global") + "-0"]["models"].get("blend", 0) > 0)

        await shop.until(told, "the global stage does not tell its version")
        before = await blends(shop)
        assert all(blend["lessons"] > 1_000 and 0 < blend["hit_rate"] < 1 for blend in before.values())
        assert before[0]["weights"] != before[1]["weights"]

        async def kept() -> bool:  # what is read again after a crash teaches the blend nothing
            return shop.saved("events") == await shop.progress.ends("events")

        await shop.until(kept, "not all is in snapshots")
        worker.send(signal.SIGKILL)
        shop.start()
        await shop.publish(list(islice(source, 500)))
        await shop.drained()
        after = await blends(shop)
        assert all(after[partition]["lessons"] > before[partition]["lessons"] for partition in before)
        lists = await shop.lists(canonical_users(first))
    assert len(lists) > 1_000
    assert {found.model for found in lists.values()} == {"blend"}
    reasons = {reason for found in lists.values() for _, reason in found.why}
    assert {"covisit", "sessions", "repeat"} <= reasons

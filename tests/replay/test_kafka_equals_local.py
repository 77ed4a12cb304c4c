"""A recorded stream through Kafka, a worker and Redis leaves the same keys as the pipeline in this process."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from stream.keys import parse_list
from tests.commands import command
from tests.worker_process import ROOM, Installation, different

WRITTEN = ("recs", "profile", "similar")  # trends and segments depend on how far other shards had got
DATA = [("rees46_head", 17_434, "covisit"), ("taobao_2h", 20_000, "blend")]


def kind(key: str) -> str:
    """What a key holds: of users the last part, of others the first."""
    name = key.split(":", 1)[1]
    return name.rpartition("}:")[2] if name.startswith("{") else name.partition(":")[0]


async def in_redis(shop: Installation) -> dict[str, Any]:
    """Every key of an installation, as ``replay --local --out`` writes them."""
    found: dict[str, Any] = {}
    async with Redis.from_url(shop.settings.redis, decode_responses=True) as client:
        async for key in client.scan_iter(f"{shop.settings.prefix}:*", count=10_000):
            if kind(key) in WRITTEN:
                found[key] = await (client.hgetall(key) if kind(key) == "profile" else client.get(key))
    return comparable(found)


def comparable(keys: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must agree on: a cluster's number is its own run's."""
    found = {key: value for key, value in keys.items() if kind(key) in WRITTEN}
    return {k: {**v, "segment": ""} if isinstance(v, dict) else v for k, v in found.items()}


@pytest.mark.parametrize(("name", "most", "ranking"), DATA)
async def test_a_replayed_recording_leaves_the_same_keys(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, data: Path, name: str, most: int, ranking: str
) -> None:
    """Bounds evict nothing, the blend's weights are frozen; everything else is as it comes, through the commands."""
    recording = tmp_path / f"{name}.csv"
    with gzip.open(data / f"{name}.csv.gz", "rt") as lines:
        recording.write_text("".join(islice(lines, most + 1)))
    names = {"neighbours": ROOM, "transitions": ROOM, "ranking": ranking, "blend_frozen": True}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **names) as shop:
        shop.start()
        code, out, err = await command(shop, "replay", str(recording), "--republish", "--json")
        assert code == 0, err
        assert json.loads(out)["sent"] == most
        found = await in_redis(shop)
        local = tmp_path / "local.jsonl"
        code, out, err = await command(shop, "replay", str(recording), "--local", "--republish", "--out", str(local))
        assert code == 0, err
        assert json.loads(out)["learned"] == most
    written = map(json.loads, local.read_text().splitlines())
    both = found, expected = found, comparable({line["key"]: line["value"] for line in written})
    assert found.keys() == expected.keys()
    assert Counter(map(kind, found)).keys() == set(WRITTEN)
    lists = [
        {key: parse_list(value.encode()) for key, value in keys.items() if isinstance(value, str)} for keys in both
    ]
    assert different(*lists) == []
    profiles = [{key: value for key, value in keys.items() if isinstance(value, dict)} for keys in both]
    assert profiles[0] == profiles[1]

"""A recorded stream through Kafka, a worker and Redis leaves the same keys as the pipeline in this process."""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from stream.keys import Offers, parse_list, parse_offers
from tests.commands import command
from tests.worker_process import ROOM, Installation, different

WRITTEN = ("recs", "offers", "profile", "similar")  # trends and segments depend on how far other shards had got
DATA = [("rees46_head", 17_434, "covisit"), ("taobao_2h", 20_000, "blend")]

T = TypeVar("T")


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


def offers_for(rows: Sequence[Mapping[str, str]]) -> str:
    """Offers on what is looked at most, as TOML: two for all, one for who has something in the cart, three for nobody.

    None is for a segment that there is: which one a user is in depends on how far other shards had got.
    """
    items = [item for item, _ in Counter(row["item"] for row in rows).most_common(60)]
    middle = datetime.fromtimestamp(int(rows[len(rows) // 2]["ts"]) / 1000, UTC).isoformat()
    offers = [
        ("plain", items[::2], "value = 1.0"),
        ("dear", items[1::2], "value = 3.0"),
        ("cart", items, "value = 9.0\nmin_cart_value = 1.0"),
        ("ended", items, f"value = 99.0\nvalid_until = {middle}"),
        ("to-come", items, "value = 99.0\nvalid_from = 2100-01-01T00:00:00Z"),
        ("nobodys", items, 'value = 99.0\nsegments = ["no such word"]'),
    ]
    return "".join(f'[[offers]]\nid = "{name}"\nitems = {json.dumps(on)}\n{terms}\n' for name, on, terms in offers)


def same_offers(mine: Offers, theirs: Offers) -> bool:
    """Same offers and scores; which of two items that earned the same is named as the reason depends on rounding."""
    one, two = ({offer.id: offer for offer in offers.offers} for offers in (mine, theirs))
    return (
        mine.ts == theirs.ts
        and one.keys() == two.keys()
        and all(one[name].until == two[name].until for name in one)
        and all(math.isclose(one[name].score, two[name].score, rel_tol=1e-6, abs_tol=2.2e-6) for name in one)
    )


def parsed(keys: Mapping[str, Any], parse: Callable[[bytes], T], *kinds: str) -> dict[str, T]:
    """Values of some kinds, by key."""
    return {key: parse(value.encode()) for key, value in keys.items() if kind(key) in kinds}


@pytest.mark.parametrize(("name", "most", "ranking"), DATA)
async def test_a_replayed_recording_leaves_the_same_keys(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, data: Path, name: str, most: int, ranking: str
) -> None:
    """Bounds evict nothing, the blend's weights are frozen; everything else is as it comes, through the commands."""
    recording = tmp_path / f"{name}.csv"
    with gzip.open(data / f"{name}.csv.gz", "rt") as lines:
        recording.write_text("".join(islice(lines, most + 1)))
    with recording.open() as lines:
        rows = list(csv.DictReader(lines))
    (offers := tmp_path / "offers.toml").write_text(offers_for(rows))
    names = {"neighbours": ROOM, "transitions": ROOM, "ranking": ranking, "blend_frozen": True}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **names) as shop:
        code, _, err = await command(shop, "offers", str(offers))
        assert code == 0, err
        shop.start()
        code, out, err = await command(shop, "replay", str(recording), "--republish", "--json")
        assert code == 0, err
        assert json.loads(out)["sent"] == most
        found = await in_redis(shop)
        local = tmp_path / "local.jsonl"
        arguments = ("replay", str(recording), "--local", "--republish", "--out", str(local))
        code, out, err = await command(shop, str(offers), *arguments, module="tests.local_offers")
        assert code == 0, err
        assert json.loads(out)["learned"] == most
    written = map(json.loads, local.read_text().splitlines())
    both = found, expected = found, comparable({line["key"]: line["value"] for line in written})
    assert found.keys() == expected.keys()
    assert Counter(map(kind, found)).keys() == set(WRITTEN)
    assert different(*(parsed(keys, parse_list, "recs", "similar") for keys in both)) == []
    profiles = [{key: value for key, value in keys.items() if isinstance(value, dict)} for keys in both]
    assert profiles[0] == profiles[1]
    mine, theirs = (parsed(keys, parse_offers, "offers") for keys in both)
    assert [key for key in mine if not same_offers(mine[key], theirs[key])] == []
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for key, value in mine.items():
        for offer in value.offers:
            holders[offer.id].add(key)
    assert holders.keys() - {"cart"} == {"plain", "dear"}
    carts = {row["user"] for row in rows if row["type"] == "cart" and row["value"]}
    assert holders["cart"] <= {shop.keys.offers(user).decode() for user in carts}
    assert bool(holders["cart"]) == bool(carts)  # one recording has values, the other has none

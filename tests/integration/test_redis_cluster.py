"""The store on a real cluster whose slots and nodes change while it writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import redis
import structlog

from stream.errors import ConfigurationError
from stream.keys import Keys
from stream.resp import WriteBatch, key_slot
from stream.store import RedisStore
from tests.brokers import RedisCluster, wait_for
from tests.patience import PATIENCE_S


@pytest.fixture
async def store(redis_cluster: RedisCluster) -> AsyncIterator[RedisStore]:
    store = await RedisStore.connect(redis_cluster.url + "?cluster=true")
    yield store
    await store.close()


def lists(keys: list[bytes], value: bytes) -> WriteBatch:
    batch = WriteBatch()
    for key in keys:
        batch.set(key, value, 600)
    return batch


async def move(cluster: RedisCluster, slot: int) -> None:
    target = (await asyncio.to_thread(cluster.owner, slot) + 1) % 3
    await asyncio.to_thread(cluster.move_slot, slot, target)


async def test_a_moved_slot_is_followed_once(redis_cluster: RedisCluster, store: RedisStore, topic_prefix: str) -> None:
    keys = [Keys(topic_prefix).recs(f"u{n}") for n in range(300)]
    await store.flush(lists(keys, b"old"))
    await move(redis_cluster, key_slot(keys[7]))
    before = store.retries
    await store.flush(lists(keys, b"new"))
    assert store.retries == before + 1
    assert await store.get(keys) == [b"new"] * len(keys)
    await store.flush(lists(keys, b"newer"))
    assert store.retries == before + 1, "the new owner's address was not kept"


async def test_slots_moving_while_flushing_lose_nothing(
    redis_cluster: RedisCluster, store: RedisStore, topic_prefix: str
) -> None:
    keys = [Keys(topic_prefix).recs(f"u{n}") for n in range(500)]
    await store.flush(lists(keys, b"0"))
    moving = asyncio.create_task(asyncio.to_thread(_move_all, redis_cluster, [key_slot(key) for key in keys[:12]]))
    rounds = 0
    while not moving.done():
        rounds += 1
        await store.flush(lists(keys, b"%d" % rounds))
        assert await store.get(keys) == [b"%d" % rounds] * len(keys)
    await moving
    assert store.retries > 0
    with redis.RedisCluster.from_url(redis_cluster.url) as reader:
        assert {reader.get(key) for key in keys} == {b"%d" % rounds}


def _move_all(cluster: RedisCluster, slots: list[int]) -> None:
    for slot in slots:
        cluster.move_slot(slot, (cluster.owner(slot) + 1) % 3)


@contextmanager
def half_moved(cluster: RedisCluster, slot: int) -> Iterator[redis.Redis]:
    """A slot between two nodes: the old one answers ASK for keys it does not have. Yields the importing node."""
    source = cluster.owner(slot)
    target = (source + 1) % 3
    with cluster.nodes[source].client() as old, cluster.nodes[target].client() as new:
        old_id, new_id = old.execute_command("CLUSTER", "MYID"), new.execute_command("CLUSTER", "MYID")
        new.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", new_id)
        yield new
        cluster.move_slot(slot, target)


async def test_ask_is_followed_for_every_kind_of_write(
    redis_cluster: RedisCluster, store: RedisStore, topic_prefix: str
) -> None:
    keys = Keys(topic_prefix)
    string, hash_, gone = keys.recs("u1"), keys.profile("u1"), keys.offers("u1")
    others = [keys.recs(f"other{n}") for n in range(100)]
    batch = lists([*others, string], b"value")
    batch.hset(hash_, {b"segment": b"3"}, 600)
    batch.delete(gone)
    slot = key_slot(string)
    with half_moved(redis_cluster, slot) as importing:
        await store.flush(batch)
        held = importing.execute_command("CLUSTER", "COUNTKEYSINSLOT", slot)  # type: ignore[no-untyped-call] # redis-py
        assert held == 2
        assert await store.get([string]) == [b"value"]
    assert await store.get([*others, string]) == [b"value"] * 101
    with redis.RedisCluster.from_url(redis_cluster.url) as reader:
        assert 500 < reader.ttl(hash_) <= 600
        assert reader.hgetall(hash_) == {b"segment": b"3"}


async def test_a_split_slot_is_read_again_until_whole(
    redis_cluster: RedisCluster, store: RedisStore, topic_prefix: str
) -> None:
    keys = Keys(topic_prefix).user_keys("u1")[:2]
    await store.flush(lists([keys[0]], b"old node"))
    with half_moved(redis_cluster, key_slot(keys[0])) as importing:
        await store.flush(lists([keys[1]], b"new node"))
        reading = asyncio.create_task(store.get(keys))
        # TRYAGAIN: one MGET cannot be served by two nodes
        await asyncio.to_thread(wait_for, lambda: store.retries > 2, PATIENCE_S, "no retry")
        port = importing.connection_pool.connection_kwargs["port"]
        source = redis_cluster.nodes[redis_cluster.owner(key_slot(keys[0]))]
        with source.client() as old:
            old.execute_command("MIGRATE", "127.0.0.1", port, keys[0], 0, 60_000)
        assert await reading == [b"old node", b"new node"]


async def test_a_node_that_comes_back_gets_what_it_missed(topic_prefix: str) -> None:
    keys = [Keys(topic_prefix).recs(f"u{n}") for n in range(3000)]
    with RedisCluster(node_timeout_ms=2_000) as cluster, structlog.testing.capture_logs() as logs:
        store = await RedisStore.connect(cluster.url.replace("redis://", "redis+cluster://"))
        await asyncio.to_thread(cluster.nodes[1].kill)
        flushing = asyncio.create_task(store.flush(lists(keys, b"x")))
        await asyncio.to_thread(wait_for, lambda: store.retries > 3, PATIENCE_S, "no retry")
        assert not flushing.done()
        await asyncio.to_thread(cluster.nodes[1].start)
        async with asyncio.timeout(PATIENCE_S):
            await flushing
            assert await store.get(keys) == [b"x"] * len(keys)
        await store.close()
    assert [line["event"] for line in logs] == ["redis_away", "redis_back"], "one line, not one per retry"


async def test_each_master_counts_in_the_run_id(redis_cluster: RedisCluster, store: RedisStore) -> None:
    assert len(set((await store.run_id()).split(","))) == len(redis_cluster.nodes)


async def test_a_cluster_reached_without_saying_so_is_a_clear_error(
    redis_cluster: RedisCluster, topic_prefix: str
) -> None:
    store = await RedisStore.connect(redis_cluster.url)
    with pytest.raises(ConfigurationError, match="part of a cluster: add"):
        await store.flush(lists([Keys(topic_prefix).recs(f"u{n}") for n in range(50)], b"x"))
    await store.close()


async def test_a_single_server_called_a_cluster_is_a_clear_error(redis_url: str) -> None:
    with pytest.raises(ConfigurationError, match="cluster support disabled"):
        await RedisStore.connect(redis_url.replace("redis://", "redis+cluster://"))

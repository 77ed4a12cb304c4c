"""One contract for every store: memory, the demo's embedded server, a real server, a real cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import redis

from stream.keys import Keys
from stream.memory_store import MemoryStore
from stream.resp import StoreError, WriteBatch
from stream.store import RedisStore, Store

HOSTILE = [
    "é",
    "日本語",
    "{",
    "}",
    "{}",
    "a:b",
    "100%",
    "%7B",
    "a b",
    "x\r\n$3\r\nDEL",
    "*",
    "\x00",
    "🛒" * 50,
    "u" * 256,
]


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    """A store under test and a second view on what it holds."""

    store: Store
    keys: Keys
    ttl: Callable[[bytes], float]
    pass_time: Callable[[float], None]

    def key(self, name: str) -> bytes:
        return self.keys.recs(name)


@pytest.fixture(params=["memory", "embedded_redis", "redis_url", "cluster"])
async def bench(request: pytest.FixtureRequest, topic_prefix: str) -> AsyncIterator[Bench]:
    keys = Keys(topic_prefix)
    if request.param == "memory":
        clock = Clock()

        def pass_time(seconds: float) -> None:
            clock.now += seconds

        memory = MemoryStore(clock)
        yield Bench(memory, keys, lambda key: memory.ttl(key) or -1, pass_time)
        return
    if request.param != "cluster":
        url = request.getfixturevalue(request.param)
        client: redis.Redis | redis.RedisCluster = redis.Redis.from_url(url)
    else:
        url = request.getfixturevalue("redis_cluster").url
        client = redis.RedisCluster.from_url(url)
        url += "?cluster=true"
    store = await RedisStore.connect(url)
    with client:
        yield Bench(store, keys, lambda key: float(client.pttl(key)) / 1000, time.sleep)
    await store.close()


async def write(store: Store, *writes: tuple[bytes, bytes]) -> None:
    batch = WriteBatch()
    for key, value in writes:
        batch.set(key, value, 3_600)
    await store.flush(batch)


async def test_a_string_without_a_lifetime_stays(bench: Bench) -> None:
    batch, again = WriteBatch(), WriteBatch()
    batch.set(bench.key("a"), b"1", 60)
    again.set(bench.key("a"), b"2", None)
    await bench.store.flush(batch)
    assert bench.ttl(bench.key("a")) > 0
    await bench.store.flush(again)
    assert await bench.store.get([bench.key("a")]) == [b"2"]
    assert bench.ttl(bench.key("a")) < 0
    await bench.store.flush(batch)
    assert bench.ttl(bench.key("a")) > 0


async def test_what_was_set_is_read_back_in_order(bench: Bench) -> None:
    a, b, c = (bench.key(name) for name in "abc")
    await write(bench.store, (a, b"1"), (b, b"2"))
    assert await bench.store.get([b, c, a, b]) == [b"2", None, b"1", b"2"]
    assert await bench.store.get([]) == []


async def test_set_lives_for_its_ttl(bench: Bench) -> None:
    batch = WriteBatch()
    batch.set(bench.key("long"), b"x", 3600)
    batch.set(bench.key("short"), b"x", 1)
    await bench.store.flush(batch)
    assert bench.ttl(bench.key("long")) == pytest.approx(3600, abs=120)
    bench.pass_time(1.05)
    assert await bench.store.get([bench.key("short"), bench.key("long")]) == [None, b"x"]


async def test_set_replaces_value_ttl_and_type(bench: Bench) -> None:
    batch = WriteBatch()
    batch.hset(bench.key("a"), {b"f": b"1"}, None)
    await bench.store.flush(batch)
    batch = WriteBatch()
    batch.set(bench.key("a"), b"new", 500)
    await bench.store.flush(batch)
    assert await bench.store.get([bench.key("a")]) == [b"new"]
    assert bench.ttl(bench.key("a")) == pytest.approx(500, abs=120)


async def test_hset_merges_fields_and_renews_the_ttl_if_told(bench: Bench) -> None:
    key = bench.key("h")
    for fields, ttl, expected in (({b"a": b"1"}, None, -1), ({b"b": b"2"}, 900, 900), ({b"a": b"3"}, None, 900)):
        batch = WriteBatch()
        batch.hset(key, fields, ttl)
        await bench.store.flush(batch)
        assert bench.ttl(key) == pytest.approx(expected, abs=120)
    assert await bench.store.hgetall(key) == {b"a": b"3", b"b": b"2"}
    assert await bench.store.hgetall(bench.key("none")) == {}
    assert await bench.store.get([key]) == [None]


async def test_hdel_removes_fields_and_the_last_one_takes_the_hash_along(bench: Bench) -> None:
    key = bench.key("h")
    batch = WriteBatch()
    batch.hset(key, {b"a": b"1", b"b": b"2", b"c": b"3"}, None)
    await bench.store.flush(batch)
    for fields, left in (((b"a", b"absent"), {b"b": b"2", b"c": b"3"}), ((b"b", b"c"), {}), ((b"c",), {})):
        batch = WriteBatch()
        batch.hdel(key, fields)
        await bench.store.flush(batch)
        assert await bench.store.hgetall(key) == left


async def test_delete_removes_any_type_and_tolerates_absence(bench: Bench) -> None:
    string, hash_, absent = (bench.key(name) for name in ("s", "h", "absent"))
    batch = WriteBatch()
    batch.set(string, b"x", 60)
    batch.hset(hash_, {b"f": b"x"}, 60)
    await bench.store.flush(batch)
    batch = WriteBatch()
    batch.delete(string, hash_, absent)
    await bench.store.flush(batch)
    assert await bench.store.get([string]) == [None]
    assert await bench.store.hgetall(hash_) == {}


async def test_a_big_batch_is_written_completely(bench: Bench) -> None:
    batch, keys = WriteBatch(), [bench.key(f"u{n}") for n in range(20_000)]
    for n, key in enumerate(keys):
        batch.set(key, b"%d:" % n + b"v" * 300, 600)
    await bench.store.flush(batch)
    assert len(batch) == 20_000
    assert await bench.store.get(keys) == [b"%d:" % n + b"v" * 300 for n in range(20_000)]


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65_536, 3_000_000])
async def test_values_of_any_size_and_content(bench: Bench, size: int) -> None:
    value = (b"\r\n$+-:*\x00\xff" * (size // 9 + 1))[:size]
    await write(bench.store, (bench.key("before"), b"x"), (bench.key("big"), value), (bench.key("after"), b"y"))
    names = ("before", "big", "after")
    assert await bench.store.get([bench.key(name) for name in names]) == [b"x", value, b"y"]


async def test_an_empty_batch_does_nothing(bench: Bench) -> None:
    await bench.store.flush(WriteBatch())


async def test_hostile_ids_stay_apart(bench: Bench) -> None:
    await write(bench.store, *((bench.key(name), name.encode()) for name in HOSTILE))
    assert await bench.store.get([bench.key(name) for name in HOSTILE]) == [name.encode() for name in HOSTILE]


async def test_flushing_twice_changes_nothing(bench: Bench) -> None:
    batch = WriteBatch()
    batch.set(bench.key("a"), b"1", 60)
    batch.hset(bench.key("h"), {b"f": b"1"}, 60)
    batch.delete(bench.key("gone"))
    for _ in range(2):
        await bench.store.flush(batch)
    assert await bench.store.get([bench.key("a")]) == [b"1"]
    assert await bench.store.hgetall(bench.key("h")) == {b"f": b"1"}


async def test_a_string_where_a_hash_belongs_is_replaced_by_it(bench: Bench) -> None:
    """Somebody else's write, refused for ever, would keep the worker from ever getting beyond its user."""
    await write(bench.store, (bench.key("text"), b"x"))
    batch = WriteBatch()
    for n in range(3000):
        batch.set(bench.key(f"u{n}"), b"x" * 200, 60)
    batch.hset(bench.key("text"), {b"f": b"1"}, 60)
    batch.set(bench.key("last"), b"y", 60)
    await bench.store.flush(batch)
    assert await bench.store.hgetall(bench.key("text")) == {b"f": b"1"}
    assert await bench.store.get([bench.key("u2999"), bench.key("last")]) == [b"x" * 200, b"y"]
    await write(bench.store, (bench.key("text"), b"x"))
    assert await bench.store.mark(bench.key("text"), b"f")
    assert await bench.store.hgetall(bench.key("text")) == {b"f": b"1"}


async def test_reading_a_string_as_hash_names_its_kind_of_key_and_no_user(bench: Bench) -> None:
    await write(bench.store, (bench.key("text"), b"x"))
    with pytest.raises(StoreError, match=r":\{\.\.\.\}:recs: WRONGTYPE"):
        await bench.store.hgetall(bench.key("text"))


async def test_one_field_of_a_hash(bench: Bench) -> None:
    batch = WriteBatch()
    batch.hset(bench.key("hash"), {b"f": b"1", b"g": b""}, 60)
    await bench.store.flush(batch)
    found = [await bench.store.hget(bench.key("hash"), field) for field in (b"f", b"g", b"h")]
    assert found == [b"1", b"", None]
    assert await bench.store.hget(bench.key("nothing"), b"f") is None


async def test_a_mark_is_new_only_once(bench: Bench) -> None:
    found = [await bench.store.mark(bench.key("hash"), field) for field in (b"f", b"f", b"g", b"f")]
    assert found == [True, False, True, False]
    assert await bench.store.hgetall(bench.key("hash")) == {b"f": b"1", b"g": b"1"}
    assert not await bench.store.mark(bench.key("hash"), b"f", b"g")
    assert await bench.store.mark(bench.key("hash"), b"f", b"h")


async def test_the_store_works_on_after_a_refusal(bench: Bench) -> None:
    await write(bench.store, (bench.key("text"), b"x"))
    with pytest.raises(StoreError):
        await bench.store.hgetall(bench.key("text"))
    await write(bench.store, (bench.key("text"), b"y"))
    assert await bench.store.get([bench.key("text")]) == [b"y"]


async def test_flushes_at_the_same_time_all_arrive(bench: Bench) -> None:
    keys = [[bench.key(f"{task}-{n}") for n in range(500)] for task in range(8)]
    await asyncio.gather(*(write(bench.store, *((key, key) for key in part)) for part in keys))
    for part in keys:
        assert await bench.store.get(part) == part


async def test_run_id_is_stable_while_the_server_runs(bench: Bench) -> None:
    first = await bench.store.run_id()
    assert first
    assert await bench.store.run_id() == first


async def test_closing_twice_is_harmless(bench: Bench) -> None:
    await bench.store.close()
    await bench.store.close()


@pytest.mark.parametrize("ttl", [0, -1])
def test_a_lifetime_is_at_least_a_second(ttl: int) -> None:
    with pytest.raises(ValueError, match="at least 1 s"):
        WriteBatch().set(b"k", b"v", ttl)
    with pytest.raises(ValueError, match="at least 1 s"):
        WriteBatch().hset(b"k", {b"f": b"v"}, ttl)


def test_a_hash_needs_a_field() -> None:
    with pytest.raises(ValueError, match="at least one field"):
        WriteBatch().hset(b"k", {}, None)
    with pytest.raises(ValueError, match="at least one field"):
        WriteBatch().hdel(b"k", ())


@pytest.mark.parametrize("replies", [[b"OK", 1, 1, b"OK"], [None, 1, 1, 1], [b"OK", b"OK", 1, 0], [b"OK", 1, None, 1]])
def test_a_reply_of_the_wrong_shape_is_noticed(replies: list[object]) -> None:
    batch = WriteBatch()
    batch.set(b"a", b"1", 1)
    batch.hset(b"b", {b"f": b"1"}, 1)
    batch.delete(b"c")
    batch.check([b"OK", 1, 1, 0])
    with pytest.raises(StoreError, match=r"to the write of [abc]$"):
        batch.check(replies)


@pytest.mark.parametrize("key", [b"a", b"{u}x", b"x{u}y{z}", b"{}x", b"{u", b"}{u}", b"{{u}}", b""])
def test_slots_are_those_of_redis(key: bytes) -> None:
    from redis.crc import key_slot as reference

    from stream.resp import key_slot

    assert key_slot(key) == reference(key)

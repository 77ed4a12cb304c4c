"""The store when its server dies, freezes, fills up or refuses; nothing is lost, nothing hangs for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import redis
import structlog

from stream.errors import ConfigurationError, UnavailableError
from stream.resp import StoreError, WriteBatch
from stream.store import RedisStore
from tests.brokers import RedisServer, free_ports, wait_for
from tests.patience import PATIENCE_S

KEYS = [b"rv:{u%d}:recs" % n for n in range(4000)]
VALUE = b"v" * 700


def lists(value: bytes = VALUE, keys: list[bytes] = KEYS) -> WriteBatch:
    batch = WriteBatch()
    for key in keys:
        batch.set(key, value, 600)
    return batch


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, condition, PATIENCE_S, "the store did not get there")


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[RedisStore]:
    store = await RedisStore.connect(redis_server.url + "?socket_timeout=2")
    yield store
    await store.close()


async def test_killed_and_restarted_in_the_middle_of_a_flush(redis_server: RedisServer, store: RedisStore) -> None:
    redis_server.pause()  # so that the flush is surely under way: two chunks sent, no answer
    flushing = asyncio.create_task(store.flush(lists()))
    await asyncio.sleep(0)
    await asyncio.to_thread(redis_server.kill)
    await until(lambda: store.retries > 2)
    assert not flushing.done()
    await asyncio.to_thread(redis_server.start)
    await asyncio.wait_for(flushing, PATIENCE_S)
    assert await store.get(KEYS) == [VALUE] * len(KEYS)


async def test_what_was_answered_before_the_crash_is_written_again(
    redis_server: RedisServer, store: RedisStore
) -> None:
    """The server keeps nothing on disk: keys of the flush's first chunks die with it."""
    flushing = asyncio.create_task(store.flush(lists()))

    def kill_when_some_arrived() -> None:
        with redis_server.client() as client:
            while not client.dbsize():
                pass
        redis_server.kill()
        redis_server.start()

    await asyncio.to_thread(kill_when_some_arrived)
    was_interrupted = not flushing.done() or store.retries > 0
    await asyncio.wait_for(flushing, PATIENCE_S)
    if was_interrupted:  # else the machine was fast enough to finish first, and the data is gone as it must be
        assert await store.get(KEYS) == [VALUE] * len(KEYS)


async def test_a_frozen_server_is_asked_again(redis_server: RedisServer, store: RedisStore) -> None:
    redis_server.pause()
    with structlog.testing.capture_logs() as logs:
        flushing = asyncio.create_task(store.flush(lists()))
        await until(lambda: store.retries > 0)
    redis_server.resume()
    await asyncio.wait_for(flushing, PATIENCE_S)
    assert await store.get(KEYS) == [VALUE] * len(KEYS)
    assert logs[0]["trouble"].endswith("no answer in time")


async def test_a_cancelled_flush_ends_at_once_and_leaves_no_stray_replies(redis_server: RedisServer) -> None:
    store = await RedisStore.connect(redis_server.url + "?socket_timeout=3600")  # which it does not wait for
    with redis_server.client() as client:
        client.client_pause(3_600_000, all=False)  # only writes wait: it can still say that the flush has arrived
        flushing = asyncio.create_task(store.flush(lists()))
        await until(lambda: client.info("clients")["blocked_clients"] == 1)
        flushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(flushing, PATIENCE_S)
        client.client_unpause()
    assert await store.hgetall(b"nothing") == {}
    assert store.retries == 0, "it took replies for its own that belonged to nobody"
    await store.flush(lists(b"after"))
    assert await store.get(KEYS) == [b"after"] * len(KEYS)
    await store.close()


async def test_a_full_memory_is_waited_for(redis_server: RedisServer, store: RedisStore) -> None:
    batch = lists()
    batch.hset(b"rv:{u1}:profile", {b"segment": b"3"}, 600)
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        client.config_set("maxmemory", "1")
        flushing = asyncio.create_task(store.flush(batch))
        await until(lambda: store.retries > 4)
        assert not flushing.done()
        client.config_set("maxmemory", "0")
        await asyncio.wait_for(flushing, PATIENCE_S)
        assert await store.get(KEYS) == [VALUE] * len(KEYS)
        assert 500 < client.ttl("rv:{u1}:profile") <= 600, "EXPIRE was not repeated with its HSET"
    assert [line["event"] for line in logs] == ["redis_away", "redis_back"], "one line, not one per retry"
    assert logs[0]["trouble"].startswith("OOM ")


@contextmanager
def too_few_replicas(server: RedisServer) -> Iterator[None]:
    with server.client() as client:
        client.config_set("min-replicas-to-write", "1")
        yield
        client.config_set("min-replicas-to-write", "0")


@contextmanager
def disk_that_saves_nothing(server: RedisServer) -> Iterator[None]:
    """What a stock Redis does when its own disk is full: it has save points, and stops writes when a save failed."""
    (server.folder / "dump.rdb").mkdir()  # to rename a file onto a folder fails, whoever we are
    with server.client() as client:
        client.config_set("save", "3600 1")
        client.bgsave()
        wait_for(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", PATIENCE_S, "it is saved")
        yield
        client.config_set("save", "")


@contextmanager
def script_that_does_not_end(server: RedisServer) -> Iterator[None]:
    with server.client() as client, server.client() as caller:
        client.config_set("lua-time-limit", "1")
        call = threading.Thread(target=_call_forever, args=[caller])
        call.start()
        wait_for(lambda: not _answers(client), PATIENCE_S, "it is not busy")
        yield
        client.script_kill()
        call.join()


def _call_forever(client: redis.Redis) -> None:
    with suppress(redis.ResponseError):  # killed
        client.eval("while true do end", 0)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ResponseError:
        return False


REFUSALS = {"NOREPLICAS": too_few_replicas, "MISCONF": disk_that_saves_nothing, "BUSY": script_that_does_not_end}


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_server_that_takes_no_writes_for_now_is_waited_for(
    redis_server: RedisServer, store: RedisStore, code: str
) -> None:
    with structlog.testing.capture_logs() as logs, REFUSALS[code](redis_server):
        flushing = asyncio.create_task(store.flush(lists()))
        await until(lambda: store.retries > 4)
        assert not flushing.done()
    await asyncio.wait_for(flushing, PATIENCE_S)
    assert await store.get(KEYS) == [VALUE] * len(KEYS)
    assert logs[0]["event"] == "redis_away"
    assert code in logs[0]["trouble"]


async def test_a_profile_that_holds_a_string_is_replaced_once(redis_server: RedisServer, store: RedisStore) -> None:
    batch = WriteBatch()
    batch.hset(b"rv:{u1}:profile", {b"segment": b"3"}, 600)
    with redis_server.client() as client, structlog.testing.capture_logs() as logs:
        client.set("rv:{u1}:profile", "not ours")
        await store.flush(batch)
        assert client.hgetall("rv:{u1}:profile") == {b"segment": b"3"}
        assert 500 < client.ttl("rv:{u1}:profile") <= 600
    assert [(line["event"], line["first"]) for line in logs] == [("redis_keys_replaced", "rv:{...}:profile")]


async def test_a_demoted_master_is_waited_for(redis_server: RedisServer, store: RedisStore) -> None:
    with redis_server.client() as client:
        before = client.info("stats")["total_connections_received"]
        client.replicaof("127.0.0.1", free_ports(1)[0])
        flushing = asyncio.create_task(store.flush(lists()))
        await until(lambda: store.retries > 2)
        assert client.info("stats")["total_connections_received"] > before + 1, "a failover behind a name goes unseen"
        client.replicaof("NO", "ONE")
        await asyncio.wait_for(flushing, PATIENCE_S)
    assert await store.get(KEYS) == [VALUE] * len(KEYS)


async def test_a_restart_changes_the_run_id(redis_server: RedisServer, store: RedisStore) -> None:
    first = await store.run_id()
    await asyncio.to_thread(redis_server.restart)
    assert await store.run_id() != first


async def test_reading_waits_for_the_server_too(redis_server: RedisServer, store: RedisStore) -> None:
    await asyncio.to_thread(redis_server.kill)
    reading = asyncio.gather(store.get(KEYS[:3]), store.hgetall(b"h"), store.run_id())
    await until(lambda: store.retries > 4)
    await asyncio.to_thread(redis_server.start)
    values, fields, run_id = await asyncio.wait_for(reading, PATIENCE_S)
    assert (values, fields, len(run_id)) == ([None] * 3, {}, 40)


async def test_a_permission_missing_names_the_key(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.acl_setuser("worker", enabled=True, passwords=["+s3cret"], keys=["rv:*"], categories=["+@all"])
    store = await RedisStore.connect(redis_server.url.replace("redis://", "redis://worker:s3cret@"))
    await store.flush(lists(keys=KEYS[:5]))
    with pytest.raises(StoreError, match=r"^Redis refused other:\{\.\.\.\}: NOPERM"):
        await store.flush(lists(keys=[*KEYS[:5], b"other:{u}"]))
    await store.close()


@pytest.mark.parametrize("address", ["tcp", "unix"])
@pytest.mark.parametrize("login", [":wrong@", "nobody:wrong@", ""])
async def test_a_refused_login_is_one_clear_line(
    address: str, login: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    socket = tmp_path_factory.mktemp("redis") / "socket"
    with RedisServer("s3cret", options={"unixsocket": str(socket)}) as server:
        url = f"redis://{login}127.0.0.1:{server.port}/0" if address == "tcp" else f"unix://{login}{socket}"
        with pytest.raises(ConfigurationError, match="refused") as caught:
            await RedisStore.connect(url)
        right = await RedisStore.connect(server.url if address == "tcp" else f"unix://:s3cret@{socket}")
        await right.flush(lists(keys=KEYS[:5]))
        await right.close()
    assert "wrong" not in str(caught.value).lower().replace("wrongpass", "")
    assert "\n" not in str(caught.value)


async def test_nobody_there_is_one_clear_line() -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnavailableError, match=f"^Redis does not answer .*{port}.*is RIVULET_REDIS right"):
        await RedisStore.connect(f"redis://127.0.0.1:{port}/0")


@pytest.mark.parametrize("url", ["http://h", "redis://h?db=x", "redis://h?no_such_option=1", "redis://h:port", ""])
async def test_a_bad_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^bad Redis address"):
        await RedisStore.connect(url)


async def test_a_database_that_does_not_exist_is_a_configuration_error(redis_server: RedisServer) -> None:
    with pytest.raises(ConfigurationError, match="DB index is out of range"):
        await RedisStore.connect(redis_server.url.removesuffix("/0") + "/99")

"""Client-side caching: Redis says which shared keys have changed, so that a reader may keep the others for longer.

One more connection per reader, in RESP3 and in broadcasting mode: the server remembers two prefixes and no keys.
redis-py's own caching is not used: it has none for asyncio, passes pipelines by, and refuses servers that are not Redis
7.4 or later (Valkey, for one).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import Any, Final

import hiredis
import redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.connection import Connection as AsyncConnection
from redis.asyncio.connection import parse_url as parse_async_url
from redis.connection import parse_url
from redis.exceptions import RedisError

from stream.resp import pack
from stream.shared_cache import SharedCache

PING_S: Final = 1.0
AGAIN_S: Final = 5.0  # after a lost connection; until then keys are kept as without tracking
_PING: Final = pack(b"PING")
_TROUBLE: Final = (RedisError, OSError, hiredis.ProtocolError)


class _RefusedError(Exception):
    """The server does not track: too old, or not permitted."""


class _Pushes:
    """Makes of what a tracking connection receives what the cache must know.

    Silence could also mean a dead connection, so a question is asked every second, and the time of the last one that
    was answered is told.
    """

    def __init__(self, cache: SharedCache) -> None:
        self._cache = cache
        self._reader = hiredis.Reader()
        self.asked_at = time.monotonic()

    def hello(self) -> bytes:
        """The first thing to send."""
        prefixes = [part for prefix in self._cache.followed for part in (b"PREFIX", prefix)]
        return pack(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *prefixes)

    def due(self, now: float) -> bytes:
        """What is to be sent at a time: a question, or nothing."""
        if now - self.asked_at < PING_S:
            return b""
        self.asked_at = now
        return _PING

    def take(self, data: bytes) -> None:
        """Parse what came."""
        if not data:
            raise OSError("connection closed by the server")
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if isinstance(reply, hiredis.ReplyError):
                raise _RefusedError(str(reply))
            if isinstance(reply, hiredis.PushNotification):
                if reply[0] == b"invalidate":
                    self._cache.drop(reply[1], time.monotonic())
            else:
                self._cache.hear(self.asked_at, time.monotonic() if reply == b"OK" else None)


class AsyncTracker:
    """Follows changes in a task of its own.

    Attributes
    ----------
    refused
        Why the server does not track; empty if it does.
    """

    def __init__(self, cache: SharedCache, url: str) -> None:
        self.refused = ""
        self._cache = cache
        self._url = url
        self._task: asyncio.Task[None] | None = None

    def poll(self) -> None:
        """Begin to follow, if that has not happened yet."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except _TROUBLE:
                pass
            except _RefusedError as error:
                self.refused = str(error)
                return
            finally:
                self._cache.unfollow()
            await asyncio.sleep(AGAIN_S)

    async def _follow(self) -> None:
        options: dict[str, Any] = dict(parse_async_url(self._url))
        kind: type[AbstractConnection] = options.pop("connection_class", AsyncConnection)
        connection = kind(**options | {"protocol": 3})
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py annotates it only in part
            reader, writer = connection._reader, connection._writer
            if reader is None or writer is None:
                raise OSError("connection closed")
            pushes = _Pushes(self._cache)
            writer.write(pushes.hello())
            while True:
                data = b""
                with suppress(TimeoutError):
                    async with asyncio.timeout(PING_S / 2):
                        data = await reader.read(65_536) or b"*"  # no end of the stream, which is no timeout
                if data == b"*":
                    return
                if data:
                    pushes.take(data)
                writer.write(pushes.due(time.monotonic()))
        finally:
            await connection.disconnect(nowait=True)


class SyncTracker:
    """Follows changes without a thread: looks at what has come whenever the cache is about to be used.

    Attributes
    ----------
    refused
        Why the server does not track; empty if it does.
    """

    def __init__(self, cache: SharedCache, url: str, timeout: float) -> None:
        self.refused = ""
        self._cache = cache
        self._url = url
        self._timeout = timeout
        self._connection: redis.Connection | None = None
        self._pushes = _Pushes(cache)
        self._not_before = 0.0
        self._lock = threading.Lock()
        self._process = os.getpid()

    def poll(self) -> None:
        """Take what has come; never waits but for a connection, at most every `AGAIN_S`."""
        now = time.monotonic()
        if self._process != os.getpid():  # a fork: what comes on the connection is its parent's
            self._process, self._lock, self._connection = os.getpid(), threading.Lock(), None
            self._cache.unfollow()
        if self.refused or now < self._not_before or not self._lock.acquire(blocking=False):
            return  # another thread is at it
        try:
            self._drain(now)
        except _TROUBLE:
            self._end()
            self._not_before = now + AGAIN_S
        except _RefusedError as error:
            self.refused = str(error)
            self._end()
        finally:
            self._lock.release()

    def close(self) -> None:
        """End."""
        with self._lock:
            self._end()

    def _drain(self, now: float) -> None:
        if self._connection is None:
            self._connection = self._connected()
        sock: socket.socket | None = self._connection._sock
        if sock is None:
            raise OSError("connection closed")
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            while True:
                self._pushes.take(sock.recv(65_536))
        question = self._pushes.due(now)
        if question:
            sock.sendall(question)

    def _connected(self) -> redis.Connection:
        options: dict[str, Any] = dict(parse_url(self._url))  # type: ignore[no-untyped-call]  # redis-py's own gap
        kind: type[redis.Connection] = options.pop("connection_class", redis.Connection)
        waits = {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
        connection = kind(**options | waits | {"protocol": 3})
        connection.connect()  # type: ignore[no-untyped-call]  # redis-py annotates it only in part
        self._pushes = _Pushes(self._cache)
        sock: socket.socket | None = connection._sock
        if sock is None:
            raise OSError("connection closed")
        sock.sendall(self._pushes.hello())
        sock.settimeout(0)
        return connection

    def _end(self) -> None:
        self._cache.unfollow()
        if self._connection is not None:
            self._connection.disconnect()  # type: ignore[no-untyped-call]  # redis-py annotates it only in part
            self._connection = None

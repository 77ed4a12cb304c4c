"""One connection to one Redis server: opened by redis-py, spoken on by us, so that replies are parsed in bulk."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, AuthorizationError, RedisError, ResponseError

from stream.errors import ConfigurationError
from stream.resp import Reply

# Two chunks are on their way at most, so neither side can fill both its buffers and wait for the other for ever.
_CHUNK_BYTES: Final = 256 * 1024


class LinkLostError(Exception):
    """The connection broke or stayed silent; nothing is known about what was still unanswered."""


class Link:
    """One connection: opened by redis-py (address, TLS, login, database), spoken on by us.

    redis-py's parser reads nothing after the handshake, so our reader sees every byte; RESP2 sends nothing unasked.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self._parser = hiredis.Reader()
        self._turn = asyncio.Lock()
        self._closed = False

    async def exchange(self, frames: Sequence[bytes], each: int = 1) -> list[Reply]:
        """Send all frames and return ``each`` replies per frame.

        Raises ``LinkLostError`` on a broken or silent connection, ``ConfigurationError`` on a refused login. After
        any other way out (cancellation) the connection is dropped too: its replies would belong to nobody.
        """
        async with self._turn:
            try:
                await self._open()
                replies = await self._converse(frames, each)
            except BaseException as error:
                await self._connection.disconnect(nowait=True)
                if (fault := _certificate_fault(error)) is not None:
                    raise fault from error
                if isinstance(error, OSError | hiredis.ProtocolError):
                    raise LinkLostError(str(error) or "no answer in time") from error
                raise
        return replies

    async def _converse(self, frames: Sequence[bytes], each: int) -> list[Reply]:
        replies: list[Reply] = []
        step = max(1, _CHUNK_BYTES * len(frames) // (sum(map(len, frames)) or 1))
        for start in range(0, len(frames), step):
            await self._write(b"".join(frames[start : start + step]))
            await self._read(replies, start * each)  # all chunks but the one just written
        await self._read(replies, len(frames) * each)
        if len(replies) > len(frames) * each:
            raise OSError("more replies than commands")
        return replies

    async def _open(self) -> None:
        if self._closed:
            raise OSError("the store is closed")
        if self._connection.is_connected:
            return
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py annotates it only in part
        except (RedisError, OSError) as error:
            # over a unix socket redis-py logs in while connecting and wraps what went wrong
            cause = error.__cause__ if isinstance(error.__cause__, RedisError) else error
            if isinstance(cause, AuthenticationError | AuthorizationError | ResponseError):
                raise ConfigurationError(f"Redis refused the login or database: {cause}") from error
            if (fault := _certificate_fault(error.__context__)) is not None:
                raise fault from error
            raise OSError(str(error)) from error
        self._parser = hiredis.Reader()

    async def _write(self, data: bytes) -> None:
        writer = self._connection._writer
        if writer is None:
            raise OSError("connection closed")
        async with asyncio.timeout(self._connection.socket_timeout):
            writer.write(data)
            await writer.drain()

    async def _read(self, replies: list[Reply], until: int) -> None:
        gets = self._parser.gets
        while len(replies) < until:
            reader = self._connection._reader
            if reader is None:
                raise OSError("connection closed")
            async with asyncio.timeout(self._connection.socket_timeout):
                data = await reader.read(65_536)
            if not data:
                raise OSError("connection closed by the server")
            self._parser.feed(data)
            reply = gets()
            while reply is not False:  # hiredis' word for "not complete yet"
                replies.append(reply)
                reply = gets()

    async def drop(self) -> None:
        """Dial anew at the next exchange."""
        async with self._turn:
            await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Disconnect for good."""
        self._closed = True
        await self._connection.disconnect()


def _certificate_fault(error: BaseException | None) -> ConfigurationError | None:
    """What is to be set, if a certificate is what was wrong."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"Redis shows a certificate that is not trusted ({error.verify_message}): see RIVULET_REDIS_CA and"
            " RIVULET_REDIS_CHECK_HOSTNAME"
        )
    if isinstance(error, ssl.SSLError) and "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return ConfigurationError(
            "Redis wants a client certificate: see RIVULET_REDIS_CERTIFICATE and RIVULET_REDIS_KEY"
        )
    return None

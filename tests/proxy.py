"""A TCP proxy in the test's own event loop: it can hold back what a client sends, and slow it down."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Proxy:
    """Passes connections to a local port on from ``port``.

    Attributes
    ----------
    held
        Everything that was held back since :meth:`hold` and not released yet.
    bytes_per_s
        Most bytes that each connection may send, 0 for no limit.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._pipes: set[asyncio.Task[None]] = set()
        self.held = bytearray()
        self.bytes_per_s = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for pipe in self._pipes:
            pipe.cancel()
        await asyncio.gather(*self._pipes, return_exceptions=True)

    def hold(self) -> None:
        """Take what clients send, but keep it."""
        self._open.clear()

    def release(self) -> None:
        """Pass on what was held, in order, and everything that follows."""
        self.held.clear()
        self._open.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for pipe in (self._forward(reader, there_writer), self._back(there_reader, writer)):
            task = asyncio.create_task(pipe)
            self._pipes.add(task)
            task.add_done_callback(self._pipes.discard)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept, releasing = bytearray(), None

        async def release() -> None:
            await self._open.wait()
            writer.write(bytes(kept))
            kept.clear()

        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if kept or not self._open.is_set():  # it reads on: what matters may come behind something else
                    self.held += data
                    kept += data
                    releasing = asyncio.create_task(release()) if releasing is None or releasing.done() else releasing
                    continue
                if self.bytes_per_s:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data)
                await writer.drain()
        if releasing is not None:
            await releasing
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

"""A gateway in the test's own event loop, and what a client sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import aiohttp
import msgspec

from stream.settings import Settings
from stream.web.gateway import Gateway
from tests.brokers import free_ports

PRIVATE = ("/readyz", "/metrics")


class Reply(NamedTuple):
    """An answer: status, headers, and what its JSON says."""

    status: int
    headers: dict[str, str]
    said: dict[str, Any]


class Client:
    """Posts to a door and reads its pages."""

    def __init__(self, session: aiohttp.ClientSession, base: str, private: str = "") -> None:
        self._session = session
        self.base = base
        self._private = private or base

    def _address(self, path: str) -> str:
        return (self._private if path in PRIVATE else self.base) + path

    async def post(self, body: Any, query: str = "", **headers: str) -> Reply:
        """Post bytes as they are, or anything else as JSON; `headers` have underscores for dashes."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("POST", f"/v1/events{query}", data=data, headers=named)

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        """Any request whose answer is JSON or empty."""
        async with self._session.request(method, self._address(path), **options) as answer:
            body = await answer.read()
            return Reply(answer.status, dict(answer.headers), msgspec.json.decode(body) if body else {})

    async def text(self, path: str) -> str:
        """A page's text."""
        async with self._session.get(self._address(path)) as answer:
            assert answer.status == 200
            return await answer.text()


@asynccontextmanager
async def client_of(port: int, private: int = 0) -> AsyncIterator[Client]:
    """A client of a port of this machine, and of the private one beside it."""
    async with aiohttp.ClientSession(auto_decompress=True) as session:
        yield Client(session, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{private}" if private else "")


@asynccontextmanager
async def gateway(kafka: str, **settings: Any) -> AsyncIterator[tuple[Gateway, Client]]:
    """A gateway on a free port, until the end."""
    port, private = free_ports(2)
    made = Gateway(Settings(kafka=kafka, **({"gateway_port": port, "gateway_private_port": private} | settings)))
    serving = asyncio.create_task(made.serve())
    try:
        async with client_of(port, private) as client:
            while not await _is_open(client):
                if serving.done():
                    serving.result()
                await asyncio.sleep(0.01)
            yield made, client
    finally:
        serving.cancel()
        with suppress(asyncio.CancelledError):
            await serving


async def _is_open(client: Client) -> bool:
    try:
        return (await client.ask("GET", "/healthz")).status == 200
    except aiohttp.ClientConnectionError:
        return False

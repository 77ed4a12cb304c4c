"""Health pages for supervisors and metrics for Prometheus, and the ports that serve these and the HTTP door."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.registry import Collector

STOP_S: Final = 1.0
IDLE_S: Final = 75.0  # longer than balancers keep theirs; aiohttp would wait for an hour

Check = Callable[[], dict[str, str]]


class Discreet(logging.Filter):
    """Keeps clients out of the log: neither what they sent that is no HTTP, which is answered 400, nor who they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        record.msg, record.args = "a request could not be answered", ()
        return not (record.exc_info and isinstance(record.exc_info[1], BadHttpMessage | ConnectionError))


_log: Final = logging.getLogger(__name__)
_log.addFilter(Discreet())


class Pages:
    """``/healthz``, ``/readyz`` and ``/metrics``, without a login.

    Parameters
    ----------
    alive, ready
        What is wrong, by the name of the check; empty if nothing is.
    collectors
        What ``/metrics`` shows beside the process' own numbers.
    """

    def __init__(self, alive: Check, ready: Check, collectors: Iterable[Collector]) -> None:
        self._alive, self._ready = alive, ready
        self._registry = CollectorRegistry()
        GCCollector(self._registry)
        ProcessCollector(registry=self._registry)
        for collector in collectors:
            self._registry.register(collector)

    def health(self) -> list[web.RouteDef]:
        """The page that tells nothing of what is inside: for balancers, which reach what everybody reaches."""
        return [web.get("/healthz", self._healthz)]

    def routes(self) -> list[web.RouteDef]:
        """All three."""
        return [*self.health(), web.get("/readyz", self._readyz), web.get("/metrics", self._metrics)]

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._alive() | self._ready())

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


class Port:
    """A port that serves some routes.

    Parameters
    ----------
    host, port
        Where; port 0: nowhere.
    routes
        What.
    most_bytes
        Longest body.
    stop_s
        How long open requests may take while the port closes, seconds.
    idle_s
        How long a connection may stay open without a further request, seconds.
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Iterable[web.RouteDef],
        most_bytes: int,
        stop_s: float = STOP_S,
        idle_s: float = IDLE_S,
    ) -> None:
        self._host, self._port = host, port
        app = web.Application(client_max_size=most_bytes)
        app.add_routes(list(routes))
        # the door unpacks for itself, within bounds
        options: dict[str, Any] = {"shutdown_timeout": stop_s, "keepalive_timeout": idle_s, "auto_decompress": False}
        self._runner = web.AppRunner(app, access_log=None, logger=_log, **options)

    def __str__(self) -> str:
        return f"{self._host}:{self._port}" if self._port else "none"

    async def start(self) -> None:
        """Open the port, if there is to be one."""
        if self._port:
            await self._runner.setup()
            await web.TCPSite(self._runner, self._host, self._port).start()

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()


def _answer(failing: dict[str, str]) -> web.Response:
    body = msgspec.json.encode({"ok": not failing, "failing": failing})
    return web.Response(body=body, status=503 if failing else 200, content_type="application/json")

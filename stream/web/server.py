"""The worker's web port, in its event loop: a loop that stands still answers nobody, as it should be.

Not Faust's web server: that one also shows routes and tables to whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, ProcessCollector, generate_latest

from stream.web.health import alive, ready
from stream.web.metrics import WorkerCollector

if TYPE_CHECKING:
    from stream.app import Worker

STOP_S = 1.0


class WebServer:
    """Serves ``/healthz``, ``/readyz`` and ``/metrics``; no login, so it binds to the loopback unless told otherwise.

    Parameters
    ----------
    worker
        Whose health and numbers are shown.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._registry = CollectorRegistry()
        GCCollector(self._registry)
        ProcessCollector(registry=self._registry)
        self._registry.register(WorkerCollector(worker))
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_S)

    async def start(self) -> None:
        """Open the port, if there is to be one."""
        settings = self._worker.settings
        if settings.web_port:
            await self._runner.setup()
            await web.TCPSite(self._runner, settings.web_host, settings.web_port).start()

    async def stop(self) -> None:
        """Close the port."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(alive(self._worker))

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(alive(self._worker) | ready(self._worker))

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _answer(failing: dict[str, str]) -> web.Response:
    body = msgspec.json.encode({"ok": not failing, "failing": failing})
    return web.Response(body=body, status=503 if failing else 200, content_type="application/json")

"""The worker's web port, in its event loop: a loop that stands still answers nobody, as it should be.

Not Faust's web server: that one also shows routes and tables to whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.web.health import alive, ready
from stream.web.metrics import DOOR_FAMILIES, FAMILIES, SeenCollector
from stream.web.pages import Pages, Port

if TYPE_CHECKING:
    from stream.app import Worker


def worker_port(worker: Worker) -> Port:
    """Health and metrics, which need no login, and the HTTP door, which does unless the port is on the loopback."""
    collectors = SeenCollector(FAMILIES, worker), SeenCollector(DOOR_FAMILIES, worker.door)
    pages = Pages(lambda: alive(worker), lambda: ready(worker), collectors)
    settings, door = worker.settings, worker.door
    return Port(settings.web_host, settings.web_port, [*pages.routes(), *door.routes()], door.most_bytes)

"""The worker's web port, in its event loop: a loop that stands still answers nobody, as it should be.

Not Faust's web server: that one also shows routes and tables to whoever asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stream.web.health import alive, ready
from stream.web.metrics import DOOR_FAMILIES, FAMILIES, SeenCollector
from stream.web.pages import Pages

if TYPE_CHECKING:
    from stream.app import Worker


def worker_pages(worker: Worker) -> Pages:
    """Health and metrics, which need no login, and the HTTP door, which does unless the port is on the loopback."""
    collectors = SeenCollector(FAMILIES, worker), SeenCollector(DOOR_FAMILIES, worker.door)
    return Pages(
        worker.settings.web_host,
        worker.settings.web_port,
        lambda: alive(worker),
        lambda: ready(worker),
        collectors,
        worker.door,
    )

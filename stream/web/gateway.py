"""``rivulet gateway``: the HTTP door as a process of its own, without Faust, Redis or state."""

from __future__ import annotations

import asyncio
import os
import signal

import structlog

from models.hashing import partition_of
from stream.errors import ConfigurationError, UnavailableError
from stream.inlet import Inlet
from stream.kafka import client_options
from stream.settings import Settings
from stream.topics import check, layout
from stream.watchdog import Watchdog
from stream.web.door import Door
from stream.web.metrics import DOOR_FAMILIES, SeenCollector
from stream.web.pages import Pages, Port

STOP_S = 5.0

log = structlog.get_logger(__name__)


class Gateway:
    """One gateway; as many as are wanted may run beside each other, on ports or machines of their own.

    Parameters
    ----------
    settings
        See `Settings`.

    Raises
    ------
    ConfigurationError
        If the port is no loopback and there are no write keys, or they cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.inlet = Inlet(settings, "kafka")
        self.door = Door(settings, self.inlet, settings.gateway_host)
        if self.door.access.closed:
            raise ConfigurationError(self.door.access.closed)
        # what else could hang is the event loop: then nobody answers, and the watchdog ends the process
        pages = Pages(dict, self._ready, (SeenCollector(DOOR_FAMILIES, self.door),))
        most = self.door.most_bytes
        public, private = [*pages.health(), *self.door.routes()], pages.routes()
        self._ports = {
            "PORT": Port(settings.gateway_host, settings.gateway_port, public, most, STOP_S),
            "PRIVATE_PORT": Port(settings.gateway_private_host, settings.gateway_private_port, private, most),
        }

    async def serve(self) -> None:
        """Take events until SIGTERM or SIGINT; what was let in by then is answered.

        Raises
        ------
        UnavailableError
            If no broker answers at the start.
        ConfigurationError
            If topic ``events`` is missing or has other partitions, or a port is taken.
        """
        settings = self.settings
        topics = layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
        await check(settings.kafka, topics[:1], **client_options(settings))
        partition_of(b"", settings.events_partitions)  # its kernel is compiled now and not within a request
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await self.inlet.start()
        try:
            if self.inlet.trouble:
                raise UnavailableError(f"Kafka does not answer: {self.inlet.trouble}")
            await self._open()
            Watchdog(loop, lambda _: None, settings.stall_s, os._exit).start()
            log.info("gateway_serves", **{name.lower(): str(port) for name, port in self._ports.items()})
            await stop.wait()
        finally:
            for port in self._ports.values():
                await port.stop()
            await self.inlet.stop()

    async def _open(self) -> None:
        for name, port in self._ports.items():
            try:
                await port.start()
            except OSError as error:
                raise ConfigurationError(f"RIVULET_GATEWAY_{name}={port}: {error.strerror}") from error

    def _ready(self) -> dict[str, str]:
        checks = {"kafka": self.inlet.trouble, "queue": self.inlet.room.trouble}
        return {name: trouble for name, trouble in checks.items() if trouble}

"""``rivulet gateway``: take events over HTTP, until SIGTERM."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from stream.cli.common import load_settings


def gateway(
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    host: Annotated[str | None, typer.Option(help="Address; other than the loopback needs write keys.")] = None,
    port: Annotated[int | None, typer.Option(help="Port.")] = None,
    private_port: Annotated[int | None, typer.Option(help="Port of /readyz and /metrics; 0 = none.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Take events over HTTP and publish them: POST /v1/events, and /v1/rivulet.js for browsers.

    A worker's web port does the same; apart, it goes on while workers restart, and needs neither Redis nor state. Every
    other setting comes from the environment, see `rivulet settings`. Example: rivulet gateway --kafka broker:9092
    """
    settings = load_settings(
        kafka=kafka, gateway_host=host, gateway_port=port, gateway_private_port=private_port, log_level=log_level
    )
    from stream import logs
    from stream.web.gateway import Gateway

    logs.configure(settings.log_level, settings.log_format)
    asyncio.run(Gateway(settings).serve())

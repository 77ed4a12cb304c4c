"""``rivulet worker``: consume, learn, serve, until SIGTERM."""

from __future__ import annotations

import asyncio
from typing import Annotated

import structlog
import typer

from stream.cli.common import load_settings


def worker(
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
    group: Annotated[str | None, typer.Option(help="Consumer group.")] = None,
    web_port: Annotated[int | None, typer.Option(help="Web port; 0 = none.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Consume events, learn from each and keep every touched user's list fresh in Redis.

    Start it as often as there are partitions to share; stop it with SIGTERM. Every other setting comes from the
    environment or a file, see `rivulet settings`.

    Example: rivulet worker --kafka broker:9092 --web-port 6067
    """
    settings = load_settings(kafka=kafka, redis=redis, group=group, web_port=web_port, log_level=log_level)
    from stream import logs
    from stream.app import run
    from stream.cli.compile_ import compile_with_progress
    from stream.compilation import are_kernels_compiled
    from stream.preflight import check

    asyncio.run(check(settings))
    logs.configure(settings.log_level, settings.log_format)
    if not are_kernels_compiled():
        structlog.get_logger(__name__).info("compiling_kernels", takes="about a minute, once after each update")
    compile_with_progress()  # before joining: a member that compiles for a minute is a member that does nothing
    run(settings)

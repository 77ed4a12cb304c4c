"""``rivulet export USER``: all that is kept of a person, as JSON."""

from __future__ import annotations

import asyncio
import uuid
from typing import Annotated

import msgspec
import typer

from stream.answers import Exported, Forgotten
from stream.cli.common import load_settings
from stream.cli.showing import waiting
from stream.events import Export
from stream.privacy import ask, kept_in_redis
from stream.settings import Settings


class Kept(msgspec.Struct, frozen=True):
    """All that is kept of a user: by the worker, and in Redis as it stands there."""

    user: str
    learned: Forgotten | Exported
    redis: dict[str, msgspec.Raw | dict[str, str]]


def export(
    user: Annotated[str, typer.Argument(help="Customer id, or cookie id.")],
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a worker.")] = 30.0,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
) -> None:
    """Print all that is kept of a user: history, profile, segment, consent, and the keys in Redis.

    Needs running workers. Events in topics and recordings are not part of it.

    Example: rivulet export u1 > u1.json
    """
    with waiting("waiting for a worker"):
        kept = asyncio.run(_export(load_settings(kafka=kafka, redis=redis), user, timeout))
    typer.echo(msgspec.json.format(msgspec.json.encode(kept)))


async def _export(settings: Settings, user: str, timeout_s: float) -> Kept:
    learned = await ask(settings, Export(user=user, request=uuid.uuid4().hex), timeout_s)
    placements = learned.placements if isinstance(learned, Exported) else ()
    return Kept(user, learned, await kept_in_redis(settings, user, placements))

"""``rivulet offers FILE``: publish offers from a TOML file."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from models.offers import Offer, OfferError, encode_offer, load_offers
from stream.cli.common import load_settings
from stream.errors import BadInputError
from stream.kafka import careful_producer
from stream.settings import Settings


def offers(
    file: Annotated[Path | None, typer.Argument(help="TOML file of offers, see the README.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Kafka bootstrap servers.")] = None,
    withdraw: Annotated[list[str] | None, typer.Option(help="Id of an offer to take back (repeatable).")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only check the file.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check offers and publish each under its id to topic offers; workers take them over within a second.

    Examples: `rivulet offers offers.toml`, `rivulet offers --withdraw summer-sale`
    """
    gone = withdraw or []
    if file is None and not gone:
        raise BadInputError("name a file of offers, or offers to take back with --withdraw")
    found = [] if file is None else read_offers(file)
    if both := sorted({offer.id for offer in found} & set(gone)):
        raise BadInputError(f"{file}: {both[0]} is to be published and withdrawn; take it out of one")
    now_s = time.time()
    for offer in found:
        if offer.until_s <= now_s:  # a replay of older events may want it
            typer.echo(f"offer {offer.id!r} ended at {offer.valid_until}: no visitor of today is shown it", err=True)
    if not check:
        asyncio.run(publish_offers(load_settings(kafka=kafka), found, gone))
    if json:
        published = 0 if check else len(found)
        typer.echo(msgspec.json.encode({"valid": len(found), "published": published, "withdrawn": gone}))
    elif check:
        typer.echo(f"{len(found)} offers are valid")
    else:
        typer.echo(f"{len(found)} offers published, {len(gone)} withdrawn")


def read_offers(file: Path) -> list[Offer]:
    """Offers of a TOML file.

    Raises
    ------
    BadInputError
        If the file cannot be read, or an offer is not valid; names file, offer and field.
    """
    try:
        return load_offers(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise BadInputError(f"{file}: {error.strerror}") from error
    except (OfferError, UnicodeDecodeError) as error:
        raise BadInputError(str(error)) from error


async def publish_offers(settings: Settings, found: list[Offer], withdrawn: list[str]) -> None:
    """Write offers, and tombstones for withdrawn ones, to topic ``offers``."""
    async with careful_producer(settings, "offers") as producer:
        for offer in found:
            await producer.send_and_wait(settings.topic("offers"), encode_offer(offer), key=offer.id.encode())
        for name in withdrawn:
            await producer.send_and_wait(settings.topic("offers"), None, key=name.encode())

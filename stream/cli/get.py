"""``rivulet get USER``: what a frontend would read for a user."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream.cli.common import load_settings
from stream.client import Client
from stream.keys import Offer, Recommendations
from stream.redis_address import redis_address


class Page(msgspec.Struct, frozen=True):
    """Everything kept for one user; what ``--json`` prints."""

    user: str
    recommendations: Recommendations
    profile: dict[str, str]
    offers: list[Offer]


async def _read(user: str, redis: str, prefix: str, placement: str | None, k: int) -> Page:
    async with Client(redis, prefix=prefix) as client:
        return Page(
            user=user,
            recommendations=await client.recommendations(user, placement, k),
            profile=await client.profile(user),
            offers=await client.offers(user),
        )


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if ms else "-"


def _show(page: Page, console: Console) -> None:
    recs = page.recommendations
    segment = page.profile.get("segment", "-")
    console.print(f"[bold]{escape(page.user)}[/]  segment {escape(segment)}  newest event {_when(recs.ts)}")
    if recs.items:
        table = Table("#", "item", "score", "because of", "model", title=f"from {escape(recs.source)}")
        for row, (item, score, (origin, model)) in enumerate(zip(recs.items, recs.scores, recs.why, strict=True), 1):
            table.add_row(str(row), escape(item), f"{score:.4g}", escape(origin or "-"), escape(model))
        console.print(table)
    else:
        console.print("no recommendations, not even trending items: has the worker written anything yet?")
    if page.offers:
        table = Table("offer", "score", "because of", "until", title="offers")
        for offer in page.offers:
            table.add_row(escape(offer.id), f"{offer.score:.4g}", escape(offer.why or "-"), _when(offer.until))
        console.print(table)


def get(
    user: Annotated[str, typer.Argument(help="user_id, or user_pseudo_id of a visitor without one")],
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
    prefix: Annotated[str | None, typer.Option(help="prefix of all keys")] = None,
    placement: Annotated[str | None, typer.Option(help="placement with its own list")] = None,
    k: Annotated[int, typer.Option(min=1, help="items at most")] = 20,
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show a user's recommendations with scores and reasons, segment and offers.

    Example: rivulet get u1 --placement cart --json
    """
    settings = load_settings(redis=redis, prefix=prefix)
    page = asyncio.run(_read(user, redis_address(settings), settings.prefix, placement, k))
    console = Console()
    if json:
        console.out(msgspec.json.encode(page).decode(), highlight=False)
    else:
        _show(page, console)

"""``rivulet get USER``: what a frontend would read for a user."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Final, cast

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from stream.cli.common import load_settings
from stream.client import Client
from stream.errors import UnavailableError
from stream.keys import Availability, Offer, Recommendations
from stream.reading import Wish
from stream.redis_address import redis_address

# from the lowest bits of a profile's `consent`, two each: 1 granted, 2 denied
GRANTS: Final = ("analytics_storage", "personalization_storage", "ad_personalization")


class Page(msgspec.Struct, frozen=True):
    """Everything kept for one user; what ``--json`` prints. ``because`` has a sentence per item."""

    user: str
    recommendations: Recommendations
    because: list[str]
    profile: dict[str, str]
    offers: list[Offer]


@dataclass(frozen=True, slots=True)
class _View:
    """What of a page is shown, and where."""

    console: Console
    json: bool
    profile: bool
    offers: bool
    why: bool
    wish: Wish


async def _read(client: Client, user: str, wish: Wish) -> Page:
    told = (wish.category, wish.min_price, wish.max_price, wish.availability)
    recs = await client.recommendations(user, wish.placement, wish.k, wish.exclude, *told)
    return Page(
        user=user,
        recommendations=recs,
        because=await client.explanations(recs),
        profile=await client.profile(user),
        offers=await client.offers(user),
    )


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if ms else "-"


def _list(page: Page, *, why: bool) -> Table:
    recs = page.recommendations
    titled = any(known and known.title for known in recs.details)
    names = ("title", "price") if titled else ()
    reasons = ("because",) if why else ("because of", "model")
    table = Table("#", Column("item", overflow="fold"), *names, "score", *reasons, title=f"from {escape(recs.source)}")
    rows = zip(recs.items, recs.details, recs.scores, recs.why, page.because, strict=True)
    for row, (item, known, score, (origin, model), sentence) in enumerate(rows, 1):
        price = "-" if known is None or known.price is None else f"{known.price:g} {known.currency or ''}".strip()
        named = (escape((known and known.title) or "-"), escape(price)) if titled else ()
        reason = (escape(sentence),) if why else (escape(origin or "-"), escape(model))
        table.add_row(str(row), escape(item), *named, f"{score:.4g}", *reason)
    return table


def _in_words(name: str, value: str) -> str:
    """A profile's field, and what it means where that is not plain."""
    if not value.isdigit() or name not in ("last_ts", "consent"):
        return value
    said = [(grant, int(value) >> 2 * place & 3) for place, grant in enumerate(GRANTS)]
    words = [f"{grant} {'granted' if bits == 1 else 'denied'}" for grant, bits in said if bits]
    return f"{value} ({_when(int(value)) if name == 'last_ts' else ', '.join(words) or 'nothing said'})"


def _show(page: Page, view: _View) -> None:
    console, recs = view.console, page.recommendations
    if view.json:
        console.out(msgspec.json.encode(page).decode(), highlight=False)
        return
    segment = page.profile.get("segment", "-")
    console.print(f"[bold]{escape(page.user)}[/]  segment {escape(segment)}  newest event {_when(recs.ts)}")
    if recs.items:
        console.print(_list(page, why=view.why))
    elif view.wish.category is not None:
        console.print(f"no recommendations: does the catalogue have category {escape(view.wish.category)}?")
    elif view.wish.choosy:
        console.print("no recommendations: does the catalogue tell prices and availability?")
    else:
        console.print("no recommendations, not even trending items: has the worker written anything yet?")
    if view.profile:
        table = Table("field", "value", title="profile")
        for name, value in page.profile.items():
            table.add_row(escape(name), escape(_in_words(name, value)))
        console.print(table)
    if view.offers:
        table = Table(Column("offer", overflow="fold"), "score", "because of", "until", title="offers")
        for offer in page.offers:
            table.add_row(escape(offer.id), f"{offer.score:.4g}", escape(offer.why or "-"), _when(offer.until))
        console.print(table)


async def _watch(client: Client, view: _View, every: float, user: str) -> None:
    """Show the page now and whenever it has changed; a Redis that is away is waited for."""
    shown: Page | None = None
    away = False
    while True:
        try:
            page = await _read(client, user, view.wish)
        except UnavailableError as error:
            if not away:
                Console(stderr=True).print(f"rivulet: {escape(str(error))}; still watching")
            away = True
        else:
            away = False
            if page != shown:
                _show(page, view)
            shown = page
        await asyncio.sleep(every)


async def _run(address: tuple[str, str], view: _View, every: float | None, user: str) -> None:
    url, prefix = address
    async with Client(url, prefix=prefix, strict=True, cache_s=0) as client:
        if every is None:
            _show(await _read(client, user, view.wish), view)
            return
        task = asyncio.ensure_future(_watch(client, view, every, user))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with suppress(asyncio.CancelledError):
            await task


def get(
    user: Annotated[str, typer.Argument(help="user_id, or user_pseudo_id of a visitor without one")],
    redis: Annotated[str | None, typer.Option(help="Redis URL.")] = None,
    prefix: Annotated[str | None, typer.Option(help="prefix of all keys")] = None,
    placement: Annotated[str | None, typer.Option(help="placement with its own list")] = None,
    category: Annotated[str | None, typer.Option(help="only items of this category of the catalogue")] = None,
    min_price: Annotated[float | None, typer.Option(help="only items that cost at least so much")] = None,
    max_price: Annotated[float | None, typer.Option(help="only items that cost at most so much")] = None,
    availability: Annotated[list[str] | None, typer.Option(help="only such items, as in_stock; more than once")] = None,
    k: Annotated[int, typer.Option(min=1, help="items at most")] = 20,
    profile: Annotated[bool, typer.Option("--profile", help="show the profile, too")] = False,
    offers: Annotated[bool, typer.Option("--offers", help="show the offers, too")] = False,
    why: Annotated[bool, typer.Option("--why", help="say why in words")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="go on, and show it again when it has changed")] = False,
    every: Annotated[float, typer.Option(min=0.05, help="seconds between two looks of --watch")] = 0.5,
    json: Annotated[bool, typer.Option("--json", help="print all of it as JSON, one line each time")] = False,
) -> None:
    """Show a user's recommendations with scores and reasons.

    Example: rivulet get u1 --why --offers --watch
    """
    settings = load_settings(redis=redis, prefix=prefix)
    told = cast("list[Availability]", availability or [])  # the wish looks whether they are
    view = _View(Console(), json, profile, offers, why, Wish(placement, k, (), category, min_price, max_price, told))
    address = redis_address(settings), settings.prefix
    asyncio.run(_run(address, view, every if watch else None, user))

"""``rivulet catalogue put|fetch|withdraw|list|get``: what the shop sells, in topic ``items``."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TextColumn
from rich.table import Column, Table

from stream.catalogue import CatalogueItem, item_id_fault
from stream.catalogue_topic import read_items, write_items
from stream.cli.common import load_settings
from stream.cli.showing import showing, waiting
from stream.crawl import Crawler, Manners, Refused
from stream.errors import BadInputError
from stream.feeds import read_feed
from stream.pages import IdFrom
from stream.settings import Settings

app = typer.Typer(
    help="Look after the catalogue: topic items.\n\nExample: rivulet catalogue put feed.xml", no_args_is_help=True
)

KafkaOption = Annotated[str | None, typer.Option("--kafka", help="Kafka bootstrap servers.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Write nothing; print what would be, as JSON Lines.")]
AT_ONCE = 50  # pages whose items are written together
SHOWN = 20  # refusals that are printed one by one


@app.command()
def put(
    file: Annotated[
        str, typer.Argument(help=".jsonl, .csv, .tsv or .xml (Google Merchant), also .gz; - is JSON Lines")
    ],
    check: CheckOption = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out what is not valid, and count it.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Withdraw all items that the file does not name.")] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Put the items of a file into the catalogue; readers see it within a second or two.

    All of it is checked first: a bad item stops with its line before anything is written, unless --skip-bad (which
    --whole does not go with: what is damaged would be withdrawn).

    Example: rivulet catalogue put feed.xml --whole
    """
    settings = load_settings(kafka=kafka)
    refused: list[BadInputError] = []
    kept = list(read_feed(file)) if file == "-" else None  # what was piped can be read only once
    with _progress() as progress:
        rows = progress.track(read_feed(file) if kept is None else kept, description="checked")
        names = [item.item_id for item in _good(rows, refused, skip=skip_bad)]
    if refused and whole:
        raise BadInputError(
            f"{file}: --whole would withdraw what could not be read; first of {len(refused)}: {refused[0]}"
        )
    if not names and whole:
        raise BadInputError(f"{file}: no item in it; --whole would withdraw everything")
    items = _good(read_feed(file) if kept is None else kept, [], skip=True)
    if check:
        _print_lines(items)
        written, gone = 0, set[str]()
    else:
        gone = _known(settings).keys() - set(names) if whole else set()
        with _progress() as progress:
            task = progress.add_task("put", total=len(names) + len(gone))
            written = asyncio.run(
                write_items(settings, items, sorted(gone), lambda n: progress.update(task, completed=n))
            )
    reasons = [Refused("", str(error)) for error in refused]
    _report({"items": len(names), "written": written, "withdrawn": len(gone)}, reasons, json=json)


def _good(
    rows: Iterable[CatalogueItem | BadInputError], refused: list[BadInputError], *, skip: bool
) -> Iterator[CatalogueItem]:
    for row in rows:
        if isinstance(row, CatalogueItem):
            yield row
        elif skip:
            refused.append(row)
        else:
            raise row


@app.command()
def fetch(
    urls: Annotated[list[str], typer.Argument(help="Product pages or sitemaps; no other hosts are asked.")],
    rate: Annotated[float, typer.Option(min=0.01, max=100, help="Requests per second.")] = 1.0,
    limit: Annotated[int, typer.Option(min=1, help="Pages at most.")] = 10_000,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for an answer.")] = 20.0,
    id_from: Annotated[
        IdFrom, typer.Option("--id", help="What the item id of events is; url = last part of the path.")
    ] = "auto",
    check: CheckOption = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Collect items from a shop's own pages: JSON-LD (schema.org/Product), OpenGraph, meta tags.

    robots.txt is obeyed. Exit code 4 if no page had an item.

    Example: rivulet catalogue fetch https://shop.example/sitemap.xml --rate 2
    """
    settings = load_settings(kafka=kafka)
    crawler = Crawler(urls, Manners(rate=rate, timeout_s=timeout, pages=limit, id_from=id_from))
    with _progress() as progress:
        task = progress.add_task("fetch", total=None)
        ids, refused = asyncio.run(
            _fetch(crawler, None if check else settings, lambda count: progress.update(task, completed=count))
        )
    _report({"items": len(ids), "written": 0 if check else len(ids)}, refused, json=json)
    if not ids:
        raise BadInputError("no page had an item" + (f": {refused[0].url}: {refused[0].reason}" if refused else ""))


async def _fetch(
    crawler: Crawler, settings: Settings | None, done: Callable[[int], None]
) -> tuple[set[str], list[Refused]]:
    """Write (or, without settings, print) items as they come: a crawl may last hours and be ended before its end."""
    ids: set[str] = set()
    refused: list[Refused] = []
    waiting: list[CatalogueItem] = []
    async with crawler:
        async for found in crawler.items():
            if isinstance(found, Refused):
                refused.append(found)
            elif found.item_id in ids:
                refused.append(Refused(found.url or "", f"item {found.item_id} was found before"))
            else:
                ids.add(found.item_id)
                waiting.append(found)
            done(len(ids) + len(refused))
            if len(waiting) >= AT_ONCE:
                await _keep(settings, waiting)
    await _keep(settings, waiting)
    return ids, refused


async def _keep(settings: Settings | None, waiting: list[CatalogueItem]) -> None:
    if settings is None:
        _print_lines(waiting)
    else:
        await write_items(settings, waiting)
    waiting.clear()


@app.command()
def withdraw(
    ids: Annotated[list[str], typer.Argument(help="Ids of items to take out.")],
    as_is: Annotated[
        bool, typer.Option("--as-is", help="Also ids that are refused today: what was put long ago.")
    ] = False,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """Take items out of the catalogue and of every list.

    Example: rivulet catalogue withdraw tent-1 tent-2
    """
    for item in ids:
        if not as_is and (fault := item_id_fault(item)):
            raise BadInputError(f"{item!r}: an item's id {fault}")
    with waiting("withdrawing"):
        written = asyncio.run(write_items(load_settings(kafka=kafka), [], dict.fromkeys(ids)))
    typer.echo(msgspec.json.encode({"withdrawn": written}) if json else f"{written} items withdrawn")


@app.command("list")
def list_(
    category: Annotated[str | None, typer.Option(help="Only items of this category.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Items at most.")] = None,
    kafka: KafkaOption = None,
    json: JsonOption = False,
) -> None:
    """List the catalogue by id; with --json one line per item, as `put` takes them.

    Example: rivulet catalogue list --json > catalogue.jsonl
    """
    known = _known(load_settings(kafka=kafka))
    chosen = [item for _, item in sorted(known.items()) if category is None or item.category == category][:limit]
    if json:
        _print_lines(chosen)
        return
    table = Table(
        Column("item", overflow="fold"),
        "title",
        "category",
        "price",
        "shown",
        title=f"{len(chosen)} of {len(known)} items",
    )
    for item in chosen:
        price = "-" if item.price is None else f"{item.price:g} {item.currency or ''}".strip()
        shown = "no" if item.hidden else "yes"
        table.add_row(*map(escape, (item.item_id, item.title or "-", item.category or "-", price, shown)))
    Console().print(table)


@app.command()
def get(
    item: Annotated[str, typer.Argument(help="Id of an item.")],
    kafka: KafkaOption = None,
) -> None:
    """Print what the catalogue says of an item, as JSON; exit code 4 if it does not know it.

    Example: rivulet catalogue get tent
    """
    found = _known(load_settings(kafka=kafka)).get(item)
    if found is None:
        raise BadInputError(f"item {item} is not in the catalogue")
    _print_lines([found])


def _print_lines(items: Iterable[CatalogueItem]) -> None:
    for item in items:
        typer.echo(msgspec.json.encode(item).decode())


def _known(settings: Settings) -> dict[str, CatalogueItem]:
    with _progress() as progress:
        task = progress.add_task("read", total=None)
        return asyncio.run(read_items(settings, lambda count: progress.update(task, completed=count)))


def _progress() -> Progress:
    return showing(TextColumn("{task.description}"), MofNCompleteColumn())


def _report(counts: dict[str, int], refused: list[Refused], *, json: bool) -> None:
    """Say on stderr (or as JSON) what was done and what was refused; stdout belongs to --check."""
    if json:
        rows: list[dict[str, Any]] = [{"url": each.url, "reason": each.reason} for each in refused]
        typer.echo(msgspec.json.encode({**counts, "refused": rows}).decode())
        return
    console = Console(stderr=True)
    for each in refused[:SHOWN]:
        console.print(f"refused {escape(f'{each.url} {each.reason}'.strip())}", highlight=False, soft_wrap=True)
    if len(refused) > SHOWN:
        for reason, count in Counter(each.reason for each in refused[SHOWN:]).most_common(SHOWN):
            console.print(f"refused {count} more: {escape(reason)}", highlight=False, soft_wrap=True)
    console.print(", ".join(f"{count} {name}" for name, count in counts.items()) + f", {len(refused)} refused")

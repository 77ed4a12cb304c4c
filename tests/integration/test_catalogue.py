"""The catalogue from files and pages to what readers see, on real Kafka and Redis."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from models.hashing import partition_of
from stream.cli import build
from stream.client import Client
from stream.errors import BadInputError
from stream.keys import Recommendations
from stream.resp import WriteBatch
from tests.patience import Patience
from tests.records import event
from tests.stream.test_feeds import RSS
from tests.stream.test_pages import OPEN_GRAPH, page
from tests.worker_process import Installation, environment

pytestmark = pytest.mark.asyncio(loop_scope="module")
SEEN_S = 5.0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shop(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """A worker, and a camper whose list has the bag and the stove; nobody does anything any more."""
    folder = tmp_path_factory.mktemp("catalogue")
    async with Installation(kafka, redis_url, folder, f"t{time.time_ns():x}-", ranking="blend") as shop:
        shop.start()
        await shop.publish(
            event(f"seed{number}", item, at=number + place, event_id=f"seed{number}{item}")
            for number in range(20)
            for place, item in enumerate(("tent", "bag", "stove"))
        )
        await shop.publish([event("camper", "tent", at=100)])
        await shop.republish()
        found = await shop.list_of("camper")
        assert found is not None
        assert {"bag", "stove"} <= set(found.items)
        yield shop


async def rivulet(shop: Installation, *arguments: str) -> str:
    """Run the command's own code in a thread, as it starts its own event loop."""
    runner = CliRunner(env=environment(shop.settings))
    result = await asyncio.to_thread(runner.invoke, build(), ["catalogue", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0
    return result.stdout


async def seen(shop: Installation, client: Client, condition: Callable[[Recommendations], bool], what: str) -> float:
    """A reader sees a change in the camper's list, which nobody writes again; after how many seconds."""

    async def visible() -> bool:
        return condition(await client.recommendations("camper"))

    began = time.monotonic()
    await shop.until(visible, what)
    return time.monotonic() - began


async def in_time(attempt: Callable[[], Awaitable[float]], what: str) -> None:
    """A change is seen within the limit that is promised; one that a busy machine held up is made again."""
    patience = Patience()
    while (took := await attempt()) >= SEEN_S:
        assert not patience.ended(), f"{what} only after {took:.1f} s"


def price(item: str, recs: Recommendations) -> float | None:
    known = dict(zip(recs.items, recs.details, strict=True)).get(item)
    return known.price if known else None


CHANGES: list[tuple[str, Callable[[Recommendations], bool], str]] = [
    ("", lambda recs: not {"bag", "stove"} & set(recs.items), "both are withdrawn"),
    ("bag,20,3,\nstove,30,1,", lambda recs: (price("bag", recs), price("stove", recs)) == (20, 30), "prices are shown"),
    ("bag,15,3,", lambda recs: price("bag", recs) == 15, "a new price is shown"),
    ("bag,15,0,", lambda recs: "bag" not in recs.items and "stove" in recs.items, "it is sold out"),
    ("bag,15,,out of stock\nstove,30,0,", lambda recs: not {"bag", "stove"} & set(recs.items), "the other one, too"),
    ("bag,15,,in stock\nstove,30,9,", lambda recs: {"bag", "stove"} <= set(recs.items), "both are back"),
    ("", lambda recs: not {"bag", "stove"} & set(recs.items), "both are withdrawn again"),
]


async def test_each_change_is_seen_within_5_s_in_a_list_that_stays_as_it_is(shop: Installation, tmp_path: Path) -> None:
    feed = tmp_path / "feed.csv"
    client: Client  # with the cache of its defaults, which holds what was before

    async def made(number: int) -> float:
        text, condition, what = CHANGES[number]
        feed.write_text(f"id,price,stock,availability\n{text}\n")
        await (rivulet(shop, "put", str(feed)) if text else rivulet(shop, "withdraw", "bag", "stove"))
        return await seen(shop, client, condition, what)

    async with Client(shop.settings.redis, prefix=shop.settings.prefix, strict=True) as client:
        for number in range(1, len(CHANGES)):

            async def attempt(number: int = number) -> float:
                await made(number - 1)
                return await made(number)

            await in_time(attempt, CHANGES[number][2])
    own = await shop.list_of("camper")
    assert own is not None
    assert {"bag", "stove"} <= set(own.items)  # readers left them out: nobody has written the list again


async def test_what_nobody_has_touched_is_recommended_as_soon_as_it_has_a_record(shop: Installation) -> None:
    await shop.publish([event("hiker", "shelter", at=200)])
    await shop.write("items", json.dumps({"item_id": "shelter", "title": "Storm shelter"}).encode(), b"shelter")
    touches, names = 0, list[str]()

    async def shown() -> dict[str, tuple[str | None, str]]:
        """Items of the hiker's list after another visit, and why they are there."""
        nonlocal touches
        touches += 1
        await shop.publish([event("hiker", "shelter", at=200 + touches)])
        found = await shop.list_of("hiker")
        return {} if found is None else dict(zip(found.items, found.why, strict=True))

    async def recommended() -> bool:
        return (await shown()).get(names[-1]) == ("shelter", "content")

    async def attempt() -> float:
        names.append(f"bivouac{len(names)}")
        began = time.monotonic()
        title = {"item_id": names[-1], "title": "Light storm shelter"}
        await shop.write("items", json.dumps(title).encode(), names[-1].encode())
        await shop.until(recommended, "a new item is recommended to whom it suits")
        return time.monotonic() - began

    for _ in range(3):
        await in_time(attempt, "a new item is recommended")
    await rivulet(shop, "withdraw", "bivouac1")

    async def gone() -> bool:
        items = (await shown()).keys()
        return "bivouac0" in items and "bivouac1" not in items

    await shop.until(gone, "what is withdrawn is recommended no longer")


async def test_the_next_worker_goes_on_where_the_last_one_was(shop: Installation) -> None:
    """What changed while nobody was there is written; what was written before is not written again."""
    store = shop.progress.store
    await rivulet(shop, "withdraw", "old")

    async def written() -> bool:
        (value,) = await store.get([shop.keys.item("old")])
        return value is not None and b'"hidden":true' in value

    await shop.until(written, "a withdrawal is written")
    await shop.write("items", b'{"item_id":"next"}', b"next", partition_of(b"old", 4))

    async def followed() -> bool:
        return await store.get([shop.keys.item("next")]) != [None]

    await shop.until(followed, "the next batch is written")  # the last one is written again by a successor
    await shop.workers[-1].terminate()
    await store.flush(_deletion(shop.keys.item("old")))
    await shop.write("items", b'{"item_id":"bag","price":99}', b"bag", partition_of(b"bag", 4))
    shop.start()
    await seen_after_start(shop, lambda recs: price("bag", recs) == 99)
    assert await store.get([shop.keys.item("old")]) == [None]

    async def told() -> bool:
        facts, ends = await shop.progress.facts(), await shop.progress.ends("items")
        return {p: facts.get(f"{shop.settings.topic('items')}-{p}", {"next": 0})["next"] for p in ends} == ends

    await shop.until(told, "it does not tell how far it has written")
    # Redis loses that it was written: all is written again
    await store.flush(_deletion(shop.keys.meta))
    await shop.until(written, "everything is written again")


def _deletion(key: bytes) -> WriteBatch:
    batch = WriteBatch()
    batch.delete(key)
    return batch


async def seen_after_start(shop: Installation, condition: Callable[[Recommendations], bool]) -> None:
    async with Client(shop.settings.redis, prefix=shop.settings.prefix, strict=True) as client:

        async def visible() -> bool:
            return condition(await client.recommendations("camper"))

        await shop.until(visible, "the new worker writes")


async def test_put_list_get_and_a_whole_feed(shop: Installation, tmp_path: Path) -> None:
    lines = [{"item_id": f"x{n}", "title": f"[X] {n}", "category": "x", "price": n} for n in range(1_500)]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    assert json.loads(await rivulet(shop, "put", str(file), "--json"))["written"] == 1_500
    listed = [json.loads(line) for line in (await rivulet(shop, "list", "--category", "x", "--json")).splitlines()]
    assert listed == sorted(lines, key=lambda item: str(item["item_id"]))
    assert json.loads(await rivulet(shop, "get", "x7")) == lines[7]
    assert "[X] 0" in await rivulet(shop, "list", "--limit", "3", "--category", "x")
    file.write_text("\n".join(map(json.dumps, lines[:2])) + '\n{"item_id":5}')
    with pytest.raises(BadInputError, match=r"a\.jsonl, line 3"):
        await rivulet(shop, "put", str(file), "--whole")
    checked = await rivulet(shop, "put", str(file), "--check", "--skip-bad")
    assert [json.loads(line) for line in checked.splitlines()] == lines[:2]
    with pytest.raises(BadInputError, match=r"--whole would withdraw what could not be read; first of 1: .*line 3"):
        await rivulet(shop, "put", str(file), "--whole", "--skip-bad")
    report = json.loads(await rivulet(shop, "put", str(file), "--skip-bad", "--json"))
    assert (report["items"], len(report["refused"]), report["withdrawn"]) == (2, 1, 0)
    file.write_text("\n".join(map(json.dumps, lines[:2])))
    report = json.loads(await rivulet(shop, "put", str(file), "--whole", "--json"))
    assert report["withdrawn"] >= 1_498
    assert len((await rivulet(shop, "list", "--json")).splitlines()) == 2
    with pytest.raises(BadInputError, match="x7 is not in the catalogue"):
        await rivulet(shop, "get", "x7")
    file.write_text("")
    with pytest.raises(BadInputError, match="would withdraw everything"):
        await rivulet(shop, "put", str(file), "--whole")


async def test_a_merchant_feed_and_a_table_are_put(shop: Installation, tmp_path: Path) -> None:
    feed, table = tmp_path / "feed.xml.gz", tmp_path / "table.csv"
    feed.write_bytes(gzip.compress(RSS.encode()))
    table.write_text("id,name,price,currency\nlamp,Lamp,20,EUR\n")
    assert json.loads(await rivulet(shop, "put", str(feed), "--json"))["written"] == 2
    assert json.loads(await rivulet(shop, "put", str(table), "--json"))["written"] == 1
    tent, lamp = [json.loads(await rivulet(shop, "get", item)) for item in ("tent-1", "lamp")]
    assert (tent["title"], tent["price"], tent["currency"], tent["availability"]) == (
        "Tunnel & tent",
        149.5,
        "EUR",
        "in_stock",
    )
    assert lamp == {"item_id": "lamp", "title": "Lamp", "price": 20, "currency": "EUR"}


async def test_pages_of_the_shop_become_items(shop: Installation) -> None:
    def html(sku: str) -> str:
        data = {"@type": "Product", "sku": sku, "name": f"Page {sku}", "offers": {"price": 5, "priceCurrency": "EUR"}}
        return f'<script type="application/ld+json">{json.dumps(data)}</script>'

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/sitemap.xml":
            urls = "".join(f"<url><loc>{request.url.with_path(f'/p{n}')}</loc></url>" for n in range(4))
            return web.Response(text=f'<?xml version="1.0"?><urlset>{urls}</urlset>', content_type="text/xml")
        if request.path in ("/p0", "/p1"):
            return web.Response(text=html(f"page{request.path[-1]}"), content_type="text/html")
        if request.path == "/p3":
            return web.Response(body=page(head=OPEN_GRAPH), content_type="text/html")
        return web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app, host="127.0.0.1") as server:
        url = str(server.make_url("/sitemap.xml"))
        report = json.loads(await rivulet(shop, "fetch", url, "--rate", "100", "--json"))
        assert (report["items"], report["written"]) == (3, 3)
        assert [row["reason"] for row in report["refused"]] == ["HTTP 404"]
        with pytest.raises(BadInputError, match=r"no page had an item: .*/none: HTTP 404"):
            await rivulet(shop, "fetch", str(server.make_url("/none")), "--rate", "100")
    assert json.loads(await rivulet(shop, "get", "page1"))["title"] == "Page page1"
    assert json.loads(await rivulet(shop, "get", "og-1")) == {
        "item_id": "og-1",
        "title": "Open tent",
        "text": "Open text",
        "category": "Tents",
        "price": 99.9,
        "currency": "CHF",
        "availability": "out_of_stock",
        "url": url.replace("sitemap.xml", "p3"),
        "image": "http://cdn.example/o.jpg",
    }
    async with Client(shop.settings.redis, prefix=shop.settings.prefix, strict=True, cache_s=0) as client:

        async def known() -> bool:
            found = await client.items(["page0", "page1", "og-1"])
            return {item: known.price for item, known in found.items()} == {"page0": 5, "page1": 5, "og-1": 99.9}

        await shop.until(known, "readers know of the pages' items")

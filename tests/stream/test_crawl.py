"""The fetcher against a shop served on the loopback."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer

from stream.catalogue import CatalogueItem
from stream.crawl import AGENT, Crawler, Manners, Refused
from stream.errors import BadInputError

QUICK = Manners(rate=1_000, timeout_s=60)


def product(sku: str) -> str:
    data = {"@type": "Product", "sku": sku, "name": f"Item {sku}", "offers": {"price": 5, "priceCurrency": "EUR"}}
    return f'<html><head><script type="application/ld+json">{json.dumps(data)}</script></head></html>'


def sitemap(*urls: str, index: bool = False) -> str:
    outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    body = "".join(f"<{inner}><loc> {url} </loc><lastmod>2026-01-01</lastmod></{inner}>" for url in urls)
    return f'<?xml version="1.0"?><{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{body}</{outer}>'


@dataclass
class Site:
    """Answers by path, and what was asked when."""

    server: BaseTestServer | None = None
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, float]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)

    def url(self, path: str) -> str:
        assert self.server is not None
        return str(self.server.make_url(path))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, time.monotonic()))
        self.agents.add(request.headers["User-Agent"])
        answer = self.answers.get(request.path, 404)
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, int):
            return web.Response(status=answer)
        if callable(answer):
            answer = await answer(request)
        if isinstance(answer, web.StreamResponse):
            return answer
        kind = "text/html" if isinstance(answer, str) and answer.startswith("<html") else "application/octet-stream"
        return web.Response(body=answer.encode() if isinstance(answer, str) else answer, content_type=kind)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked if path != "/robots.txt"]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", site.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        site.server = server
        yield site


async def crawl(urls: list[str], manners: Manners = QUICK) -> tuple[list[str], dict[str, str]]:
    """Ids found, and reasons by the last part of the address."""
    ids, reasons = [], {}
    async with Crawler(urls, manners) as crawler:
        async for found in crawler.items():
            if isinstance(found, Refused):
                reasons[found.url.rpartition("/")[2]] = found.reason
            else:
                assert isinstance(found, CatalogueItem)
                ids.append(found.item_id)
    return ids, reasons


async def test_pages_and_sitemaps_and_indexes_of_sitemaps(site: Site) -> None:
    site.answers |= {f"/p{n}": product(f"s{n}") for n in range(5)}
    site.answers["/index.xml"] = sitemap(site.url("/a.xml"), site.url("/b.xml.gz"), site.url("/gone.xml"), index=True)
    site.answers["/a.xml"] = sitemap(site.url("/p1"), site.url("/p2"), site.url("/about"))
    site.answers["/b.xml.gz"] = gzip.compress(sitemap(site.url("/p3"), "/p4", site.url("/p1")).encode())
    site.answers["/about"] = "<html><title>About</title></html>"
    ids, reasons = await crawl([site.url("/p0"), site.url("/index.xml")])
    assert ids == ["s0", "s1", "s2", "s3", "s4"]
    assert reasons.keys() == {"gone.xml", "about"}
    assert reasons["gone.xml"] == "HTTP 404"
    assert len(site.paths()) == len(set(site.paths()))  # p1 is in both, and is asked for once
    assert site.agents == {AGENT}


async def test_what_robots_txt_forbids_is_not_asked_for(site: Site) -> None:
    site.answers |= {"/a/1": product("1"), "/b/2": product("2"), "/b/3": product("3"), "/to": redirect("/b/2")}
    site.answers["/robots.txt"] = f"User-agent: *\nDisallow: /\n\nUser-agent: {AGENT}\nDisallow: /b/\nAllow: /b/3$\n"
    ids, reasons = await crawl([site.url(path) for path in ("/a/1", "/b/2", "/b/3", "/to")])
    assert ids == ["1", "3"]
    assert reasons == {"2": "robots.txt forbids it", "to": "robots.txt forbids it"}
    assert "/b/2" not in site.paths()
    assert [path for path, _ in site.asked].count("/robots.txt") == 1


@pytest.mark.parametrize(
    ("answer", "allowed"),
    [
        (404, True),
        (403, True),
        (500, False),
        (b"x" * 600_000, False),
    ],
)
async def test_a_robots_txt_that_cannot_be_had_forbids_everything(site: Site, answer: Any, allowed: bool) -> None:
    site.answers |= {"/1": product("1"), "/robots.txt": answer}
    ids, reasons = await crawl([site.url("/1")])
    if allowed:
        assert (ids, reasons) == (["1"], {})
    else:
        assert not ids
        assert re.match(r"robots\.txt cannot be had, so nothing is allowed: (HTTP 500|.*bytes)", reasons["1"])


async def test_only_the_hosts_given_are_asked(site: Site) -> None:
    """Another port, another name for the same machine: another host, in sitemaps and in redirects."""
    stranger = Site()
    app = web.Application()
    app.router.add_get("/{path:.*}", stranger.handle)
    async with TestServer(app, host="127.0.0.1") as server:
        stranger.server = server
        stranger.answers["/x"] = product("x")
        named = site.url("/p").replace("127.0.0.1", "localhost")
        odd = ["file:///etc/passwd", "http://user:pass@127.0.0.1/u", "http://[::1", "ftp://127.0.0.1/f"]
        site.answers |= {"/p": product("p"), "/away": redirect(stranger.url("/x")), "/robots.txt": b""}
        site.answers["/s.xml"] = sitemap(stranger.url("/x"), named, site.url("/away"), *odd, site.url("/p"))
        ids, reasons = await crawl([site.url("/s.xml")])
        assert ids == ["p"]
        assert stranger.asked == []
        assert sum("another host" in reason for reason in reasons.values()) == 3
        assert len(reasons) == 3 + len(odd)


def redirect(to: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": to})

    return answer


async def test_redirects_on_the_host_are_followed_and_circles_end(site: Site) -> None:
    site.answers |= {"/old": redirect("/new"), "/new": product("1"), "/o": redirect("/o")}
    ids, reasons = await crawl([site.url("/old"), site.url("/o")])
    assert ids == ["1"]
    assert reasons == {"o": "more than 5 redirects"}
    async with Crawler([site.url("/old")], QUICK) as crawler:
        (item,) = [found async for found in crawler.items()]
        assert isinstance(item, CatalogueItem)
        assert item.url == site.url("/new")


async def test_requests_keep_their_distance(site: Site) -> None:
    site.answers |= {f"/{n}": product(str(n)) for n in range(4)}
    # from the start on: a request that is held up on its way comes nearer to the next one
    began = time.monotonic()
    await crawl([site.url(f"/{n}") for n in range(4)], Manners(rate=10))
    assert len(site.asked) == 5
    assert all(at - began > 0.098 * number for number, (_, at) in enumerate(site.asked))
    site.asked.clear()
    site.answers["/robots.txt"] = "User-agent: *\nCrawl-delay: 0.2\n"
    began = time.monotonic()
    await crawl([site.url(f"/{n}") for n in range(4)])
    assert all(at - began > 0.196 * number for number, (_, at) in enumerate(site.asked[1:]))


async def test_what_is_too_large_or_too_slow_or_damaged_is_given_up(site: Site) -> None:
    async def slow(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    def packed(data: bytes) -> web.Response:
        return web.Response(body=gzip.compress(data), headers={"Content-Encoding": "gzip"}, content_type="text/html")

    site.answers |= {
        "/large": b" " * 6_000_000,
        "/bomb": packed(b" " * 60_000_000),
        "/slow": slow,
        "/bomb.xml.gz": gzip.compress(b" " * 60_000_000),
        "/cut.xml.gz": gzip.compress(sitemap(site.url("/x")).encode())[:-20],
        "/broken.xml": sitemap(site.url("/x"))[:-20],
        "/evil.xml": '<!DOCTYPE urlset [<!ENTITY a "b">]><urlset></urlset>'.replace(
            "<!DOC", "<?xml version='1.0'?><!DOC"
        ),
        "/good": product("good"),
    }
    names = ("large", "bomb", "bomb.xml.gz", "cut.xml.gz", "broken.xml", "evil.xml", "good")
    ids, reasons = await crawl([site.url(f"/{name}") for name in names])
    assert ids == ["good"]
    reasons |= (await crawl([site.url("/slow")], Manners(rate=1_000, timeout_s=2)))[1]
    words = {
        "large": "larger than",
        "bomb": "larger than",
        "slow": "no answer within 2 s",
        "bomb.xml.gz": "when unpacked",
        "cut.xml.gz": "damaged gzip",
        "broken.xml": "a broken sitemap",
        "evil.xml": "DOCTYPE",
    }
    assert {name for name in words if words[name] in reasons[name]} == set(words), reasons


async def test_a_server_that_asks_for_patience_gets_it_once(site: Site) -> None:
    busy = [web.Response(status=503, headers={"Retry-After": "0"}) for _ in range(3)]
    site.answers |= {"/a": [busy[0], product("a")], "/b": [busy[1], busy[2], product("b")]}
    site.answers["/c"] = web.Response(status=429, headers={"Retry-After": "86400"})
    ids, reasons = await crawl([site.url("/a"), site.url("/b"), site.url("/c")])
    assert ids == ["a"]
    assert reasons == {"b": "HTTP 503", "c": "HTTP 429"}


async def test_no_more_pages_than_wanted(site: Site) -> None:
    site.answers |= {f"/{n}": product(str(n)) for n in range(5)}
    ids, reasons = await crawl([site.url(f"/{n}") for n in range(5)], Manners(rate=1_000, pages=2))
    assert ids == ["0", "1"]
    assert reasons == {"2": "not fetched, nor 2 more: 2 pages are the limit"}


async def test_what_does_not_answer_counts_too(site: Site) -> None:
    site.answers["/s.xml"] = sitemap(*(site.url(f"/gone{n}") for n in range(30)))
    ids, reasons = await crawl([site.url("/s.xml")], Manners(rate=1_000, pages=3))
    assert site.paths() == ["/s.xml", "/gone0", "/gone1", "/gone2"]
    assert ids == []
    assert reasons["gone3"] == "not fetched, nor 26 more: 3 pages are the limit"


async def test_no_more_sitemaps_than_wanted_are_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.crawl.SITEMAPS", 3)
    site.answers["/index.xml"] = sitemap(*(site.url(f"/{n}.xml") for n in range(6)), site.url("/odd"), index=True)
    site.answers |= {"/1.xml": sitemap(site.url("/p")), "/p": product("p"), "/odd": sitemap(site.url("/q"))}
    ids, reasons = await crawl([site.url("/index.xml")])
    assert ids == ["p"]
    assert site.paths() == ["/index.xml", "/0.xml", "/1.xml", "/odd", "/p"]
    limit = "3 sitemaps are the limit"
    refused = {f"{n}.xml": f"not fetched: {limit}" for n in range(2, 6)}
    assert reasons == refused | {"0.xml": "HTTP 404", "odd": f"not read: {limit}"}


async def test_a_page_that_looks_like_a_sitemap_counts_as_a_page(site: Site) -> None:
    site.answers |= {f"/{n}.xml": product(str(n)) for n in range(4)}
    ids, reasons = await crawl([site.url(f"/{n}.xml") for n in range(4)], Manners(rate=1_000, pages=2))
    assert ids == ["0", "1"]
    assert reasons == {"2.xml": "not fetched, nor 1 more: 2 pages are the limit"}


async def test_a_crawl_knows_so_many_addresses_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.crawl.KNOWN", 4)
    site.answers |= {f"/{n}": product(str(n)) for n in range(9)}
    site.answers["/s.xml"] = sitemap(*(site.url(f"/{n}") for n in range(9)))
    ids, reasons = await crawl([site.url("/s.xml")])
    assert ids == ["0", "1", "2"]
    assert reasons == {"s.xml": "6 of its addresses are left out: 4 are the limit"}


async def test_nobody_there_is_a_reason() -> None:
    found, reasons = await crawl(["http://127.0.0.1:1/x"])
    assert not found
    assert reasons["x"].startswith(
        "robots.txt cannot be had, so nothing is allowed: Cannot connect to host 127.0.0.1:1"
    )


@pytest.mark.parametrize("url", ["shop.example/x", "ftp://shop.example", "http://a:b@shop.example/", "http://"])
def test_a_bad_address_is_refused_at_once(url: str) -> None:
    with pytest.raises(BadInputError, match=r"expected http|user or password"):
        Crawler([url])

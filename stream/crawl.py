"""Fetching product pages from a shop's own site: politely, and from nowhere else.

Only addresses on the hosts that were given are fetched, one at a time, no faster than was said, and only what
robots.txt allows; redirects to other hosts, and pages of them in sitemaps, are refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from protego import Protego

from stream.catalogue import CatalogueItem
from stream.errors import BadInputError
from stream.pages import IdFrom, NoProductError, product_of
from stream.sitemaps import ADDRESSES, SITEMAP_BYTES, SitemapError, read_sitemap

AGENT: Final = "rivulet-catalogue"
PAGE_BYTES: Final = 5 * 1_048_576
ROBOTS_BYTES: Final = 512 * 1024
REDIRECTS: Final = 5
SITEMAPS: Final = 1_000
KNOWN: Final = 1_000_000  # addresses of one crawl, whether they were asked for or not
LONGEST_WAIT_S: Final = 60.0  # that a server may ask for
LONGEST_DELAY_S: Final = 30.0  # of a robots.txt
_AGAIN: Final = frozenset((429, 503))
_MOVED: Final = frozenset((301, 302, 303, 307, 308))
_PORTS: Final = {"http": 80, "https": 443}

Host = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class Manners:
    """How a site is treated.

    Attributes
    ----------
    rate
        Requests per second, > 0, to all hosts together; a longer ``Crawl-delay`` of robots.txt counts instead.
    timeout_s
        Most seconds for one answer, its body included.
    pages
        Most pages that are asked for, whether they answer or not, sitemaps aside.
    id_from
        See `stream.pages.product_of`.
    """

    rate: float = 1.0
    timeout_s: float = 20.0
    pages: int = 10_000
    id_from: IdFrom = "auto"


class Refused(NamedTuple):
    """An address that gave no item, and why."""

    url: str
    reason: str


class _FetchError(Exception):
    """One address could not be had; the message says why."""


@dataclass
class _Answer:
    url: str
    body: bytes
    charset: str | None = None


@dataclass
class Asked:
    """How many addresses were asked for; each counts as what it looks like until its answer says what it is."""

    pages: int = 0
    sitemaps: int = 0

    def count(self, url: str) -> None:
        """One more is about to be asked for."""
        if not _looks_like_sitemap(url):
            self.pages += 1
        elif self.sitemaps >= SITEMAPS:
            raise _FetchError(f"not fetched: {SITEMAPS} sitemaps are the limit")
        else:
            self.sitemaps += 1

    def was_page(self, url: str) -> None:
        """It answered with a page."""
        if _looks_like_sitemap(url):
            self.pages, self.sitemaps = self.pages + 1, self.sitemaps - 1

    def was_sitemap(self, url: str) -> None:
        """It answered with a sitemap."""
        if not _looks_like_sitemap(url):
            if self.sitemaps >= SITEMAPS:
                raise _FetchError(f"not read: {SITEMAPS} sitemaps are the limit")
            self.pages, self.sitemaps = self.pages - 1, self.sitemaps + 1


@dataclass
class Crawler:
    """Fetches pages and sitemaps, and gives the items they describe.

    Parameters
    ----------
    urls
        Pages or sitemaps (also indexes of sitemaps, also ``.gz``). Their hosts are the only ones that are asked.
    manners
        See `Manners`.

    Notes
    -----
    Memory: one page and one sitemap at a time, and the addresses met (about 150 bytes each, at most a million).

    Raises
    ------
    BadInputError
        For an address that is not http or https, or names a user or password.
    """

    urls: Iterable[str]
    manners: Manners = field(default_factory=Manners)

    def __post_init__(self) -> None:
        """Check the addresses."""
        self.urls = list(self.urls)
        self._hosts = {_host_given(url) for url in self.urls}
        self._robots: dict[str, Protego | str] = {}  # or why there are no rules to go by
        self._next_at = 0.0
        self._asked = Asked()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": AGENT, "Accept": "text/html,application/xml;q=0.9,*/*;q=0.1"},
            timeout=aiohttp.ClientTimeout(total=self.manners.timeout_s),
            trust_env=False,  # no proxy, no .netrc
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def items(self) -> AsyncIterator[CatalogueItem | Refused]:
        """Go through all addresses; each gives an item or a reason why it does not."""
        waiting = deque(dict.fromkeys(self.urls))
        seen = set(waiting)
        while waiting:
            if self._asked.pages >= self.manners.pages:
                pages = self.manners.pages
                yield Refused(waiting[0], f"not fetched, nor {len(waiting) - 1} more: {pages} pages are the limit")
                return
            url = waiting.popleft()
            try:
                answer = await self._get(url)
                sitemap = read_sitemap(answer.body)
                if sitemap is None:
                    self._asked.was_page(url)
                    yield product_of(answer.body, answer.url, answer.charset, self.manners.id_from)
                    continue
                self._asked.was_sitemap(url)
            except (_FetchError, NoProductError) as error:
                yield Refused(url, str(error))
                continue
            except SitemapError as error:
                yield Refused(url, f"a broken sitemap: {error}")
                continue
            joined = dict.fromkeys(_joined(answer.url, each) for each in sitemap.addresses)
            new = [each for each in joined if each not in seen]
            room = max(KNOWN - len(seen), 0)
            seen.update(new[:room])
            waiting.extend(new[:room])
            if sitemap.cut:
                yield Refused(url, f"only its first {ADDRESSES} addresses are read")
            if len(new) > room:
                yield Refused(url, f"{len(new) - room} of its addresses are left out: {KNOWN} are the limit")

    async def _get(self, url: str) -> _Answer:
        """One address' answer, redirects followed on the hosts given."""
        for hop in range(REDIRECTS + 1):
            self._check_host(url)
            await self._check_robots(url)
            if hop == 0:
                self._asked.count(url)  # its redirects belong to it
            found = await self._ask(url, SITEMAP_BYTES if _looks_like_sitemap(url) else PAGE_BYTES)
            if isinstance(found, _Answer):
                return found
            url = found
        raise _FetchError(f"more than {REDIRECTS} redirects")

    def _check_host(self, url: str) -> None:
        try:
            host = _host(url)
        except ValueError as error:
            raise _FetchError(f"no address: {error}") from error
        if host not in self._hosts:
            raise _FetchError(f"another host: {host[0]}" + (f":{host[1]}" if host[1] else ""))

    async def _check_robots(self, url: str) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if origin not in self._robots:
            self._robots[origin] = await self._read_robots(origin)
        rules = self._robots[origin]
        if isinstance(rules, str):
            raise _FetchError(f"robots.txt cannot be had, so nothing is allowed: {rules}")
        if not rules.can_fetch(url, AGENT):
            raise _FetchError("robots.txt forbids it")

    async def _read_robots(self, origin: str) -> Protego | str:
        """Rules of an origin by RFC 9309: all is allowed if there is no file, nothing if it cannot be had (why not)."""
        url = f"{origin}/robots.txt"
        try:
            for _ in range(REDIRECTS + 1):
                self._check_host(url)
                found = await self._ask(url, ROBOTS_BYTES, missing=b"")
                if isinstance(found, _Answer):
                    return Protego.parse(found.body.decode(errors="replace"))
                url = found
        except _FetchError as error:
            return str(error)
        return f"more than {REDIRECTS} redirects"

    async def _ask(self, url: str, most: int, missing: bytes | None = None) -> _Answer | str:
        """One request, repeated once if the server asks for patience: its answer, or where it redirects to."""
        for last in (False, True):
            await self._turn(url)
            try:
                async with self._session.get(url, allow_redirects=False) as response:
                    if response.status in _MOVED and "Location" in response.headers:
                        return urljoin(url, response.headers["Location"])
                    wait = _patience(response.headers.get("Retry-After", ""))
                    if response.status in _AGAIN and wait is not None and not last:
                        await asyncio.sleep(wait)
                        continue
                    if missing is not None and 400 <= response.status < 500 and response.status != 429:
                        return _Answer(url, missing)
                    if response.status != 200:
                        raise _FetchError(f"HTTP {response.status}")
                    return _Answer(url, await _body(response, most), response.charset)
            except TimeoutError as error:
                raise _FetchError(f"no answer within {self.manners.timeout_s:g} s") from error
            except (aiohttp.ClientError, ValueError, OSError) as error:
                raise _FetchError(str(error) or repr(error)) from error
        raise AssertionError("the last round returns or raises")

    async def _turn(self, url: str) -> None:
        """Wait until the next request is due."""
        parts = urlsplit(url)
        rules = self._robots.get(f"{parts.scheme}://{parts.netloc}")
        asked = rules.crawl_delay(AGENT) if isinstance(rules, Protego) else None
        pause = max(1 / self.manners.rate, min(float(asked or 0), LONGEST_DELAY_S))
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._next_at - loop.time()))
        self._next_at = loop.time() + pause


def _host(url: str) -> Host:
    """Host and port; no port for a scheme's own, so that http may redirect to https.

    Examples
    --------
    >>> _host("https://Shop.example/x"), _host("http://shop.example:80/"), _host("http://127.0.0.1:8080/")
    (('shop.example', None), ('shop.example', None), ('127.0.0.1', 8080))
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"expected http:// or https://, not {url!r}")
    if "@" in parts.netloc:
        raise ValueError("an address with a user or password")
    return parts.hostname, parts.port if parts.port != _PORTS[parts.scheme] else None


def _host_given(url: str) -> Host:
    try:
        return _host(url)
    except ValueError as error:
        raise BadInputError(str(error)) from error


def _joined(base: str, url: str) -> str:
    """An absolute address; one that is none stays as it is, and is refused when its turn comes."""
    try:
        return urljoin(base, url)
    except ValueError:
        return url


def _looks_like_sitemap(url: str) -> bool:
    return urlsplit(url).path.lower().removesuffix(".gz").endswith(".xml")


def _patience(text: str) -> float | None:
    """Seconds of a ``Retry-After`` that are worth waiting for; dates are not understood."""
    return float(text) if text.strip().isdigit() and float(text) <= LONGEST_WAIT_S else None


async def _body(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, unpacked; refused as soon as it is too long, however small it was packed."""
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > most:
            raise _FetchError(f"larger than {most} bytes")
    return bytes(body)

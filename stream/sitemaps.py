"""Sitemaps (sitemaps.org): the addresses in one, or in an index of several.

Read as a stream of tags, without a tree, and not beyond the addresses that a sitemap may have: what is larger than it
should be costs no more than one that is not.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from lxml import etree

SITEMAP_BYTES: Final = 50 * 1_048_576  # unpacked, and
ADDRESSES: Final = 50_000  # as sitemaps.org bounds it
_PIECE: Final = 65_536
_ENTRIES: Final = {"urlset": "url", "sitemapindex": "sitemap"}


class SitemapError(ValueError):
    """It cannot be read; the message says why."""


class Sitemap(NamedTuple):
    """What a sitemap says.

    Attributes
    ----------
    addresses
        In order, at most `ADDRESSES`.
    cut
        Whether there are more, which were not read.
    """

    addresses: list[str]
    cut: bool


class _End(Exception):
    """No more needs to be read."""


class _Tags:
    """Takes a document's tags one by one and keeps the ``loc`` of each entry."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.root = ""
        self.cut = False
        self._open: list[str] = []
        self._text: list[str] = []

    def doctype(self, name: str, *_: object) -> None:
        if name in _ENTRIES:
            raise SitemapError("it has a DOCTYPE, which may define entities without end and which no sitemap needs")
        raise _End  # XHTML

    def start(self, tag: str, _: Mapping[str, str]) -> None:
        name = tag.rpartition("}")[2]
        if not self._open:
            self.root = name
            if name not in _ENTRIES:
                raise _End
        self._open.append(name)
        self._text = []

    def data(self, text: str) -> None:
        if self._is_address():
            self._text.append(text)

    def end(self, _: str) -> None:
        if self._is_address() and (address := "".join(self._text).strip()):
            if len(self.addresses) == ADDRESSES:
                self.cut = True
                raise _End
            self.addresses.append(address)
        self._open.pop()
        self._text = []

    def _is_address(self) -> bool:
        return len(self._open) == 3 and self._open[1:] == [_ENTRIES[self.root], "loc"]

    def close(self) -> None:
        """Nothing is left to do."""


def read_sitemap(body: bytes) -> Sitemap | None:
    """Addresses in a sitemap or an index of sitemaps, plain or gzip; None if it is neither.

    Raises
    ------
    SitemapError
        If it is damaged, too large once unpacked, or has a document type.

    Examples
    --------
    >>> read_sitemap(b"<urlset><url><loc> https://shop.example/a </loc></url></urlset>")
    Sitemap(addresses=['https://shop.example/a'], cut=False)
    >>> read_sitemap(b"<html></html>") is None
    True
    """
    if body[:2] == b"\x1f\x8b":
        body = _unpacked(body)
    start = body[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start.startswith((b"<?xml", b"<urlset", b"<sitemapindex")):
        return None
    tags: Any = _Tags()
    parser = etree.XMLParser(target=tags, resolve_entities=False, load_dtd=False, no_network=True, huge_tree=False)
    try:
        for at in range(0, len(body), _PIECE):
            parser.feed(body[at : at + _PIECE])
        parser.close()
    except _End:
        pass
    except etree.XMLSyntaxError as error:
        if b"<html" in start.lower():  # XHTML, which need not be well-formed to be read
            return None
        raise SitemapError(str(error)) from error
    return Sitemap(tags.addresses, tags.cut) if tags.root in _ENTRIES else None


def _unpacked(body: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(body)) as packed:
            found = packed.read(SITEMAP_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SitemapError(f"damaged gzip: {error}") from error
    if len(found) > SITEMAP_BYTES:
        raise SitemapError(f"larger than {SITEMAP_BYTES} bytes when unpacked")
    return found

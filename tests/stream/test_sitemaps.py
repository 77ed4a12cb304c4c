"""Sitemaps are read no further than a sitemap may go."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.sitemaps import ADDRESSES, SitemapError, read_sitemap

URLSET = b'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'


def entry(address: str) -> bytes:
    return f"<url><loc>{address}</loc><lastmod>2026-01-01</lastmod></url>".encode()


def test_reading_stops_at_the_limit_and_not_at_the_end() -> None:
    body = URLSET + b"".join(entry(f"/{n}") for n in range(ADDRESSES + 1)) + b"<broken" * 20_000
    found = read_sitemap(body)
    assert found is not None
    assert found.cut
    assert found.addresses == [f"/{n}" for n in range(ADDRESSES)]
    with pytest.raises(SitemapError):  # what is broken before the limit is told
        read_sitemap(URLSET + entry("/0") + b"<broken" * 20_000)


def test_as_many_as_allowed_are_not_cut() -> None:
    found = read_sitemap(gzip.compress(URLSET + b"".join(entry(f"/{n}") for n in range(ADDRESSES)) + b"</urlset>"))
    assert found is not None
    assert (len(found.addresses), found.cut) == (ADDRESSES, False)


def test_only_the_entries_own_addresses_count() -> None:
    image = b"<image><loc>/picture</loc></image>"
    body = URLSET + b"<loc>/outside</loc><url>" + image + b"<loc> /a&amp;b </loc></url><url><loc/></url>"
    body += b"<sitemap><loc>/other</loc></sitemap></urlset>"
    found = read_sitemap(body)
    assert found is not None
    assert found.addresses == ["/a&b"]


@pytest.mark.parametrize(
    "page",
    [
        b"<html></html>",
        b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x" "y"><html><p></html>',
        b'<?xml version="1.0"?><rss></rss>',
        b"{}",
        b"",
    ],
)
def test_what_is_no_sitemap(page: bytes) -> None:
    assert read_sitemap(page) is None


def test_entities_are_refused() -> None:
    bomb = b'<?xml version="1.0"?><!DOCTYPE urlset [<!ENTITY a "b">]><urlset><url><loc>&a;</loc></url></urlset>'
    with pytest.raises(SitemapError, match="DOCTYPE"):
        read_sitemap(bomb)


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"<url>", b"</url>", b"<loc>", b"</loc>", b"/a", b"<!--", b"]]>", b"&amp;", b"\xff"])))
def test_any_bytes_are_read_or_refused(parts: list[bytes]) -> None:
    try:
        found = read_sitemap(URLSET + b"".join(parts) + b"</urlset>")
    except SitemapError:
        return
    assert found is not None
    assert len(found.addresses) <= parts.count(b"</loc>")

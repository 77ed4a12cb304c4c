"""What a page wishes of a list, by both readers, on a single server and on a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from stream.errors import BadInputError
from tests.reader_shop import Shop


async def test_a_category_filters_and_has_its_own_trending(shop: Shop) -> None:
    await shop.put(recs=["shoe", "hat", "unknown"], all=["boot", "cap"], shoes=["clog", "shoe", "hat"])
    await shop.catalogue(**{name: {"category": "shoes"} for name in ("shoe", "boot", "clog")}, hat={"category": "hats"})
    recs = await shop.client.recommendations("u1", category="shoes")
    assert (recs.items, recs.source) == (["shoe", "clog", "boot"], "recs")
    assert (await shop.client.recommendations("u1", category="hats")).items == ["hat"]


async def test_prices_and_availability_filter_and_what_is_not_told_fits_no_wish(shop: Shop) -> None:
    await shop.put(recs=["cheap", "untold", "dear"], all=["unknown", "mid", "free"])
    await shop.catalogue(
        cheap={"price": 5, "availability": "limited", "category": "shoes"},
        untold={"title": "no price"},
        dear={"price": 50, "availability": "in_stock"},
        mid={"price": 20.5, "availability": "preorder", "category": "shoes"},
        free={"price": 0},
    )

    async def shown(**wish: Any) -> list[str]:
        found: list[str] = (await shop.client.recommendations("u1", **wish)).items
        return found

    assert await shown(min_price=5, max_price=20.5) == ["cheap", "mid"]
    assert await shown(min_price=20) == ["dear", "mid"]
    assert await shown(max_price=0) == ["free"]
    assert await shown(min_price=0) == ["cheap", "dear", "mid", "free"]
    assert await shown(availability=["in_stock", "limited"]) == ["cheap", "dear"]
    assert await shown(availability=["preorder"], min_price=20, category="shoes") == ["mid"]
    assert await shown(availability=["preorder"], max_price=20) == []
    for wrong in ({"min_price": 2, "max_price": 1}, {"max_price": -1}, {"availability": ["soon"]}):
        with pytest.raises(BadInputError):
            await shown(**wrong)


async def test_a_short_list_goes_on_in_the_category_that_is_most_of_it(shop: Shop) -> None:
    """Only behind the segment's list; of two categories that are as frequent the first counts."""
    await shop.put(recs=["hat", "shoe", "?"], all=["x", "y"], shoes=["boot", "shoe"])
    await shop.catalogue(hat={"category": "hats"}, shoe={"category": "shoes"}, boot={"category": "shoes"})
    assert (await shop.client.recommendations("u1", k=5)).items == ["hat", "shoe", "?", "x", "y"]
    await shop.catalogue(**{"?": {"category": "shoes", "hidden": True}})
    recs = await shop.client.recommendations("u1", k=4)
    assert (recs.items, recs.source) == (["hat", "shoe", "boot", "x"], "recs")
    assert [model for _, model in recs.why] == ["recs", "recs", "shoes", "all"]
    await shop.profile(segment="3")
    await shop.put(segment=["s"])
    assert (await shop.client.recommendations("u1", k=5)).items == ["hat", "shoe", "s", "boot", "x"]
    assert (await shop.client.recommendations("u1", k=3)).items == ["hat", "shoe", "s"]
    assert (await shop.client.recommendations("u1", category="hats")).items == ["hat"]

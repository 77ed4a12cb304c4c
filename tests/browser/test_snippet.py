"""The snippet in a real browser, on a page of one origin, with a gateway on another, and the embedded broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # no py.typed

from stream.demo.embedded import EmbeddedKafka
from stream.web.gateway import Gateway
from stream.web.snippet import MOST_BYTES, SNIPPET
from tests.brokers import MissingPartError, free_ports
from tests.browser.chrome import Chrome, Page
from tests.browser.shop_page import KEY, origin, serving
from tests.conftest import missing
from tests.gateways import gateway
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Shop(NamedTuple):
    """A shop's pages, the gateway they send to, the broker behind it, and a browser."""

    chrome: Chrome
    made: Gateway
    broker: str
    base: str

    def url(self, user: str = "", consent: str = "") -> str:
        return f"{self.base}/?user={user}&consent={consent}"

    async def events(self, user: str, count: int) -> list[dict[str, Any]]:
        """Events of a user, once there are so many."""
        async with AIOKafkaConsumer(bootstrap_servers=self.broker, auto_offset_reset="earliest") as consumer:
            consumer.assign([TopicPartition("events", partition) for partition in range(4)])
            found: list[dict[str, Any]] = []
            async with asyncio.timeout(PATIENCE_S):
                while len(found) < count:
                    records = [r for batch in (await consumer.getmany(timeout_ms=50)).values() for r in batch]
                    found += [json.loads(record.value) for record in records if record.key.decode() == user]
            return found

    @property
    def requests(self) -> int:
        return self.made.door.requests.total()

    async def answered(self, count: int) -> None:
        """So many requests in all, and no more; an event is in Kafka before its request is counted."""
        async with asyncio.timeout(PATIENCE_S):
            while self.requests < count:  # noqa: ASYNC110  # the door counts
                await asyncio.sleep(0.01)
        assert self.requests == count


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shop() -> AsyncIterator[Shop]:
    try:
        chrome = Chrome()
    except MissingPartError as error:
        missing(str(error))
    (port,) = free_ports(1)
    base = origin(port)
    settings = {"gateway_origins": base, "gateway_keys": f"web:{KEY}"}
    with EmbeddedKafka({"events": 4}) as broker:
        async with chrome, gateway(broker.bootstrap, **settings) as (made, client), serving(port, client.base):
            yield Shop(chrome, made, broker.bootstrap, base)


async def granted(page: Page, calls: str, then: str = "") -> str:
    """Consent is given and more is called, all at once: before the timer sends anything; the anonymous id."""
    consent = '["consent", {analytics_storage: "granted", ad_personalization: "denied"}]'
    anonymous = await page.run(f"rivulet.push({consent}, {calls}); {then}; rivulet.id()")
    assert isinstance(anonymous, str)
    return anonymous


async def test_it_is_small() -> None:
    assert len(SNIPPET) <= MOST_BYTES


async def test_nothing_is_stored_or_sent_before_consent_and_all_of_it_after(shop: Shop) -> None:
    page, before = await shop.chrome.page(), shop.requests
    await page.open(shop.url())
    await page.run("rivulet.flush()")
    assert await page.run("document.cookie + localStorage.length") == "0"
    assert (await page.run("rivulet.id()"), shop.requests) == (None, before)

    anonymous = await granted(page, '["search", {search_term: "rope"}], ["add_to_cart", {item_id: "rope"}]')
    first, second, third = await shop.events(anonymous, 3)  # the timer sends them, in one request
    await shop.answered(before + 1)
    assert [first["event_name"], second["event_name"], third["event_name"]] == ["view_item", "search", "add_to_cart"]
    assert first["items"] == [{"item_id": "tent", "price": 9.5}]
    assert first["consent"] == {"analytics_storage": "granted", "ad_personalization": "denied"}
    assert len({event["event_id"] for event in (first, second, third)}) == 3
    assert await page.run("document.cookie") == f"rv_id={anonymous}"

    later = await shop.chrome.page(beside=page)  # another visit
    await later.open(shop.url(user="customer", consent="granted"))
    assert await later.run("rivulet.id()") == anonymous
    await later.run("rivulet.flush()")
    (known,) = await shop.events("customer", 1)
    assert known["user_pseudo_id"] == anonymous
    await shop.answered(before + 2)


async def test_what_waits_is_sent_when_the_page_is_left(shop: Shop) -> None:
    page, before = await shop.chrome.page(), shop.requests
    await page.open(shop.url())
    many = '...Array.from({length: 30}, (_, n) => ["view_item", {item_id: "i" + n}])'
    anonymous = await granted(page, many, 'location = "about:blank"')
    events = await shop.events(anonymous, 31)
    assert [event["item_id"] for event in events] == ["tent", *(f"i{n}" for n in range(30))]
    await shop.answered(before + 1)


async def test_what_the_door_cannot_take_now_is_sent_again(shop: Shop) -> None:
    page = await shop.chrome.page()
    await page.open(shop.url())
    room, requests = shop.made.inlet.room, shop.made.door.requests
    with room.growing() as hold:
        hold(room.most)
        before, taken = requests[503], requests[202]
        anonymous = await granted(page, '["search", {}]')
        await page.run("rivulet.flush()")
        assert requests[503] > before  # the timer may have tried, too
    assert len(await shop.events(anonymous, 2)) == 2  # by the timer
    async with asyncio.timeout(PATIENCE_S):
        while requests[202] == taken:  # noqa: ASYNC110  # the door counts
            await asyncio.sleep(0.01)
    assert requests[202] == taken + 1


async def test_withdrawn_consent_is_told_once_and_the_id_is_gone(shop: Shop) -> None:
    page, before = await shop.chrome.page(), shop.requests
    await page.open(shop.url(consent="granted"))
    anonymous = await page.run("rivulet.id()")
    await page.run("rivulet.flush()")
    await shop.answered(before + 1)
    await page.run('rivulet.push(["consent", {analytics_storage: "denied", personalization_storage: "denied"}])')
    last = (await shop.events(anonymous, 2))[-1]
    assert last["event_name"] == "consent"
    assert last["consent"] == {"analytics_storage": "denied", "personalization_storage": "denied"}
    await shop.answered(before + 2)
    await page.run('rivulet.push(["view_item", {item_id: "rope"}])')
    await page.run("rivulet.flush()")
    await page.open("about:blank")
    await page.open(shop.url())
    assert await page.run("document.cookie + rivulet.id()") in ("null", "undefined", "")
    assert shop.requests == before + 2


@pytest.mark.parametrize("signal", ["doNotTrack: {value: '1'}", "globalPrivacyControl: {value: true}"])
async def test_a_refusal_of_the_browser_outranks_consent(shop: Shop, signal: str) -> None:
    page, before = await shop.chrome.page(), shop.requests
    await page.open(shop.url(consent="granted"))
    anonymous = await page.run("rivulet.id()")
    await page.run("rivulet.flush()")
    await shop.answered(before + 1)
    assert anonymous
    page = await shop.chrome.page(f"Object.defineProperties(navigator, {{{signal}}})", beside=page)
    await page.open(shop.url(consent="granted"))
    assert await page.run("document.cookie + rivulet.id()") in ("null", "undefined", "")
    await page.run('rivulet.push(["view_item", {item_id: "rope"}])')
    await page.run("rivulet.flush()")
    await page.open("about:blank")
    assert shop.requests == before + 1

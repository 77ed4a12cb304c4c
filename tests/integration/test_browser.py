"""The snippet in a real browser, a gateway, Kafka, a worker, Redis: what a page says becomes the visitor's list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stream.client import Client
from tests.brokers import MissingPartError, free_ports
from tests.browser.chrome import Chrome
from tests.browser.shop_page import KEY, origin, serving
from tests.conftest import missing
from tests.gateways import client_of
from tests.integration.test_gateway import GATEWAY, until_ready
from tests.worker_process import Installation, WorkerProcess, balance

DO_NOT_TRACK = "Object.defineProperty(navigator, 'doNotTrack', {value: '1'})"


async def test_what_a_page_says_becomes_a_list_and_consent_is_obeyed(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    try:
        chrome = Chrome()
    except MissingPartError as error:
        missing(str(error))
    port, private, page_port = free_ports(3)
    base = origin(page_port)
    ports = {"gateway_port": port, "gateway_private_port": private, "gateway_origins": base}
    async with chrome, Installation(kafka, redis_url, tmp_path, topic_prefix, **ports) as shop:
        shop.start()
        shop.workers.append(WorkerProcess(shop.settings, GATEWAY, gateway_keys=f"web:{KEY}"))
        others = [
            {"event_name": "view_item", "user_id": f"u{n}", "item_id": item}
            for n in range(5)
            for item in ("tent", "stove")
        ]
        await shop.publish(others)

        async def said(user: str) -> list[dict[str, Any]]:
            return [json.loads(record.value) for record in await shop.read("events") if record.key == user.encode()]

        async with (
            client_of(port, private) as door,
            serving(page_port, door.base),
            Client(redis_url, prefix=shop.settings.prefix, strict=True, cache_s=0) as reader,
        ):
            await until_ready(shop, door)
            await shop.drained()

            # before consent nothing leaves the page; with it, an anonymous id, and all that happened before
            page = await chrome.page()
            await page.open(f"{base}/?user=&consent=")
            await page.run("rivulet.flush()")
            assert await page.run("document.cookie + rivulet.id()") in ("null", "undefined")
            await page.run('rivulet.push(["consent", {analytics_storage: "granted", ad_personalization: "denied"}])')
            anonymous = await page.run("rivulet.id()")
            assert await page.run("document.cookie") == f"rv_id={anonymous}"

            async def listed() -> bool:
                found = await reader.recommendations(anonymous)
                return found.source == "recs" and "stove" in found.items

            await shop.until(listed, "the visitor's list")
            assert {each["event_name"] for each in await said(anonymous)} == {"view_item"}

            # what waits when the page is left comes by sendBeacon
            await page.run("navigator.sendBeacon = ((send) => (...x) => (document.cookie = 'beacon=1', send(...x)))"
                           ".call(navigator, navigator.sendBeacon.bind(navigator))")  # fmt: skip
            await page.run('rivulet.push(["add_to_cart", {item_id: "lamp"}])')
            await page.open(f"{base}/?user=&consent=denied")
            await shop.until(lambda: _holds(said, anonymous, "add_to_cart"), "the beacon")
            # the next page said that consent is withdrawn: told once under the old id, which is deleted
            await shop.until(lambda: _holds(said, anonymous, "consent"), "the withdrawal")
            assert await page.run("document.cookie") == "beacon=1"
            await page.run("rivulet.flush()")
            await shop.drained()
            profile = await reader.profile(anonymous)
            assert profile["consent"]
            told = len(await said(anonymous))

            # with Do Not Track nothing is stored or sent whatever was said
            page = await chrome.page(DO_NOT_TRACK)
            await page.open(f"{base}/?user=tracked&consent=granted")
            await page.run('rivulet.push(["view_item", {item_id: "rope"}])')
            await page.run("rivulet.flush()")
            await page.open("about:blank")
            assert await said("tracked") == []
            assert len(await said(anonymous)) == told
        counts = await shop.counts()
        assert balance(counts) == len(others) + told
        assert counts["denied"] >= 1
        assert not await shop.read("dlq")


async def _holds(said: Any, user: str, name: str) -> bool:
    return name in {each["event_name"] for each in await said(user)}

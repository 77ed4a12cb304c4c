"""A real Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

import aiohttp

from stream.demo.child import Child
from tests.brokers import MissingPartError, wait_for
from tests.patience import PATIENCE_S

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Chrome:
    """One browser process; every page has a profile of its own unless it is given another page's."""

    def __init__(self) -> None:
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            raise MissingPartError(f"no browser: none of {', '.join(NAMES)} is installed")
        self._folder = Path(tempfile.mkdtemp(prefix="rivulet-browser-"))
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
        quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio")
        data = (f"--user-data-dir={self._folder / 'profile'}", "--remote-debugging-port=0")
        self._child = Child([program, *flags, *quiet, *data, "about:blank"], self._folder, {"HOME": str(self._folder)})
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def __aenter__(self) -> Self:
        said = self._folder / "profile" / "DevToolsActivePort"
        await asyncio.to_thread(wait_for, lambda: said.exists() and "\n" in said.read_text(), PATIENCE_S, "no browser")
        port, path = said.read_text().split()
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.cancel()
        await self._session.close()
        self._child.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command of the protocol."""
        number = next(self._ids)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message if session is None else message | {"sessionId": session})
        async with asyncio.timeout(PATIENCE_S):
            return await answer

    async def page(self, script: str = "", beside: Page | None = None) -> Page:
        """An empty page with a profile of its own, or beside another one; `script` runs before each document's own."""
        context = beside.context if beside else (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        page = Page(self, context, attached["sessionId"])
        await page.call("Page.enable")
        if script:
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        return page

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            answer = self._answers.pop(said.get("id"), None)
            if answer is not None and "error" in said:
                answer.set_exception(RuntimeError(str(said["error"])))
            elif answer is not None:
                answer.set_result(said["result"])


class Page:
    """One tab."""

    def __init__(self, chrome: Chrome, context: str, session: str) -> None:
        self._chrome, self.context, self._session = chrome, context, session

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._chrome.call(method, self._session, **params)

    async def open(self, url: str) -> None:
        """Go there and wait until everything is loaded."""
        await self.call("Page.navigate", url=url)
        loaded = "new Promise((f) => document.readyState == 'complete' ? f(1) : addEventListener('load', f))"
        while await self.run(f"{loaded}.then(() => location.href)") != url:
            pass  # it is still the page before

    async def run(self, code: str) -> Any:
        """Value of an expression; a promise is awaited."""
        try:
            found = await self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        except RuntimeError:  # the page was left meanwhile
            return None
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

"""A page of a shop with the README's snippet, on an origin of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

KEY = "browser-key-0001"
PAGE = """<!doctype html><title>shop</title>
<script async src="{door}/v1/rivulet.js?key={key}"{more}></script>
<script>
  window.rivulet = window.rivulet || [];
  rivulet.push(["view_item", {{ item_id: "tent", items: [{{ item_id: "tent", price: 9.5 }}] }}]);
  rivulet.push(["user", "{user}"]);
</script>"""


def origin(port: int) -> str:
    """The origin of the page on a port of this machine."""
    return f"http://localhost:{port}"


@asynccontextmanager
async def serving(port: int, door: str) -> AsyncIterator[None]:
    """Serve ``/?user=...&consent=...``, which sends to `door`."""

    async def page(request: web.Request) -> web.Response:
        consent = request.query["consent"]
        more = f' data-consent="{consent}"' if consent else ""
        text = PAGE.format(door=door, key=KEY, user=request.query["user"], more=more)
        return web.Response(text=text, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "localhost", port).start()
    try:
        yield
    finally:
        await runner.cleanup()

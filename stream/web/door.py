"""The HTTP door: ``POST /v1/events`` and the browser's snippet, on the worker's port or the gateway's.

A request is let in (origin, key, rate), read, judged, charged for what it carries, sent, answered. Nothing of it is
dropped in silence: each element is acknowledged by Kafka, or its refusal is in the answer, or the answer says that
nothing was taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec
from aiohttp import web

from stream.errors import UnavailableError
from stream.inlet import Inlet
from stream.intake import Judged, Refusal, judge
from stream.settings import Settings
from stream.stats import Histogram
from stream.web.access import Access
from stream.web.inflating import inflate
from stream.web.limits import Account, Bill, Buckets, address_of, retry_after
from stream.web.refusing import TurnedAway
from stream.web.snippet import SNIPPET

RETRY_S: Final = 2.0  # how soon a request that met a full queue or an absent Kafka may come again
PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding",
    "Access-Control-Max-Age": "86400",
}
_encode: Final = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, omit_defaults=True):
    """What a request is answered with; `accepted` and `refused` add up to its elements."""

    accepted: int
    refused: list[Refusal] | None = None
    mapped: dict[str, int] | None = None


class Door:
    """Takes events over HTTP.

    Parameters
    ----------
    settings
        Limits and keys.
    inlet
        Where accepted events go.
    host
        Address of the port: one that is no loopback needs write keys.

    Attributes
    ----------
    most_bytes
        Longest body.
    requests
        Requests by status.
    events
        Elements by (source, outcome, reason): ``accepted``, ``refused`` with the reason, ``unsent`` (answered 503).
    mapped
        Accepted events of other shapes, by shape.
    took
        Duration of accepted requests, us.
    """

    def __init__(self, settings: Settings, inlet: Inlet, host: str) -> None:
        self._settings = settings
        self.most_bytes = settings.gateway_bytes
        self.inlet = inlet
        self.access = Access.of(settings, host)
        self._by_address, self._by_key = Buckets(settings.gateway_rate), Buckets(settings.gateway_key_rate)
        self.requests: Counter[int] = Counter()
        self.events: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        self.mapped: Counter[str] = Counter()
        self.took = Histogram()

    def routes(self) -> list[web.RouteDef]:
        """Its routes."""
        return [
            web.post("/v1/events", self.post),
            web.options("/v1/events", self.options),
            web.get("/v1/rivulet.js", self.snippet),
        ]

    async def post(self, request: web.Request) -> web.Response:
        """Take events."""
        cors: dict[str, str] = {}
        began = time.perf_counter_ns()
        try:
            cors = self.access.origin(request.headers.get("Origin", ""))
            answer = await self._take(request)
        except TurnedAway as verdict:
            return self._turn_away(verdict, cors)
        except UnavailableError as error:
            return self._turn_away(TurnedAway(503, str(error), RETRY_S), cors)
        self.took.add_one((time.perf_counter_ns() - began) // 1000)
        return self._answer(answer, cors)

    async def options(self, request: web.Request) -> web.Response:
        """Tell a browser whether a page may post."""
        try:
            cors = self.access.origin(request.headers.get("Origin", ""))
        except TurnedAway as verdict:
            return self._turn_away(verdict, {})
        return web.Response(status=204, headers=cors | PREFLIGHT)

    async def snippet(self, _: web.Request) -> web.Response:
        """The browser's part."""
        headers = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
        return web.Response(body=SNIPPET, content_type="text/javascript", charset="utf-8", headers=headers)

    async def _take(self, request: web.Request) -> Answer:
        source = self.access.source(request.headers.get("Authorization", ""), request.query.get("key", ""))
        bill = self._bill(request, source)
        bill.charge(1, time.monotonic())  # whatever it turns out to carry
        body = inflate(await self._body(request), request.headers.get("Content-Encoding", ""), self.most_bytes)
        judged = judge(
            body,
            time.time_ns(),
            self._settings.events_partitions,
            self._settings.gateway_events,
            _attributes(request.headers),
        )
        bill.charge(len(judged.entries) + len(judged.refused), time.monotonic())
        try:
            if judged.entries:
                await self.inlet.send(judged.entries)
        except UnavailableError:
            self.events[source, "unsent", ""] += len(judged.entries) + len(judged.refused)
            raise
        return self._count(source, judged)

    def _bill(self, request: web.Request, source: str) -> Bill:
        """What a request is charged, on the accounts of its address and of its write key."""
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", ()))  # some proxies add a line of their own
        address = address_of(request.remote, forwarded, self._settings.gateway_proxies)
        return Bill((Account(self._by_address, address, "address"), Account(self._by_key, source, "write key")))

    async def _body(self, request: web.Request) -> bytes:
        """The body as it was sent. It holds room for what has arrived, not for what may come: slow ones hold little."""
        most, patience_s = self.most_bytes, self._settings.gateway_body_s
        if (request.content_length or 0) > most:
            raise TurnedAway(413, f"the body is longer than {most} bytes")
        body = bytearray()
        with self.inlet.room.growing() as hold:
            try:
                async with asyncio.timeout(patience_s):
                    async for chunk in request.content.iter_any():
                        hold(len(chunk))
                        body += chunk
                        if len(body) > most:
                            raise TurnedAway(413, f"the body is longer than {most} bytes")
            except TimeoutError:
                raise TurnedAway(408, f"the body did not arrive within {patience_s:g} s") from None
            except ConnectionError:
                raise TurnedAway(400, "the connection ended before the body") from None
        return bytes(body)

    def _count(self, source: str, judged: Judged) -> Answer:
        self.events[source, "accepted", ""] += len(judged.entries)
        for refusal in judged.refused:
            self.events[source, "refused", refusal.reason] += 1
        self.mapped.update(judged.mapped)
        return Answer(len(judged.entries), judged.refused or None, judged.mapped or None)

    def _answer(self, answer: Answer, headers: Mapping[str, str]) -> web.Response:
        status = 202
        if not answer.accepted and answer.refused:  # too_large is said of a body only; too_many of an event
            status = 413 if answer.refused[0].reason == "too_large" else 400
        return self._say(status, _encode(answer), headers)

    def _turn_away(self, verdict: TurnedAway, headers: Mapping[str, str]) -> web.Response:
        more = dict(headers)
        if verdict.retry_s:
            more["Retry-After"] = retry_after(verdict.retry_s)
        if verdict.status == 401:
            more["WWW-Authenticate"] = "Bearer"
        return self._say(verdict.status, _encode({"error": verdict.error}), more)

    def _say(self, status: int, body: bytes, headers: Mapping[str, str]) -> web.Response:
        self.requests[status] += 1
        return web.Response(body=body, status=status, content_type="application/json", headers=headers)


def _attributes(headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
    """A CloudEvent's attributes in HTTP's binary mode, as Kafka's binary mode has them."""
    if "ce-specversion" not in headers:
        return []
    named = ((name.lower(), unquote(value)) for name, value in headers.items())
    # what is no UTF-8 is refused where it is read, like any other fault
    return [(f"ce_{name[3:]}", value.encode(errors="surrogatepass")) for name, value in named if name.startswith("ce-")]

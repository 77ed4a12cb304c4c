"""The synthetic shop as a producer: its catalogue, its offers and what its visitors do, on any Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final, Self

import msgspec
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from models.offers import encode_offer, load_offers
from stream.contact import why_not
from stream.demo.shop import Shop
from stream.errors import UnavailableError
from stream.kafka import client_options
from stream.settings import Settings

CONCURRENT: Final = 600
BEHIND_S: Final = 0.02  # what is due is published this often


class Traffic:
    """Publishes a shop; an async context manager.

    Parameters
    ----------
    settings
        Address, security and topic names.
    seed
        Of the shop: its draws.
    rate
        Events per second.

    Attributes
    ----------
    shop
        Whose events these are.
    sent
        Events handed over so far.
    """

    def __init__(self, settings: Settings, *, seed: int, rate: float) -> None:
        self._settings = settings
        self.rate = rate
        self.shop = Shop(seed=seed, start_ts_us=time.time_ns() // 1000, rate=rate, concurrent=CONCURRENT)
        self.sent = 0
        self.visitor = ""  # of the newest event
        self._source: Iterator[dict[str, Any]] = self.shop.events()

    async def __aenter__(self) -> Self:
        """Connect; raises as `contact.dial`."""
        options = client_options(self._settings)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka, acks="all", enable_idempotence=True, linger_ms=5, **options
        )
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise await why_not(self._settings.kafka, **options) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def stock(self) -> None:
        """Publish catalogue and offers."""
        for item in self.shop.catalogue():
            await self._send("items", msgspec.json.encode(item), item["item_id"])
        text = files("stream.demo").joinpath("offers.toml").read_text(encoding="utf-8")
        for offer in load_offers(text, "offers.toml"):
            await self._send("offers", encode_offer(offer), offer.id)
        await self.flush()

    async def step(self) -> None:
        """Publish the next event, as of now."""
        event = next(self._source)
        event["event_timestamp"] = time.time_ns() // 1000
        self.visitor = event.get("user_id") or event["user_pseudo_id"]
        await self._send("events", msgspec.json.encode(event), self.visitor)
        self.sent += 1

    async def run(self, stop: asyncio.Event, duration: float | None) -> None:
        """Let visitors act until told to stop or the time is over; returns when all of it is acknowledged."""
        began = time.monotonic()
        already = self.sent
        while not stop.is_set() and (duration is None or time.monotonic() - began < duration):
            due = int((time.monotonic() - began) * self.rate) - (self.sent - already)
            for _ in range(due):
                await self.step()
            await asyncio.sleep(BEHIND_S)
        await self.flush()

    async def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        await self._producer.flush()

    async def _send(self, role: str, value: bytes, key: str) -> None:
        try:
            await self._producer.send(self._settings.topic(role), value, key=key.encode())
        except KafkaError as error:
            raise UnavailableError(f"Kafka at {self._settings.kafka} does not take events: {error!r}") from error

"""The HTTP door's way into topic ``events``: bounded, acknowledged by all replicas, quick to say that Kafka is away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.errors import RivuletError, UnavailableError
from stream.events import MAX_RECORD_BYTES
from stream.flights import Flight, Room
from stream.intake import Entry
from stream.kafka import client_options
from stream.outage import Outage
from stream.settings import Settings

LINGER_MS: Final = 3  # company for records of different requests; part of every answer's time
BATCH_BYTES: Final = 131_072
RECORD_BYTES: Final = 1_024  # what a record that waits costs besides its value
BEAT_S: Final = 1.0
STOP_S: Final = 5.0
HUNG: Final = 3  # times the wait for an acknowledgement: a producer that is silent for so long is given up

log = structlog.get_logger(__name__)


class Inlet:
    """One idempotent producer for requests; started again if it breaks.

    What is sent and not acknowledged in time stays with the producer, which repeats it when the broker is back: it may
    arrive although its sender was told 503. The same event ids sent again are recognised as repeats.

    Parameters
    ----------
    settings
        Address, security and limits.
    name
        What it is called in log lines: ``<name>_away`` and ``<name>_back``.

    Attributes
    ----------
    room
        Bytes in hand.
    outage
        Whether Kafka is away.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._topic = settings.topic("events")
        self._ack_s = settings.gateway_ack_s
        self._producer: Any = None
        self._watch: asyncio.Task[None] | None = None
        self._broken = False
        self._under_way = 0
        self._moved = 0.0
        self.room = Room(settings.gateway_queue_mb * 1_048_576)
        self.outage = Outage(name)

    async def start(self) -> None:
        """Connect, or begin with an outage: the broker is asked again every second."""
        try:
            await self._connect()
        except (KafkaError, OSError) as error:
            self.outage.begin(f"{self._settings.kafka}: {error}")
        self._watch = asyncio.create_task(self._beat(), name="inlet")

    async def stop(self) -> None:
        """Send what is waiting, as long as the broker takes it at once, and disconnect."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
        await self._disconnect(STOP_S)

    @property
    def trouble(self) -> str:
        """Why nothing can be sent now; empty if it can."""
        return self.outage.trouble or ("" if self._producer is not None else "not connected to Kafka")

    async def send(self, entries: Sequence[Entry]) -> None:
        """Publish records in order and return when all are acknowledged by all replicas.

        Raises
        ------
        UnavailableError
            If there is no room, Kafka is away, or it does not answer in time.
        """
        producer = self._producer  # which may be another one by the time of the answer
        if self.trouble:
            raise UnavailableError("Kafka is away")  # where it is and why is for the log, not for a browser
        cost = sum(RECORD_BYTES + len(entry.value) for entry in entries)
        self.room.take(cost)
        flight = self._flight(cost)
        try:
            async with asyncio.timeout(self._ack_s):
                try:
                    for entry in entries:
                        flight.add(await producer.send(self._topic, entry.value, entry.key, entry.partition))
                finally:
                    flight.close()
                await flight.done
        except TimeoutError:
            self.outage.begin(f"no acknowledgement for {self._ack_s:g} s")
            raise UnavailableError("Kafka did not acknowledge in time") from None
        except KafkaError as error:
            raise self._refused(producer, error) from error
        if flight.error is not None:
            raise self._refused(producer, flight.error) from flight.error

    def _flight(self, cost: int) -> Flight:
        if not self._under_way:
            self._moved = time.monotonic()
        self._under_way += 1

        def landed() -> None:
            self.room.give(cost)
            self._under_way -= 1
            self._moved = time.monotonic()

        return Flight(landed)

    def _refused(self, producer: Any, error: BaseException) -> UnavailableError:
        """Begin an outage that ends when another producer is connected: aiokafka's does not recover from all errors."""
        if producer is self._producer:
            self._broken = True
            self.outage.begin(repr(error))
        return UnavailableError("Kafka did not take it")

    # -- connection --------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_batch_size=BATCH_BYTES,
            max_request_size=MAX_RECORD_BYTES + 65_536,
            compression_type=None if self._settings.compression == "none" else self._settings.compression,
            **client_options(self._settings),
        )
        try:
            await producer.start()
            await producer.partitions_for(self._topic)
        except BaseException:
            await producer.stop()
            raise
        self._producer, self._broken = producer, False

    async def _disconnect(self, patience_s: float) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            async with asyncio.timeout(patience_s):
                await producer.flush()
        except TimeoutError:
            producer._sender.sender_task.cancel()  # else stop() waits for a broker that may never return
            producer._message_accumulator.fail_all(KafkaError("the producer is closed"))  # else nobody is told
        await producer.stop()

    async def _beat(self) -> None:
        """Ask the broker again and again, so that its absence is known before somebody waits for it."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self._feel()
            except (TimeoutError, KafkaError, OSError, RivuletError) as error:  # certificates may just be replaced
                self.outage.begin(f"{self._settings.kafka}: {error or 'no answer in time'}")

    async def _feel(self) -> None:
        if self._broken:
            await self._disconnect(0)
        if self._producer is None:
            await self._connect()
        async with asyncio.timeout(max(BEAT_S, self._ack_s / 2)):
            answered = await self._producer.client.force_metadata_update()
        if not answered:
            raise KafkaError("no broker answers")
        silent_s = time.monotonic() - self._moved if self._under_way else 0.0
        self._broken = self._broken or silent_s > HUNG * self._ack_s
        if silent_s > self._ack_s:
            raise KafkaError("nothing is acknowledged")
        self.outage.end()

"""Publishing events: validated with the worker's own rules, placed by canonical user, acknowledged by all replicas."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from models.hashing import partition_of
from stream.contact import missing, why_not
from stream.drafts import prepare
from stream.errors import BadInputError, ConfigurationError, RivuletError, UnavailableError
from stream.events import MAX_RECORD_BYTES, Event

_REFUSALS: Final = (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    TopicAuthorizationFailedError,
    ValueError,
)


class Receipt(NamedTuple):
    """Where an acknowledged event stands in its topic."""

    partition: int
    offset: int


class EventProducer:
    """Publishes events to Kafka, in order per user, without duplicates from retries.

    Each event is judged by the code that the worker uses, so that what is accepted here never becomes a dead letter
    there (a clock that is over an hour wrong excepted). Missing ids (UUIDv7) and times are added; unknown fields are
    kept. Not for batches of several events in one record, and not for partition counts that change while it is open.

    Parameters
    ----------
    bootstrap
        Broker address, ``host:port``, several separated by commas.
    topic
        Name of the events topic; it must exist.
    linger_ms
        How long a record waits for company, ms. Higher: fewer, larger requests, later events; 0 for single sends.
    max_in_flight
        Most events of `send_soon` without an acknowledgement, at least 2; memory is about 0.5 kB for each plus
        their own size.
    timeout_s
        How long an event may stay without acknowledgement, s, before that is an error.
    clock
        Nanoseconds since 1970, for missing ids and times.
    options
        More options of ``AIOKafkaProducer``: ``compression_type``, ``security_protocol``, ``ssl_context``, ``sasl_*``.

    Examples
    --------
    >>> async def publish(address: str) -> None:
    ...     async with EventProducer(address) as producer:
    ...         await producer.send({"event_name": "view_item", "user_id": "u1", "item_id": "i1"})
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str = "events",
        *,
        linger_ms: int = 2,
        max_in_flight: int = 10_000,
        timeout_s: float = 30.0,
        clock: Callable[[], int] = time.time_ns,
        **options: Any,
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        own = {"linger_ms": linger_ms, "max_batch_size": 131_072, "request_timeout_ms": int(timeout_s * 1000)}
        self._options = {**own, **options}
        self._timeout_s = timeout_s
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._pending: deque[asyncio.Future[Any]] = deque()
        self._partitions = 0

    async def __aenter__(self) -> Self:
        """Connect and look the topic up.

        Raises
        ------
        UnavailableError
            If no broker answers.
        ConfigurationError
            If the topic does not exist or access is refused.
        """
        try:
            self._kafka = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                enable_idempotence=True,
                acks="all",
                max_request_size=MAX_RECORD_BYTES + 65_536,
                **self._options,
            )
        except ValueError as error:
            raise self._explained(error) from error
        try:
            await self._kafka.start()
            metadata = await self._kafka.client.fetch_all_metadata()
        except (KafkaError, OSError) as error:
            await self._kafka.stop()
            security = {
                name: value for name, value in self._options.items() if name.startswith(("security_", "ssl_", "sasl_"))
            }
            raise await why_not(self._bootstrap, **security) from error
        self._partitions = len(metadata.partitions_for_topic(self._topic) or ())
        if not self._partitions:
            await self._kafka.stop()
            raise self._explained(UnknownTopicOrPartitionError())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Send what is still waiting and close; a failed send is raised unless another error is on its way."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._kafka.flush()
        except TimeoutError:
            # An idempotent aiokafka producer repeats a request for ever, and its stop() waits for that.
            self._kafka._sender.sender_task.cancel()
        await self._kafka.stop()
        answers = [f.exception() if f.done() else KafkaTimeoutError() for f in self._pending]
        self._pending.clear()
        for error in filter(None, answers if kind is None else ()):
            raise self._explained(error) from error

    async def send(self, event: Event | Mapping[str, Any] | bytes, timestamp_ms: int | None = None) -> Receipt:
        """Publish one event and wait until all replicas have it.

        Parameters
        ----------
        event
            An `Event`, its fields, or its JSON. Never changed.
        timestamp_ms
            Time of the record, ms since 1970; by default now. A topic stamped by the broker (Rivulet's own are) ignores
            it.

        Returns
        -------
        Receipt
            Partition and offset.

        Raises
        ------
        BadInputError
            If the worker would refuse the event; names the field. Nothing is sent.
        UnavailableError
            If no broker acknowledges in time. It may have arrived even so: sending the *same* event id again is safe.
        ConfigurationError
            If access is refused.
        """
        done = await self._acknowledged(await self._submit(event, timestamp_ms))
        return Receipt(done.partition, done.offset)

    async def send_soon(self, event: Event | Mapping[str, Any] | bytes, timestamp_ms: int | None = None) -> None:
        """Publish one event without waiting for its acknowledgement; waits only while too many are in flight.

        A failure of an earlier event is raised by a later `send_soon` or by `flush`. Parameters and errors as for
        `send`. About 14 us of CPU.
        """
        if len(self._pending) >= self._max_in_flight:
            await self._settle(self._max_in_flight // 2)
        self._pending.append(await self._submit(event, timestamp_ms))

    async def forward(
        self,
        value: bytes,
        key: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> None:
        """Publish a record as it stands, not judged, in the partition of its key; else as `send_soon`.

        For what was in a topic before: recorded, or in the dead letters.
        """
        if len(self._pending) >= self._max_in_flight:
            await self._settle(self._max_in_flight // 2)
        now_ms = self._clock() // 1_000_000
        self._pending.append(await self._put(key, value, timestamp_ms or now_ms, list(headers)))

    async def flush(self) -> None:
        """Wait until every event is acknowledged.

        Raises
        ------
        UnavailableError, ConfigurationError
            If one of them was not.
        """
        await self._settle(0)

    async def _submit(self, event: Event | Mapping[str, Any] | bytes, timestamp_ms: int | None) -> asyncio.Future[Any]:
        now_ns = self._clock()
        key, value = prepare(event, now_ns, timestamp_ms)
        return await self._put(key, value, timestamp_ms or now_ns // 1_000_000, [])

    async def _put(
        self, key: bytes | None, value: bytes, timestamp_ms: int, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[Any]:
        try:
            future: asyncio.Future[Any] = await self._kafka.send(
                self._topic,
                value,
                key=key,
                partition=partition_of(key or b"", self._partitions),
                timestamp_ms=timestamp_ms,
                headers=headers,
            )
        except KafkaError as error:
            raise self._explained(error) from error
        return future

    async def _settle(self, keep: int) -> None:
        """Wait for the oldest acknowledgements until ``keep`` are left."""
        while len(self._pending) > keep:
            await self._acknowledged(self._pending.popleft())

    async def _acknowledged(self, future: asyncio.Future[Any]) -> Any:
        if not future.done():
            await asyncio.wait((future,), timeout=self._timeout_s)
        try:
            if not future.done():
                raise KafkaTimeoutError
            return future.result()
        except KafkaError as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> RivuletError:
        """Turn aiokafka's error into one line that says what to do."""
        if isinstance(error, UnknownTopicOrPartitionError):
            return missing(self._topic)
        if isinstance(error, _REFUSALS):
            return ConfigurationError(
                f"Kafka at {self._bootstrap} refuses to take events: {error or type(error).__name__}"
            )
        if isinstance(error, MessageSizeTooLargeError):
            return BadInputError(f"topic {self._topic} takes no records of this size: {error}")
        if isinstance(error, KafkaTimeoutError):
            return UnavailableError(f"Kafka at {self._bootstrap} acknowledged nothing for {self._timeout_s:g} s")
        return UnavailableError(f"Kafka at {self._bootstrap} did not take the events: {error}")

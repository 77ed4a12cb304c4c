"""Sends the stages' records, idempotent and each acknowledged, so that a shard's sends are a gapless prefix."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)

from stream.errors import ConfigurationError, UnavailableError
from stream.kafka import client_options
from stream.settings import Settings
from stream.stages.sends import Send

MAX_RECORD = 8 * 1_048_576
ACK_S = 30.0  # without an answer for so long, the shard is reloaded and tried again
STOP_S = 1.0
LINGER_MS = 3  # answers are awaited beside the writes to Redis; what the partitions of one fetch send travels together
AT_ONCE = 2_000  # most records, and
AT_ONCE_BYTES = 16 * 1_048_576  # bytes that are sent before their acknowledgements are awaited

# What waiting does not cure: whoever runs the broker must change something.
REFUSALS: Final = (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    InvalidTimestampError,
    InvalidTopicError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedForMessageFormatError,
)


class Publisher:
    """One idempotent producer for everything the worker sends.

    Parameters
    ----------
    settings
        Addresses, security and topic names.

    Attributes
    ----------
    acked
        Highest acknowledged offset by (role, partition).

    Notes
    -----
    About 20 us of CPU per record when several are awaited together.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: Any = None
        self.acked: dict[tuple[str, int], int] = {}

    async def start(self) -> None:
        """Connect."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.kafka,
            acks="all",
            enable_idempotence=True,
            linger_ms=LINGER_MS,
            max_request_size=MAX_RECORD,
            compression_type=None if self._settings.compression == "none" else self._settings.compression,
            request_timeout_ms=30_000,
            **client_options(self._settings),
        )
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect; what is not acknowledged is of no interest any more."""
        if self._producer is None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await self._producer.flush()
        except TimeoutError:
            self._producer._sender.sender_task.cancel()  # else stop() waits for a broker that may never return
        await self._producer.stop()

    async def send(self, sends: Sequence[Send]) -> None:
        """Publish records in order and return when all are acknowledged.

        Raises
        ------
        UnavailableError
            If one was not acknowledged: the caller's shard must be reloaded, nothing later may be sent from it.
        ConfigurationError
            If one was refused for good.
        """
        for some in chunks(sends):
            await self._send(some)

    async def _send(self, sends: Sequence[Send]) -> None:
        roles = "/".join(sorted({send.role for send in sends}))
        try:
            async with asyncio.timeout(ACK_S):  # an idempotent aiokafka producer itself waits for ever
                futures = [await self._enqueue(send) for send in sends]
                acks = await asyncio.gather(*futures)
        except REFUSALS as error:
            largest = max(len(send.value) for send in sends)
            raise ConfigurationError(
                f"Kafka refuses records for {roles} (the largest has {largest} bytes), which waiting does not cure:"
                f" {error!r}; check the topic's max.message.bytes and this worker's rights"
            ) from error
        except (KafkaError, TimeoutError) as error:
            raise UnavailableError(f"Kafka did not acknowledge {len(sends)} records for {roles}: {error!r}") from error
        for send, metadata in zip(sends, acks, strict=True):
            self.acked[send.role, metadata.partition] = metadata.offset

    async def _enqueue(self, send: Send) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = await self._producer.send(
            self._settings.topic(send.role),
            value=send.value,
            key=send.key,
            partition=send.partition,
            timestamp_ms=send.timestamp_ms,
            headers=list(send.headers),
        )
        return future


def chunks(sends: Sequence[Send]) -> Iterator[Sequence[Send]]:
    """The same records in order, so many at once that a broker which works acknowledges them in time."""
    start = size = 0
    for at, send in enumerate(sends):
        if at > start and (at - start >= AT_ONCE or size + len(send.value) > AT_ONCE_BYTES):
            yield sends[start:at]
            start, size = at, 0
        size += len(send.value)
    if start < len(sends):
        yield sends[start:]

"""What every worker must know: catalogue, offers and models, read by a consumer without a group from the beginning."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from stream.errors import RivuletError
from stream.kafka import groupless_consumer
from stream.settings import Settings

log = structlog.get_logger(__name__)

IDLE_MS: Final = 1_000
AT_ONCE: Final = 25  # records, of up to 0.1 ms each, between which others have their turn

Take = Callable[[bytes, bytes | None], None]


class Broadcast:
    """Feeds records of compacted topics to handlers; `caught_up` is set once everything there was at the start is in.

    Parameters
    ----------
    settings
        Addresses, security and topic names.
    handlers
        By topic role: called with a record's key and value (None = withdrawn), in order. A handler that raises
        `RivuletError` or `ValueError` refuses that record: it is logged and skipped.
    """

    def __init__(self, settings: Settings, handlers: Mapping[str, Take]) -> None:
        self._settings = settings
        self._handlers = {settings.topic(role): handler for role, handler in handlers.items()}
        self._consumer: Any = None
        self.caught_up = asyncio.Event()
        self.read = 0
        self.refused = 0

    async def start(self) -> None:
        """Connect and take every partition from its beginning."""
        self._consumer = await groupless_consumer(self._settings, self._handlers)

    async def run(self) -> None:
        """Read for ever."""
        ends = await self._consumer.end_offsets(self._consumer.assignment())
        waiting = {partition for partition, end in ends.items() if end > 0}
        while True:
            for partition in list(waiting):
                if await self._consumer.position(partition) >= ends[partition]:
                    waiting.discard(partition)
            if not waiting:
                self.caught_up.set()
            fetched = await self._consumer.getmany(timeout_ms=IDLE_MS)
            for partition, records in fetched.items():
                for n, record in enumerate(records, 1):
                    self._take(partition.topic, record)
                    if n % AT_ONCE == 0:
                        await asyncio.sleep(0)

    def _take(self, topic: str, record: Any) -> None:
        self.read += 1
        try:
            self._handlers[topic](record.key or b"", record.value)
        except (RivuletError, ValueError, RecursionError) as error:  # it comes again at every start
            self.refused += 1
            log.warning("broadcast_refused", topic=topic, offset=record.offset, reason=str(error))

    def answered(self) -> tuple[int | None, ...]:
        """Times of the brokers' last answers: the same again and again if none answers any more."""
        if self._consumer is None:
            return ()
        return tuple(self._consumer.last_poll_timestamp(partition) for partition in self._consumer.assignment())

    async def partitions(self) -> dict[str, int]:
        """Partition counts of all topics that exist now; asking for names could create them on a lenient broker."""
        cluster = await self._consumer._client.fetch_all_metadata()
        return {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in cluster.topics()}

    async def stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

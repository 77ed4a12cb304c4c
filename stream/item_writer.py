"""Topic ``items`` -> Redis keys ``item:<item>``: what readers must know of an item before they show it.

Lists name items by id and stand for days; the catalogue changes meanwhile. To rank every list again that names an item
would cost a popular item's change as much as all its visitors; so readers ask for the few items that they show.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
from aiokafka import TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.catalogue import decode_record, details_of
from stream.errors import RivuletError
from stream.kafka import groupless_consumer
from stream.keys import WITHDRAWN_TTL_S
from stream.resp import WriteBatch
from stream.troubles import Troubles

if TYPE_CHECKING:
    from stream.app import Worker

LOOK_S: Final = 0.25
IDLE_MS: Final = 1_000  # a record is taken at once; idle rounds cost
RECORDS: Final = 2_000  # per flush
REVIEW_S: Final = 2.0  # between two looks for what another has written
WORK: Final = "write_items"

log = structlog.get_logger(__name__)


class ItemProgress(msgspec.Struct, frozen=True, rename={"begin": "from"}):
    """How far a partition of topic ``items`` is written: value of its field in `rv:meta`.

    Attributes
    ----------
    next
        First offset that is not.
    begin
        First offset of the last batch.
    writer
        Who wrote it, by a random name.
    """

    next: int
    begin: int = 0
    writer: str = ""


_decode: Final = msgspec.json.Decoder(ItemProgress).decode


class ItemWriter:
    """Writes the catalogue's changes, if this worker is the one to do it: the owner of topic ``global``.

    How far it has come stands in `rv:meta` beside what it wrote: a successor goes on with the last batch, and where
    Redis lost the one it lost the other, and all is written again.

    A worker may be frozen with older values under way that reach Redis after its successor's. So a successor writes
    again what follows the point where it took over, once two sessions have passed; and whoever finds in `rv:meta` that
    another has written since goes back to where that one's batch began, however late it came.

    Parameters
    ----------
    worker
        Whose settings, store and shards it uses.
    clock
        Monotonic seconds.

    Notes
    -----
    Keeps nothing of the catalogue. About 5 us of CPU per changed item; a change is in Redis within about 0.2 s.
    """

    def __init__(self, worker: Worker, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._name = secrets.token_hex(8)
        self._topic = worker.settings.topic("items")
        self._told: dict[TopicPartition, bytes | None] = {}
        self._again = False
        self._troubles = Troubles()

    def start_over(self) -> None:
        """Redis may have lost anything: write the whole catalogue again."""
        self._again = True

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            if not self._may_write():
                continue
            try:
                await self._follow()
            except (RivuletError, KafkaError, OSError) as error:
                self._troubles.failed(WORK, error)

    def _may_write(self) -> bool:
        return self._worker.globe.owned and self._worker.host.may_write()

    async def _follow(self) -> None:
        """Write what comes for as long as this worker is the one to do it."""
        consumer = await groupless_consumer(self._worker.settings, [self._topic])
        try:
            began = await self._resume(consumer)
            rewrite_at = self._clock() + 2 * self._worker.settings.session_s
            look_at = self._clock() + REVIEW_S
            while self._may_write():
                if self._again:
                    self._again = False
                    await consumer.seek_to_beginning()
                if self._clock() >= rewrite_at:
                    rewrite_at = math.inf
                    await _go_back(consumer, began)
                if self._clock() >= look_at:
                    look_at = self._clock() + REVIEW_S
                    await _go_back(consumer, await self._overtaken())
                fetched = await consumer.getmany(timeout_ms=IDLE_MS, max_records=RECORDS)
                if fetched and self._may_write():
                    await self._write(fetched)
                self._troubles.done(WORK)
        finally:
            await consumer.stop()

    async def _resume(self, consumer: Any) -> dict[TopicPartition, int]:
        """Go to where the last batch began: it may have come late, and have replaced what was newer.

        A topic that ends before that was made anew and is read from its start.
        """
        began = {}
        for partition, end in (await consumer.end_offsets(consumer.assignment())).items():
            told = self._told[partition] = await self._ask(partition)
            progress = _decode(told) if told else ItemProgress(0)
            began[partition] = progress.begin if progress.next <= end else 0
            if began[partition]:
                consumer.seek(partition, began[partition])
        return began

    async def _ask(self, partition: TopicPartition) -> bytes | None:
        return await self._worker.store.hget(self._worker.keys.meta, _field(partition))

    async def _overtaken(self) -> dict[TopicPartition, int]:
        """Partitions in which another has written since, each with where that began."""
        found = {}
        for partition, last in self._told.items():
            told = await self._ask(partition)
            if told is not None and told != last:  # what is gone is the business of whoever noticed it
                log.warning("items_may_be_older", partition=partition.partition, then="written again")
                found[partition], self._told[partition] = _decode(told).begin, told
        return found

    async def _write(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        newest = {record.key: record for records in fetched.values() for record in records if record.key is not None}
        writes, progress = WriteBatch(), WriteBatch()
        for record in newest.values():
            _put(writes, self._worker.keys.item, record)
        await self._worker.store.flush(writes)
        told = {
            partition: msgspec.json.encode(ItemProgress(records[-1].offset + 1, records[0].offset, self._name))
            for partition, records in fetched.items()
        }
        progress.hset(self._worker.keys.meta, {_field(partition): value for partition, value in told.items()}, None)
        await self._worker.store.flush(progress)  # only now: a batch has no order; and told even if it came too late
        self._told |= told
        self._troubles.done(WORK)
        self._worker.stats.keys(len(writes))


async def _go_back(consumer: Any, offsets: dict[TopicPartition, int]) -> None:
    """Read again from these offsets, as far as they were read."""
    for partition, at in offsets.items():
        consumer.seek(partition, min(at, await consumer.position(partition)))


def _put(writes: WriteBatch, key: Any, record: Any) -> None:
    """One item's write; a record that is not valid is skipped, as the workers' broadcast has logged it."""
    try:
        name, item = decode_record(record.key, record.value)
    except ValueError:
        return
    writes.set(key(name), details_of(item, record.timestamp), WITHDRAWN_TTL_S if item is None else None)


def _field(partition: TopicPartition) -> bytes:
    return f"{partition.topic}-{partition.partition}".encode()

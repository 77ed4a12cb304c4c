"""Topic ``items`` -> Redis keys ``item:<item>``: what readers must know of an item before they show it.

Lists name items by id and stand for days; the catalogue changes meanwhile. To rank every list again that names an item
would cost a popular item's change as much as all its visitors; so readers ask for the few items that they show.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiokafka import TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.catalogue import decode_item, details_of
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
WORK: Final = "write_items"


class ItemWriter:
    """Writes the catalogue's changes, if this worker is the one to do it: the owner of topic ``global``.

    How far it has come stands in `rv:meta` beside what it wrote: a successor goes on there, and where Redis lost the
    one it lost the other, and all is written again.

    Parameters
    ----------
    worker
        Whose settings, store and shards it uses.

    Notes
    -----
    Keeps nothing of the catalogue. About 5 us of CPU per changed item; a change is in Redis within about 0.2 s.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._topic = worker.settings.topic("items")
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
            await self._resume(consumer)
            self._troubles.done(WORK)
            while self._may_write():
                if self._again:
                    self._again = False
                    await consumer.seek_to_beginning()
                fetched = await consumer.getmany(timeout_ms=IDLE_MS, max_records=RECORDS)
                if fetched and self._may_write():
                    await self._write(fetched)
        finally:
            await consumer.stop()

    async def _resume(self, consumer: Any) -> None:
        """Go to where the last writer was; a topic that ends before that was made anew and is read from its start."""
        ends = await consumer.end_offsets(consumer.assignment())
        for partition, end in ends.items():
            told = await self._worker.store.hget(self._worker.keys.meta, _field(partition))
            at = msgspec.json.decode(told)["next"] if told else 0
            if 0 < at <= end:
                consumer.seek(partition, at)

    async def _write(self, fetched: dict[TopicPartition, list[Any]]) -> None:
        newest = {record.key: record for records in fetched.values() for record in records if record.key is not None}
        writes, progress = WriteBatch(), WriteBatch()
        for record in newest.values():
            _put(writes, self._worker.keys.item, record)
        await self._worker.store.flush(writes)
        fields = {
            _field(partition): msgspec.json.encode({"next": records[-1].offset + 1})
            for partition, records in fetched.items()
        }
        progress.hset(self._worker.keys.meta, fields, None)
        await self._worker.store.flush(progress)  # only now: a batch has no order
        self._troubles.done(WORK)
        self._worker.stats.keys(len(writes))


def _put(writes: WriteBatch, key: Any, record: Any) -> None:
    """One item's write; a record that is not valid is skipped, as the workers' broadcast has logged it."""
    try:
        item = None if record.value is None else decode_item(record.value)
        name = record.key.decode() if item is None else item.item_id
    except ValueError:
        return
    writes.set(key(name), details_of(item, record.timestamp), WITHDRAWN_TTL_S if item is None else None)


def _field(partition: TopicPartition) -> bytes:
    return f"{partition.topic}-{partition.partition}".encode()

"""The thread that talks to Kafka for the consumer: fetches with epochs, exact commits, the group's signs of life."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol, TypeVar, cast

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata  # type: ignore[import-untyped]  # no py.typed
from aiokafka.consumer.fetcher import FetchError, PartitionRecords  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import ConsumerStoppedError, KafkaError  # type: ignore[import-untyped]  # no py.typed
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest  # type: ignore[import-untyped]  # no py.typed
from aiokafka.structs import TopicPartition  # type: ignore[import-untyped]  # no py.typed
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread

from stream.fetches import TP, ConsumerRecord, Fetch, Log
from stream.inbox import Inbox

T = TypeVar("T")
NEVER_SOUGHT: Final = 0
REBALANCE_IN_PROGRESS: Final = 27
# Milliseconds that the broker may hold a fetch which finds nothing; new records answer it at once. There is one fetch
# per broker at a time, so a partition that is left out of it waits as long (Faust hard-codes 1.5 s: beside an agent
# that takes 200 ms a batch, p99 was 94 ms). One that asks for all keeps nobody waiting, and each costs .4 ms of CPU.
FULL_WAIT_MS: Final = 50  # the demo's broker answers only at its end: with 250 its lists were 120 ms old
PARTIAL_WAIT_MS: Final = 20  # with 4, twice the requests took the worker's and the broker's time: p50 57 ms, not 33
PREFETCH_BACKOFF_S: Final = 0.005
# A fetch and the batches it makes cost worker and broker about 2 ms. Under load fewer are better: every 2 ms, p99 at
# 5,000 events/s was half as long again. While they bring little there is time for more, and waiting is all there is.
FETCH_EVERY_S: Final = 0.008
SMALL_FETCH_EVERY_S: Final = 0.004
SMALL_FETCH: Final = 16  # records


class Owner(Protocol):
    """What the thread sees of its consumer beside what Faust's thread sees."""

    inbox: Inbox


class BatchThread(AIOKafkaConsumerThread):
    """Faust's consumer thread with seek epochs, exact commits and the time of the last answer of the group."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tags: dict[TP, tuple[int, int]] = {}
        self.answered_at = -float("inf")
        self.inbox = cast(Owner, self.consumer).inbox

    async def on_start(self) -> None:
        """Look over aiokafka's shoulder: how long it lets a fetch wait, and when the group last answered."""
        await super().on_start()
        consumer = self._ensure_consumer()
        self._fetch_eagerly(consumer._fetcher)
        send = consumer._coordinator._send_req

        async def send_and_note(request: Any) -> Any:
            # aiokafka keeps the time of the last good heartbeat in a local variable. The time of *sending* counts:
            # the broker's session clock started no earlier, even if this process was frozen before the answer.
            sent = time.monotonic()
            response = await send(request)
            alive = isinstance(request, HeartbeatRequest | SyncGroupRequest)
            if alive and response.error_code in (0, REBALANCE_IN_PROGRESS):
                self.answered_at = sent
            return response

        consumer._coordinator._send_req = send_and_note

    def _fetch_eagerly(self, fetcher: Any) -> None:
        """Have everything that was fetched delivered before the next fetch is planned, so that it leaves nothing out.

        There is one fetch per broker at a time. Left out is only what has no room, and that fetch waits but briefly.
        """
        fetcher._prefetch_backoff = PREFETCH_BACKOFF_S
        plan = fetcher._get_actions_per_node
        fetched_at: dict[int, float] = {}  # by broker
        every_s = FETCH_EVERY_S

        def deliver_and_plan(assignment: Any) -> Any:
            nonlocal every_s
            if brought := self.deliver(fetcher):
                every_s = SMALL_FETCH_EVERY_S if brought < SMALL_FETCH else FETCH_EVERY_S
            fetcher._fetch_max_wait_ms = PARTIAL_WAIT_MS if fetcher._records else FULL_WAIT_MS
            fetches, resets, pause_s, *others = plan(assignment)
            now, due = time.monotonic(), []
            for node, request in fetches:
                early_s = fetched_at.get(node, 0.0) + every_s - now
                if early_s <= 0:
                    fetched_at[node] = now
                    due.append((node, request))
                else:
                    pause_s = min(pause_s, early_s)
            return due, resets, pause_s, *others

        fetcher._get_actions_per_node = deliver_and_plan

    def deliver(self, fetcher: Any) -> int:
        """Put what aiokafka has fetched into the inbox, as far as there is room, with the epoch it was read in.

        Returns how many records these were.

        Seeks run in this thread, too, and nothing is awaited between taking and tagging: the tag is exact.
        """
        consumer, inbox, delivered = self._ensure_consumer(), self.inbox, 0
        with fetcher._subscriptions.fetch_context():  # aiokafka would leave a group for whom nobody takes records
            for tp, result in list(fetcher._records.items()):
                if isinstance(result, FetchError):
                    del fetcher._records[tp]
                    self._fail(result._error)
                    continue
                try:
                    while result.has_more() and inbox.has_room(tp):
                        records = result.getall(consumer._max_poll_records)
                        if records:
                            inbox.put(self._tag(consumer, TP(*tp), records))
                            delivered += len(records)
                except Exception as error:  # noqa: BLE001  # raised further it would end aiokafka's task without a word
                    del fetcher._records[tp]
                    inbox.fail(error)  # a checksum or compression that does not fit, for one
                    continue
                if not result.has_more():
                    del fetcher._records[tp]
        return delivered

    def wake_up(self) -> None:
        """Have what had no room delivered; called from another thread."""
        self.thread_loop.call_soon_threadsafe(self._plan_again)

    def _plan_again(self) -> None:
        fetcher = self._ensure_consumer()._fetcher
        fetcher._notify(fetcher._wait_consume_future)

    def _fail(self, error: KafkaError) -> None:
        try:
            self._rejoin_after(error)
        except KafkaError as fatal:
            self.inbox.fail(fatal)

    def _tag(self, consumer: AIOKafkaConsumer, tp: TP, records: list[ConsumerRecord]) -> Fetch:
        epoch, number = self._tags.get(tp, (NEVER_SOUGHT, 0))
        self._tags[tp] = (epoch, number + 1)
        state = consumer._subscription.subscription.assignment.state_value(tp)
        known = state.highwater if state is not None else None
        return Fetch(tp, records, epoch, number, max(known or 0, records[-1].offset + 1))

    def log_of(self, tp: TP) -> Log | None:
        """See the consumer's. Called from another thread: reads single attributes only, perhaps around a seek."""
        subscription = None if self._consumer is None else self._consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or tp not in assignment.tps:
            return None
        state = assignment.state_value(tp)
        position = state._position  # None while the broker is asked where the log starts
        if state.highwater is None or position is None:
            return None
        epoch, fetches = self._tags.get(tp, (NEVER_SOUGHT, 0))
        return Log(state.highwater, position, fetches, state.timestamp, epoch)

    async def ask_log(self, tp: TP) -> Log | None:
        """See `log_of`; all of one moment: seeks and deliveries are steps of this thread, too."""
        return self.log_of(tp)

    async def check_group(self) -> None:
        """Take up an error of the group; aiokafka waits, without heartbeats, until somebody looks. Faust never does."""
        try:
            self._ensure_consumer()._coordinator.check_errors()
        except KafkaError as error:
            self._rejoin_after(error)

    def _rejoin_after(self, error: KafkaError) -> None:
        """Join again after what ended the heartbeats (a broker still loading its groups); raise what needs a human."""
        coordinator = self._ensure_consumer()._coordinator
        if type(error) is not KafkaError or coordinator._coordination_task.done():
            raise error
        self.log.warning("Joining the group again: %r", error)
        coordinator.request_rejoin()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run in the consumer's loop, past Faust's queue: its two workers may both be waiting for a dead broker."""
        if self.thread_loop.is_closed():
            coroutine.close()
            raise ConsumerStoppedError
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self.thread_loop))

    async def seek_shards(self, positions: Mapping[TP, tuple[int, int]]) -> None:
        """Move to {partition: (offset, epoch)}; partitions no longer assigned are left out."""
        consumer = self._ensure_consumer()
        for tp, (offset, epoch) in positions.items():
            if tp in consumer.assignment():
                consumer.seek(TopicPartition(*tp), offset)
                self._tags[tp] = (epoch, 0)
        self.inbox.drop(positions)

    async def commit_exactly(self, offsets: Mapping[TP, int], within_s: float) -> bool:
        """Commit; False if the group refused, the broker did not answer or nothing of it is ours."""
        consumer = self._ensure_consumer()
        assigned = consumer.assignment()
        ours = {TopicPartition(*tp): OffsetAndMetadata(at, "") for tp, at in offsets.items() if tp in assigned}
        if not ours or consumer._coordinator.generation < 0:
            return False
        try:
            async with asyncio.timeout(within_s):
                await consumer.commit(ours)
        except (KafkaError, TimeoutError) as error:
            self.log.info("Commit refused, the snapshots count: %r", error)
            return False
        return True

    async def find_log_start(self, tp: TP, within_s: float) -> int:
        """Oldest offset the broker still has."""
        async with asyncio.timeout(within_s):
            starts = await self._ensure_consumer().beginning_offsets([TopicPartition(*tp)])
        return cast(int, starts[tp])

    async def find_committed(self, tp: TP, within_s: float) -> int | None:
        """Offset that the group has committed, None if it never has."""
        async with asyncio.timeout(within_s):
            return cast(int | None, await self._ensure_consumer().committed(TopicPartition(*tp)))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust's check compares clocks of different origin and counts acks that batches do not make."""


def _light_record(_: PartitionRecords, tp: TopicPartition, record: Any) -> ConsumerRecord:
    what = (tp.topic, tp.partition, record.offset, record.timestamp, record.timestamp_type)
    return ConsumerRecord(*what, record.key, record.value, tuple(record.headers))


# For every consumer of this process: aiokafka names its own class inside the loop over a fetch.
PartitionRecords._consumer_record = _light_record

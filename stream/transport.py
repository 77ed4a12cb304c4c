"""The batch transport: one Kafka fetch of one partition travels through Faust as one message.

Stock Faust spends about 60 us on every record before user code runs; here that price is paid once per fetch. Faust
still owns membership, rebalancing, flow control and back-pressure; this module replaces what it gets wrong with
batches: the way back to a position (no question to the broker, so a broker outage cannot stall it), the commit (exact
offsets chosen by the caller; Faust counts single ones) and the tag that tells a fetch of before a seek from one after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

import faust
from aiokafka.errors import ConsumerStoppedError  # type: ignore[import-untyped]  # no py.typed
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import AppT, ConsumerMessage

from stream.consumer_thread import BatchThread
from stream.fetches import TP, ConsumerRecord, Fetch, Log
from stream.inbox import Inbox

__all__ = ["TP", "BatchConsumer", "BatchTransport", "ConsumerRecord", "Fetch", "Log", "batch_topic", "faust_settings"]

ARRIVAL_S: Final = 0.5  # so often, at most, the group is looked after
# A changed partition count or a deleted topic is noticed after so long; aiokafka's default is 5 minutes.
METADATA_MS: Final = 15_000


class _Unfiltered(dict[TP, int | None]):
    """Stands for Faust's read offsets, which would drop what a seek back delivers again; shards check by themselves."""

    def __getitem__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        pass


class BatchConsumer(Consumer):
    """Faust's consumer that yields one message per partition and fetch; its value is a :class:`Fetch`."""

    _thread: BatchThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _Unfiltered()
        self._looked_at = 0.0

    def _new_consumer_thread(self) -> BatchThread:
        loop = self.loop
        most = self.app.conf.broker_max_poll_records
        self.inbox = Inbox(
            most,
            arrived=lambda: loop.call_soon_threadsafe(self.inbox.wake_up),
            made_room=lambda: self._thread.wake_up(),
        )
        return BatchThread(self, loop=loop, beacon=self.beacon)

    def on_buffer_drop(self, tp: TP) -> None:
        """Take what waits of a partition that an agent has room for again."""
        super().on_buffer_drop(tp)
        self.inbox.wake_up()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Take what waits of partitions that were paused."""
        super().resume_partitions(tps)
        self.inbox.wake_up()

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand on what the thread delivers, as it comes, while records flow.

        Faust's own starts four tasks and asks the thread for every message. What came while flow was suspended is kept
        until it resumes: it may have been read after the seek that precedes that.
        """
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self._wait_for_flow()
                fetches = self.inbox.take(self._get_active_partitions())
                for fetch in fetches:  # one of each partition: its agent's queue has room for one
                    await self.callback(self._to_message(fetch.tp, fetch))
                await (asyncio.sleep(0) if fetches else self.inbox.arrival(ARRIVAL_S))
                await self._look_after_group()
        except (ConsumerStoppedError, asyncio.CancelledError):
            if not self.transport.app.should_stop:  # Faust takes a cancelled fetcher for a crash
                raise

    async def _look_after_group(self) -> None:
        now = time.monotonic()
        if now - self._looked_at > ARRIVAL_S:
            self._looked_at = now
            await self._thread.run(self._thread.check_group())

    async def _wait_for_flow(self) -> None:
        while not self.flow_active and not self.should_stop:
            flow: Any = self.can_resume_flow  # asyncio's event, for which mode's type has no room
            await self.wait(flow, timeout=ARRIVAL_S)
            await self._look_after_group()  # an error of the group may be why it is stopped

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        message = super()._to_message(tp, record.records[-1])
        message.key, message.value, message.headers = None, record, []
        return message

    async def perform_seek(self) -> None:
        """Move to where the shards are, without asking the broker."""
        await self.seek_shards(cast(BatchTransport, self.transport).positions())

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Nothing: only :meth:`commit_exactly` commits, after a snapshot."""
        return False

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing, see the thread's."""

    async def seek_shards(self, positions: Mapping[TP, tuple[int, int]]) -> None:
        """Move to {partition: (offset, epoch)}; every later fetch of it carries this epoch.

        Never waits for the broker; an offset that the broker no longer has is answered with the log's start.
        """
        await self._thread.run(self._thread.seek_shards(positions))

    async def commit_exactly(self, offsets: Mapping[TP, int], within_s: float) -> bool:
        """Commit these offsets within ``within_s`` seconds; False, never an error, if that was not possible."""
        try:
            async with asyncio.timeout(within_s + 0.5):  # the thread itself may be gone
                return await self._thread.run(self._thread.commit_exactly(offsets, within_s))
        except (TimeoutError, ConsumerStoppedError):
            return False

    async def log_start(self, tp: TP, within_s: float) -> int:
        """Oldest offset that the broker still has; KafkaError or TimeoutError if it does not tell."""
        return await self._thread.run(self._thread.find_log_start(tp, within_s))

    async def committed(self, tp: TP, within_s: float) -> int | None:
        """Offset that the group has committed, None if it never has; KafkaError or TimeoutError as of `log_start`."""
        return await self._thread.run(self._thread.find_committed(tp, within_s))

    async def ask_log(self, tp: TP, within_s: float) -> Log | None:
        """See `log_of`, all of one moment; None, too, if the thread does not tell."""
        try:
            async with asyncio.timeout(within_s):
                return await self._thread.run(self._thread.ask_log(tp))
        except (TimeoutError, ConsumerStoppedError):
            return None

    def log_of(self, tp: TP) -> Log | None:
        """What is known of a partition's log, without asking; None before the first answer or if it is not assigned."""
        return self._thread.log_of(tp)

    @property
    def generation(self) -> int:
        """Generation of the group as this member knows it; -1 outside of a group."""
        consumer = self._thread._consumer
        return -1 if consumer is None or consumer._coordinator is None else cast(int, consumer._coordinator.generation)

    def contact_age(self) -> float:
        """Seconds (monotonic) since the sending of the last heartbeat or join that the group answered."""
        return time.monotonic() - self._thread.answered_at


class BatchTransport(Transport):
    """Faust's aiokafka transport with the batch consumer: ``app.transport = BatchTransport(app, positions)``.

    Parameters
    ----------
    app
        The Faust app; its broker and credentials are used.
    positions
        Called before flow resumes after each assignment: {partition: (offset, epoch)} to seek to.
    """

    Consumer = BatchConsumer

    def __init__(self, app: AppT, positions: Callable[[], Mapping[TP, tuple[int, int]]]) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.positions = positions


class _AsItIs(faust.Schema[Any, Any]):
    """The value is a Fetch already: nothing to decode."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:
        return None

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        return message.value


def batch_topic(app: faust.App, name: str) -> Any:
    """Topic for agents on the batch transport: not decoded, not acknowledged, not created by Faust."""
    return app.topic(name, schema=_AsItIs(), acks=False, internal=False)


def faust_settings(
    *, session_s: float = 10.0, rebalance_s: float = 30.0, partitions: int = 1, fetch_records: int = 2000
) -> dict[str, Any]:
    """Faust settings that the shard lifecycle relies on: ``faust.App(name, broker=..., **faust_settings())``.

    Parameters
    ----------
    session_s
        A member unheard of for so many seconds is evicted. Lower: faster takeover after a crash, more evictions of
        slow workers. Heartbeats go out every third of it.
    rebalance_s
        How long the group waits for a member to rejoin; at least the time that snapshots of one worker take.
    partitions
        Most partitions of a topic that this worker may own.
    fetch_records
        Most records in one fetch; memory is bounded to about ``8 * partitions * fetch_records`` records per topic
        in Faust's queues, and in the inbox to two such fetches, or 4 MB and a fetch, per partition.
    """
    # Faust pauses a partition whose fetch comes when an agent's queue is 80 % full, and blocks delivery to every agent
    # when it is full. An agent that waits for another one would then wait for ever: so each partition's last fetch must
    # find room above the 80 %.
    buffered_fetches = max(8, 5 * partitions)
    return {
        "broker_session_timeout": session_s,
        "broker_heartbeat_interval": session_s / 3,
        "broker_rebalance_timeout": rebalance_s,
        "broker_request_timeout": max(30.0, session_s),
        "broker_max_poll_records": fetch_records,
        "consumer_max_fetch_size": 1_048_576,
        "consumer_auto_offset_reset": "earliest",
        "consumer_metadata_max_age_ms": METADATA_MS,
        "stream_buffer_maxsize": buffered_fetches,
        "stream_recovery_delay": 0.0,
        "stream_wait_empty": False,
        # with standby replicas Faust's own assignor is chosen, which left a third worker without partitions
        "table_standby_replicas": 0,
        "topic_disable_leader": True,
        "topic_allow_declare": False,
        "key_serializer": "raw",
        "value_serializer": "raw",
    }

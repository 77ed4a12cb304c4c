"""Records a topic into files in the order in which its records were written, and goes on where it was killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    AuthenticationFailedError,
    KafkaError,
    OffsetOutOfRangeError,
)

from stream.beginning import Plan, begin, now_ms
from stream.bounds import Bound, places, resolve
from stream.contact import missing, why_not
from stream.errors import ConfigurationError, UnavailableError
from stream.kafka import client_options
from stream.merging import Merge
from stream.recordings.records import Raw, encode_line
from stream.recordings.segments import Segments
from stream.settings import Settings

FLUSH_BYTES: Final = 1_048_576  # of lines in memory
FLUSH_S: Final = 1.0
LOOK_S: Final = 0.5  # between two looks at the ends of the logs
AWAY_S: Final = 3.0  # a look takes at most so long: a broker that is away is waited for


@dataclass(slots=True)
class Standing:
    """What a recorder has done.

    Attributes
    ----------
    records, value_bytes
        Written by this run.
    lag
        Records in the topic that are not written yet.
    first_ms, last_ms
        Earliest and latest time of this run's records; None without any.
    resumed
        Whether an earlier recording was continued.
    """

    records: int = 0
    value_bytes: int = 0
    lag: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    resumed: bool = False


class Summary(msgspec.Struct):
    """What ``rivulet record`` reports at its end; `total` counts earlier runs, too, `next` is where another begins."""

    topic: str
    folder: str
    files: list[str]
    records: int
    total: int
    value_bytes: int
    file_bytes: int
    next: dict[int, int]
    lost: int
    first_ms: int | None
    last_ms: int | None
    resumed: bool
    complete: bool
    seconds: float


@dataclass(eq=False)
class Recorder:
    """One run over one topic; memory is what `Merge` holds and `FLUSH_BYTES` of lines.

    Parameters
    ----------
    settings
        Addresses and names.
    plan
        What to record.
    segments
        Where to.
    report
        Called now and then with the standing.
    stopping
        Ends the run cleanly once it is set.
    """

    settings: Settings
    plan: Plan
    segments: Segments
    standing: Standing = field(default_factory=Standing)
    report: Callable[[Standing], None] = lambda _: None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> Summary:
        """Record until the end that was asked for, or until `stopping` is set.

        Raises
        ------
        ConfigurationError
            If there is no such topic, the folder holds another's recording, or records are gone.
        UnavailableError
            If Kafka does not answer at the start, or the disk is full.
        """
        began = time.monotonic()
        self._lines: list[bytes] = []
        self._size = 0
        self._flushed = began
        async with _consumer(self.settings) as consumer:
            self._consumer = consumer
            self._parts = places(self.plan.topic, await _partitions(consumer, self.plan.topic))
            self.standing.resumed = self.segments.mark is not None
            self._mark = await begin(
                consumer, self.plan, self._parts, await _cluster(self.settings), self.segments.mark
            )
            self._write(b"", 0)  # a new recording's start is not lost if it is killed before its first record
            self._merge = Merge(consumer, self._parts)
            complete = await self._follow()
        return self._summary(time.monotonic() - began, complete)

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _follow(self) -> bool:
        """Fetch, merge and write; returns whether the end was reached."""
        looked = -LOOK_S
        complete = False
        try:
            while not (complete or self.stopping.is_set()):
                if time.monotonic() - looked >= LOOK_S:
                    await self._look()
                    looked = time.monotonic()
                await self._merge.fetch()
                async for partition, record in self._merge.records():
                    self._take(partition, record)
                    if self._size >= FLUSH_BYTES:
                        await self._flush()
                if time.monotonic() - self._flushed >= FLUSH_S:
                    await self._flush()
                self.standing.lag = await self._merge.lag()
                self.report(self.standing)
                complete = await self._is_complete()
        except OffsetOutOfRangeError as error:
            raise ConfigurationError(
                f"{self.plan.topic}: the broker has deleted records before they were recorded ({error}): start again"
            ) from error
        finally:
            await self._flush()
        if complete:
            self._mark.next = await self._merge.next()
            self._write(b"", 0)  # says that the end was reached
        return complete

    async def _look(self) -> None:
        """See how far the logs go; while the broker is away they go as far as was known."""
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(AWAY_S):
                self._merge.ends = await self._consumer.end_offsets(self._parts)
        mark = self._mark
        if mark.until_ms is not None and (now := now_ms()) > mark.until_ms:
            mark.until_offsets = await resolve(self._consumer, Bound(ms=mark.until_ms), self._parts, now)
            mark.until_ms = None
        self._merge.until_ms, self._merge.until_offsets = mark.until_ms, mark.until_offsets

    async def _is_complete(self) -> bool:
        ends = self._merge.until_offsets
        if ends is None:
            return False
        return all(at >= ends.get(partition, 0) for partition, at in (await self._merge.next()).items())

    def _take(self, partition: int, record: ConsumerRecord) -> None:
        raw = Raw(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))
        line = encode_line(self.plan.topic, partition, raw)
        self._lines.append(line)
        self._size += len(line)
        standing, ms = self.standing, record.timestamp
        standing.value_bytes += len(record.value or b"")
        standing.first_ms = ms if standing.first_ms is None else min(ms, standing.first_ms)
        standing.last_ms = ms if standing.last_ms is None else max(ms, standing.last_ms)

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        lines, self._lines, self._size = self._lines, [], 0
        self._flushed = time.monotonic()
        if lines:
            self._mark.next = await self._merge.next()
            await asyncio.to_thread(self._write, b"".join(lines), len(lines))
            self.standing.records += len(lines)

    def _write(self, text: bytes, lines: int) -> None:
        self._mark.lines = lines
        self._mark.records += lines
        self.segments.append(self._mark, text)

    def _summary(self, seconds: float, complete: bool) -> Summary:
        standing, segments, mark = self.standing, self.segments, self._mark
        return Summary(
            mark.topic,
            str(segments.folder),
            segments.files,
            standing.records,
            mark.records,
            standing.value_bytes,
            segments.bytes,
            mark.next,
            mark.lost,
            standing.first_ms,
            standing.last_ms,
            standing.resumed,
            complete,
            round(seconds, 3),
        )


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[Any]:
    options = client_options(settings)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, enable_auto_commit=False, auto_offset_reset="none", **options
    )
    try:
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            raise await why_not(settings.kafka, **options) from error
        yield consumer
    except AuthenticationFailedError as error:
        raise ConfigurationError(f"Kafka at {settings.kafka} refused these credentials: {error}") from error
    except KafkaError as error:
        raise UnavailableError(
            f"Kafka at {settings.kafka} does not answer: is RIVULET_KAFKA right? ({error})"
        ) from error
    finally:
        await consumer.stop()


async def _partitions(consumer: Any, topic: str) -> set[int]:
    if topic not in await consumer.topics():
        raise missing(topic)
    await consumer._client.add_topic(topic)
    return set(consumer.partitions_for_topic(topic) or ())


async def _cluster(settings: Settings) -> str:
    """Id of the cluster, so that a recording is not continued with another's offsets."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka, **client_options(settings))
    try:
        await admin.start()
        return str((await admin.describe_cluster()).get("cluster_id") or "")
    finally:
        await admin.close()

"""Records a topic into files in the order in which its records were written, and goes on where it was killed."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
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

from stream.bounds import Bound, parse_bound, places, resolve
from stream.errors import ConfigurationError, UnavailableError
from stream.kafka import client_options
from stream.recordings.frames import Mark
from stream.recordings.records import Raw, encode_line
from stream.recordings.segments import Segments
from stream.settings import Settings

FLUSH_BYTES: Final = 1_048_576  # of lines in memory
FLUSH_S: Final = 1.0
LOOK_S: Final = 0.5  # between two looks at the ends of the logs
WAIT_MS: Final = 200
AWAY_S: Final = 3.0


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


@dataclass(slots=True)
class Plan:
    """What is asked for: topic, ``--from`` and ``--until`` as written, and whether deleted records may be missing."""

    topic: str
    start: str = "now"
    until: str = ""
    accept_gap: bool = False


@dataclass(eq=False)
class Recorder:
    """One run over one topic.

    Partitions are merged by the records' times as far as they are known, so that a recording of many partitions can be
    replayed at its own pace; within a partition the order is the log's. Memory: a fetch per partition (1 MB each, or
    one larger record), and `FLUSH_BYTES` of lines.
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
        now_ms = time.time_ns() // 1_000_000
        async with _consumer(self.settings) as consumer:
            self._consumer = consumer
            known = await _partitions(consumer, self.plan.topic)
            self._mark = await self._resumed(known, now_ms)
            await self._seek(known)
            self._partitions = places(self.plan.topic, known)
            self._buffers: dict[Any, deque[ConsumerRecord]] = {tp: deque() for tp in self._partitions}
            self._lines: list[bytes] = []
            self._size = 0
            self._known: dict[Any, int] = {}
            self._flushed = time.monotonic()
            complete = await self._follow()
            await self._flush()
        return self._summary(began, complete)

    # -- where to start and end ------------------------------------------------------------------------------------

    async def _resumed(self, known: set[int], now_ms: int) -> Mark:
        """The mark to go on from; a new one is written before the first record, so that its start is not lost."""
        topic, cluster = self.plan.topic, await _cluster(self.settings)
        mark = self.segments.mark
        parts = places(topic, known)
        if mark is None:
            start = await resolve(self._consumer, parse_bound("--from", self.plan.start, now_ms), parts, now_ms)
            mark = Mark(topic=topic, cluster=cluster, next=start)
        else:
            self.standing.resumed = True
            if (mark.topic, mark.cluster) != (topic, cluster):
                raise ConfigurationError(
                    f"{self.segments.folder} holds a recording of topic {mark.topic} of another place "
                    f"({mark.cluster}, here {topic} of {cluster}): record into another folder"
                )
            mark.next = dict.fromkeys(known - mark.next.keys(), 0) | mark.next  # partitions that were added meanwhile
        reached = mark.until_offsets is not None and all(
            at >= mark.until_offsets.get(partition, 0) for partition, at in mark.next.items()
        )
        if not self.standing.resumed or mark.until != self.plan.until or reached:
            mark.until, mark.until_ms, mark.until_offsets = self.plan.until, None, None
            if self.plan.until:
                await self._end_at(mark, parse_bound("--until", self.plan.until, now_ms), parts, now_ms)
        self._mark = mark
        self._write(b"", 0)
        return mark

    async def _end_at(self, mark: Mark, bound: Bound, parts: list[Any], now_ms: int) -> None:
        if bound.ms is not None and bound.ms > now_ms:
            mark.until_ms = bound.ms
        else:
            mark.until_offsets = await resolve(self._consumer, bound, parts, now_ms)

    async def _seek(self, known: set[int]) -> None:
        parts = places(self.plan.topic, known)
        first, ends = await self._consumer.beginning_offsets(parts), await self._consumer.end_offsets(parts)
        self._consumer.assign(parts)
        for tp in parts:
            at = self._mark.next[tp.partition]
            if at > ends[tp]:
                raise ConfigurationError(
                    f"{tp.topic}-{tp.partition} ends at {ends[tp]}, before {at}: was the topic created anew? "
                    "Record into another folder"
                )
            if at < first[tp]:
                self._accept(tp, first[tp])
            self._consumer.seek(tp, self._mark.next[tp.partition])

    def _accept(self, tp: Any, first: int) -> None:
        """Note records that the broker has deleted, if that may be."""
        at = self._mark.next[tp.partition]
        if self.standing.resumed and not self.plan.accept_gap:
            raise ConfigurationError(
                f"{tp.topic}-{tp.partition}: the broker has deleted the records {at} to {first - 1} before they were "
                "recorded: --accept-gap goes on without them and counts them as lost"
            )
        if self.standing.resumed:
            self._mark.lost += first - at
        self._mark.next[tp.partition] = first

    # -- the loop --------------------------------------------------------------------------------------------------

    async def _follow(self) -> bool:
        """Fetch, merge and write; returns whether the end was reached."""
        ends = await self._ends()
        looked = time.monotonic()
        try:
            while not self.stopping.is_set():
                if await self._is_complete(ends):
                    await self._flush()
                    self._write(b"", 0)  # says that the end was reached
                    return True
                await self._fetch(ends)
                await self._merge(ends)
                if time.monotonic() - looked >= LOOK_S:
                    ends, looked = await self._ends(), time.monotonic()
                await self._tell(ends)
        except OffsetOutOfRangeError as error:
            await self._flush()
            raise ConfigurationError(
                f"{self.plan.topic}: the broker has deleted records before they were recorded ({error}): start again"
            ) from error
        return False

    async def _ends(self) -> dict[Any, int]:
        """Ends of the logs; when the broker is away the ones that were known, as it will be waited for."""
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(AWAY_S):
                self._known = await self._consumer.end_offsets(self._partitions)
        return self._known

    async def _behind(self, ends: dict[Any, int]) -> list[Any]:
        """Partitions with records that are known and not fetched: what others hold must not overtake them."""
        return [tp for tp in self._partitions if not self._buffers[tp] and await self._next(tp) < self._goal(tp, ends)]

    async def _next(self, tp: Any) -> int:
        """First offset of a partition that is not among the lines."""
        buffer = self._buffers[tp]
        return int(buffer[0].offset if buffer else await self._consumer.position(tp))

    def _goal(self, tp: Any, ends: dict[Any, int]) -> int:
        end = ends.get(tp, 0)
        limits = self._mark.until_offsets
        return end if limits is None else min(end, limits.get(tp.partition, end))

    async def _fetch(self, ends: dict[Any, int]) -> None:
        wanted = await self._behind(ends)
        open_ = [tp for tp in self._partitions if not self._is_past(tp)]
        if not wanted and any(self._buffers[tp] for tp in open_):
            return
        if not open_:
            await asyncio.sleep(WAIT_MS / 1000)  # until the end that was asked for has come
            return
        for tp, records in (await self._consumer.getmany(*(wanted or open_), timeout_ms=WAIT_MS)).items():
            self._buffers[tp].extend(records)

    def _is_past(self, tp: Any) -> bool:
        """Whether a partition's next record is beyond the end that was asked for."""
        buffer = self._buffers[tp]
        if not buffer:
            return False
        if self._mark.until_ms is not None and buffer[0].timestamp >= self._mark.until_ms:
            return True
        limits = self._mark.until_offsets
        return limits is not None and buffer[0].offset >= limits.get(tp.partition, buffer[0].offset + 1)

    async def _merge(self, ends: dict[Any, int]) -> None:
        """Move records from the fetches to the lines, the oldest first, until a fetch that goes on is used up."""
        going_on = {tp for tp in self._partitions if await self._consumer.position(tp) < self._goal(tp, ends)}
        if any(not self._buffers[tp] for tp in going_on):
            return
        heads = [(b[0].timestamp, tp.partition, tp) for tp, b in self._buffers.items() if b and not self._is_past(tp)]
        heapq.heapify(heads)
        while heads:
            _, partition, tp = heads[0]
            buffer = self._buffers[tp]
            self._take(partition, buffer.popleft())
            if self._size >= FLUSH_BYTES:
                await self._flush()
            if buffer and not self._is_past(tp):
                heapq.heapreplace(heads, (buffer[0].timestamp, partition, tp))
            elif not buffer and tp in going_on:
                return
            else:
                heapq.heappop(heads)

    def _take(self, partition: int, record: ConsumerRecord) -> None:
        raw = Raw(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))
        line = encode_line(self.plan.topic, partition, raw)
        self._lines.append(line)
        self._size += len(line)
        standing, ms = self.standing, record.timestamp
        standing.value_bytes += len(record.value or b"")
        standing.first_ms = ms if standing.first_ms is None else min(ms, standing.first_ms)
        standing.last_ms = ms if standing.last_ms is None else max(ms, standing.last_ms)

    async def _is_complete(self, ends: dict[Any, int]) -> bool:
        mark = self._mark
        if mark.until_ms is not None and time.time_ns() // 1_000_000 > mark.until_ms:
            bound = Bound(ms=mark.until_ms)
            mark.until_offsets = await resolve(self._consumer, bound, self._partitions, time.time_ns() // 1_000_000)
            mark.until_ms = None
        if mark.until_offsets is None:
            return False
        for tp in self._partitions:
            if await self._next(tp) < mark.until_offsets.get(tp.partition, ends.get(tp, 0)):
                return False
        return True

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _tell(self, ends: dict[Any, int]) -> None:
        self.standing.lag = sum([max(self._goal(tp, ends) - await self._next(tp), 0) for tp in self._partitions])
        if time.monotonic() - self._flushed >= FLUSH_S:
            await self._flush()
        self.report(self.standing)

    async def _flush(self) -> None:
        self._mark.next = {tp.partition: await self._next(tp) for tp in self._partitions}
        lines, self._lines, self._size = self._lines, [], 0
        self._flushed = time.monotonic()
        if lines:
            await asyncio.to_thread(self._write, b"".join(lines), len(lines))
            self.standing.records += len(lines)

    def _write(self, text: bytes, lines: int) -> None:
        self._mark.lines = lines
        self._mark.records += lines
        self.segments.append(self._mark, text)

    def _summary(self, began: float, complete: bool) -> Summary:
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
            round(time.monotonic() - began, 3),
        )


@asynccontextmanager
async def _consumer(settings: Settings) -> AsyncIterator[Any]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        enable_auto_commit=False,
        auto_offset_reset="none",
        **client_options(settings),
    )
    try:
        await consumer.start()
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
        raise ConfigurationError(f"topic {topic} does not exist: run `rivulet topics` to create ours")
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

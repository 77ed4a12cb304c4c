"""The dead letters: read by filter, and settled by markers in the same topic once they are sent again or dropped.

A marker is a record without a reason whose header ``settled`` says how, and whose value names the offsets it is about:
so the topic itself remembers what was done, for as long as it remembers the letters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Self

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRecord  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.bounds import places
from stream.contact import missing, why_not
from stream.errors import BadInputError, ConfigurationError
from stream.kafka import careful_producer, client_options
from stream.settings import Settings

SETTLED: Final = "settled"
OWN: Final = frozenset(("reason", "detail", "topic", "partition", "offset", "index", "timestamp"))
MOST_BYTES: Final = 4_194_304 + 65_536

How = Literal["retried", "dropped"]


class Number(NamedTuple):
    """Where a letter stands in its topic, which has one partition unless somebody added some."""

    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}" if self.partition else str(self.offset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes.

        Raises
        ------
        BadInputError
            If it is no such number.
        """
        partition, _, offset = text.rpartition(":")
        if offset.isdecimal() and (partition or "0").isdecimal():
            return cls(int(partition or 0), int(offset))
        raise BadInputError(f"{text!r} is no number of a dead letter: see `rivulet dlq list`")


class Letter(NamedTuple):
    """One dead letter: why and when, the place and the bytes of what was refused, and what became of it."""

    number: Number
    written_ms: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    index: int  # type: ignore[assignment]  # the field's name outweighs tuple.index
    recorded_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    state: Literal["open", "retried", "dropped"]

    @property
    def origin(self) -> str:
        """Place of what was refused."""
        return f"{self.topic}-{self.partition}@{self.offset}[{self.index}]"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which letters are meant; what is not given does not matter. Times are the letters' own; ends are not included."""

    numbers: frozenset[Number] = frozenset()
    reasons: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    topic: str | None = None
    partition: int | None = None
    offsets: range | None = None

    def __bool__(self) -> bool:
        return self != Filter()

    def covers(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        return (
            (not self.numbers or letter.number in self.numbers)
            and (not self.reasons or letter.reason in self.reasons)
            and (self.since_ms is None or letter.written_ms >= self.since_ms)
            and (self.until_ms is None or letter.written_ms < self.until_ms)
            and (self.topic is None or letter.topic == self.topic)
            and (self.partition is None or letter.partition == self.partition)
            and (self.offsets is None or letter.offset in self.offsets)
        )


class _Marker(msgspec.Struct):
    offsets: list[int]


class Letters:
    """The dead-letter topic of one installation; an async context manager.

    Each selection reads the topic twice, first for the markers, which stand behind their letters: memory is 150 bytes
    per settled letter, however many open ones there are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.topic = settings.topic("dlq")

    async def __aenter__(self) -> Self:
        options = client_options(self._settings)
        self._consumer: Any = AIOKafkaConsumer(
            bootstrap_servers=self._settings.kafka,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=MOST_BYTES,
            **options,
        )
        try:
            await self._consumer.start()
            if self.topic not in await self._consumer.topics():
                raise missing(self.topic)
            await self._consumer._client.add_topic(self.topic)
        except ConfigurationError:
            await self._consumer.stop()
            raise
        except (KafkaError, OSError) as error:
            await self._consumer.stop()
            raise await why_not(self._settings.kafka, **options) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def select(self, wanted: Filter, *, settled: bool = False) -> AsyncIterator[Letter]:
        """Letters that are there now and meant, in order; settled ones only on request."""
        parts = places(self.topic, set(self._consumer.partitions_for_topic(self.topic) or ()))
        ends = await self._consumer.end_offsets(parts)
        states: dict[Number, How] = {}
        async for tp, record in self._records(ends):
            states |= _marked(tp.partition, record)
        async for tp, record in self._records(ends):
            if _how(record) is None:
                letter = _letter(tp.partition, record, states.get(Number(tp.partition, record.offset)))
                if (settled or letter.state == "open") and wanted.covers(letter):
                    yield letter

    async def settle(self, numbers: Sequence[Number], how: How) -> None:
        """Remember that letters were sent again or dropped."""
        async with careful_producer(self._settings, "dlq") as producer:
            for partition in {number.partition for number in numbers}:
                marker = _Marker([number.offset for number in numbers if number.partition == partition])
                headers = [(SETTLED, how.encode())]
                value = msgspec.json.encode(marker)
                await producer.send_and_wait(self.topic, value, partition=partition, headers=headers)

    async def _records(self, ends: dict[Any, int]) -> AsyncIterator[tuple[Any, ConsumerRecord]]:
        """Records of the topic up to some ends."""
        first = await self._consumer.beginning_offsets(list(ends))
        self._consumer.assign([tp for tp in ends if first[tp] < ends[tp]])
        for tp in self._consumer.assignment():
            self._consumer.seek(tp, first[tp])
        for tp in sorted(self._consumer.assignment()):
            while await self._consumer.position(tp) < ends[tp]:
                for found in (await self._consumer.getmany(tp, timeout_ms=500)).values():
                    for record in found:
                        if record.offset < ends[tp]:
                            yield tp, record


def _how(record: ConsumerRecord) -> How | None:
    """What a marker says; None for a letter."""
    headers = dict(record.headers)
    if "reason" in headers:
        return None
    return {b"retried": "retried", b"dropped": "dropped"}.get(headers.get(SETTLED, b""))  # type: ignore[return-value]


def _marked(partition: int, record: ConsumerRecord) -> dict[Number, How]:
    how = _how(record)
    if how is None:
        return {}
    try:
        marker = msgspec.json.decode(record.value or b"", type=_Marker)
    except msgspec.DecodeError:
        return {}
    return {Number(partition, offset): how for offset in marker.offsets}


def _letter(partition: int, record: ConsumerRecord, how: How | None) -> Letter:
    said = {name: value.decode(errors="replace") for name, value in record.headers if name in OWN}

    def number(name: str, missing: int) -> int:
        text = said.get(name, "")
        return int(text) if text.isdecimal() else missing

    return Letter(
        Number(partition, record.offset),
        record.timestamp,
        said.get("reason", "unknown"),
        said.get("detail", ""),
        said.get("topic", ""),
        number("partition", -1),
        number("offset", -1),
        number("index", 0),
        number("timestamp", record.timestamp),
        record.key,
        record.value or b"",
        tuple((name, value) for name, value in record.headers if name not in OWN),
        how or "open",
    )

"""Where a recording of a topic starts and ends: offsets, times or durations, resolved to an offset per partition."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition  # type: ignore[import-untyped]  # no py.typed

from stream.errors import BadInputError
from stream.moments import duration_ms, moment_ms

_OFFSETS: Final = re.compile(r"offset:(\d+|\d+=\d+(?:,\d+=\d+)*)")


@dataclass(frozen=True, slots=True)
class Bound:
    """A parsed ``--from`` or ``--until``: the earliest record, offsets (one for all, or by partition), or a time."""

    beginning: bool = False
    offset: int | None = None
    offsets: Mapping[int, int] | None = None
    ms: int | None = None


def parse_bound(option: str, text: str, now_ms: int) -> Bound:
    """Read ``beginning``, ``now``, ``offset:12``, ``offset:0=12,1=7``, a time, or a duration.

    A duration counts backwards from now for ``--from``, forwards for ``--until``.

    Raises
    ------
    BadInputError
        If the text is none of these.

    Examples
    --------
    >>> parse_bound("--until", "10m", 5).ms, parse_bound("--from", "offset:0=12,1=7", 5).offsets
    (600005, {0: 12, 1: 7})
    """
    if text == "beginning" and option == "--from":
        return Bound(beginning=True)
    if text == "now":
        return Bound(ms=now_ms)
    if found := _OFFSETS.fullmatch(text):
        if "=" not in found[1]:
            return Bound(offset=int(found[1]))
        pairs = (pair.split("=") for pair in found[1].split(","))
        return Bound(offsets={int(partition): int(offset) for partition, offset in pairs})
    ahead = duration_ms(text)
    if ahead is not None and option == "--until":
        return Bound(ms=now_ms + ahead)
    try:
        return Bound(ms=moment_ms(option, text, now_ms))
    except BadInputError as error:
        words = "beginning, now" if option == "--from" else "now"
        raise BadInputError(f"{error}; also {words}, offset:12 or offset:0=12,1=7") from None


async def resolve(consumer: Any, bound: Bound, partitions: Sequence[Any], now_ms: int) -> dict[int, int]:
    """First offset of each partition that is not before a bound; a time that has not come is the end of the log."""
    first: Mapping[Any, int] = await consumer.beginning_offsets(partitions)
    ends: Mapping[Any, int] = await consumer.end_offsets(partitions)
    if bound.ms is not None and bound.ms < now_ms:
        found: Mapping[Any, Any] = await consumer.offsets_for_times(dict.fromkeys(partitions, bound.ms))
        return {tp.partition: ends[tp] if at is None else at.offset for tp, at in found.items()}
    if bound.ms is not None:
        return {tp.partition: end for tp, end in ends.items()}
    if bound.beginning:
        return {tp.partition: offset for tp, offset in first.items()}
    wanted = bound.offsets or dict.fromkeys((tp.partition for tp in partitions), bound.offset or 0)
    return {tp.partition: wanted.get(tp.partition, ends[tp]) for tp in partitions}


def places(topic: str, partitions: Mapping[int, int] | set[int]) -> list[Any]:
    """Partitions as aiokafka names them."""
    return [TopicPartition(topic, partition) for partition in sorted(partitions)]

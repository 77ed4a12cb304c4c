"""Where a recorder begins: at what was asked for, or exactly where an earlier run was ended or killed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stream.bounds import parse_bound, resolve
from stream.errors import ConfigurationError
from stream.recordings.frames import Mark


@dataclass(slots=True)
class Plan:
    """What is asked for: topic, ``--from`` and ``--until`` as written, and whether deleted records may be missing."""

    topic: str
    start: str = "now"
    until: str = ""
    accept_gap: bool = False


async def begin(consumer: Any, plan: Plan, parts: Sequence[Any], cluster: str, before: Mark | None) -> Mark:
    """Assign all partitions and seek to where the recording goes on.

    Parameters
    ----------
    consumer
        An aiokafka consumer without partitions.
    plan
        What is asked for; its start counts only without an earlier run.
    parts
        All partitions of the topic.
    cluster
        Id of the cluster.
    before
        How far an earlier run had come.

    Returns
    -------
    Mark
        Where the recording stands now.

    Raises
    ------
    ConfigurationError
        If an earlier run recorded another topic or cluster, or records that were to come are gone.
    """
    now = now_ms()
    asked = parse_bound("--from", plan.start, now)  # also where it does not count: a typing error is one
    if before is None:
        start = await resolve(consumer, asked, parts, now)
        mark = Mark(topic=plan.topic, cluster=cluster, next=start)
    else:
        mark = before
        if (mark.topic, mark.cluster) != (plan.topic, cluster):
            raise ConfigurationError(
                f"the folder holds a recording of topic {mark.topic} of cluster {mark.cluster}, not of {plan.topic} of "
                f"{cluster}: record into another folder"
            )
        added = {tp.partition: 0 for tp in parts}  # partitions that the topic was given meanwhile
        mark.next = added | mark.next
    if before is None or mark.until != plan.until or _is_reached(mark):
        await _set_end(consumer, mark, plan.until, parts, now)
    await _seek(consumer, mark, parts, None if before is None else plan)
    return mark


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _is_reached(mark: Mark) -> bool:
    """Whether the end was reached that an earlier run looked for: what was finished may go on."""
    ends = mark.until_offsets
    return ends is not None and all(at >= ends.get(partition, 0) for partition, at in mark.next.items())


async def _set_end(consumer: Any, mark: Mark, until: str, parts: Sequence[Any], now: int) -> None:
    mark.until, mark.until_ms, mark.until_offsets = until, None, None
    if not until:
        return
    bound = parse_bound("--until", until, now)
    if bound.ms is not None and bound.ms > now:
        mark.until_ms = bound.ms
    else:
        mark.until_offsets = await resolve(consumer, bound, parts, now)


async def _seek(consumer: Any, mark: Mark, parts: Sequence[Any], resumed: Plan | None) -> None:
    """Seek to the mark; what the broker no longer has may be missing only at the start of a new recording."""
    first, ends = await consumer.beginning_offsets(parts), await consumer.end_offsets(parts)
    consumer.assign(parts)
    for tp in parts:
        at = mark.next[tp.partition]
        where = f"{tp.topic}-{tp.partition}"
        if at > ends[tp]:
            raise ConfigurationError(
                f"{where} ends at {ends[tp]}, before {at}: was the topic created anew? Record into another folder"
            )
        if at < first[tp]:
            if resumed and not resumed.accept_gap:
                raise ConfigurationError(
                    f"{where}: the broker has deleted the records {at} to {first[tp] - 1} before they were recorded: "
                    "--accept-gap goes on without them and counts them as lost"
                )
            mark.lost += first[tp] - at if resumed else 0
            mark.next[tp.partition] = first[tp]
        consumer.seek(tp, mark.next[tp.partition])

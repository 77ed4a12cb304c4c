"""A recorded stream made rough: beside its events repeats, late ones, refusals, broken records and strays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from models.hashing import partition_of
from stream.recordings import open_recording
from tests.records import user_of

TWO_DAYS_US = 2 * 86_400_000_000
BROKEN = b'{"event_name": "view_item", "user_id": '


class Written(NamedTuple):
    """A record of topic `events` as it is to be written."""

    partition: int
    key: bytes
    value: bytes


class RoughStream(NamedTuple):
    """What is written, what the workers must count of it, and whose lists are to be read.

    `counts` leaves `learned` and `denied` out: a refusal holds for whatever its user does later.
    """

    records: list[Written]
    counts: dict[str, int]
    users: list[str]


def rough_stream(recording: Path, events: int, partitions: int) -> RoughStream:
    """The first `events` events of a recording, of which a few percent are replaced or followed by trouble."""
    records: list[Written] = []
    users: dict[str, None] = {}
    counts = dict.fromkeys(("duplicates", "late", "dead:not_json", "rekeyed"), 0)

    def write(event: Mapping[str, Any], aside: int = 0) -> None:
        user = user_of(dict(event))
        users[user] = None
        at = (partition_of(user.encode(), partitions) + aside) % partitions
        records.append(Written(at, user.encode(), msgspec.json.encode(event)))

    for number, plain in enumerate(islice(open_recording(recording), events)):
        event = plain | {"event_id": f"e{number}"}
        match number % 200 if number > 1000 else 0:
            case 20:  # sent twice
                write(event)
                counts["duplicates"] += 1
            case 60:  # two days late
                event["event_timestamp"] -= TWO_DAYS_US
                counts["late"] += 1
            case 100:  # cut off
                records.append(Written(number % partitions, b"broken", BROKEN))
                counts["dead:not_json"] += 1
            case 140:  # this user does not want to be learned from any more
                event["consent"] = {"analytics_storage": "denied"}
            case 160 | 161 | 162:  # a visitor whose events some producer writes elsewhere, the last one without an id
                stray = event | {"user_id": f"stray{number // 1000}"}
                if number % 200 == 162:
                    del stray["event_id"]
                write(stray, aside=1)
                counts["rekeyed"] += 1
                continue
        write(event)
    return RoughStream(records, counts, list(users))


def per_partition(records: Iterable[Written], partitions: int) -> list[int]:
    """Records of each partition."""
    counts = [0] * partitions
    for record in records:
        counts[record.partition] += 1
    return counts

"""What a replay would publish, without Kafka: as records for the pipeline in this process, or judged and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from stream.decoding import decode
from stream.errors import BadInputError
from stream.recordings.files import OnBad, stop
from stream.recordings.records import Parcel, Raw
from stream.rounds import Item, time_us
from stream.verdicts import Verdicts


def as_records(items: Iterable[Item], on_bad: OnBad = stop) -> Iterator[Raw]:
    """Records of a replay, each recorded at its event's time; events without one are bad."""
    for number, item in enumerate(items):
        ts = time_us(item)
        if ts is None:
            on_bad(BadInputError(f"event {number + 1}: event_timestamp is missing, and here is no clock"))
        elif isinstance(item, Parcel):
            yield from _of_parcel(number, item)
        else:
            user = item.get("user_id") or item.get("user_pseudo_id") or ""
            yield Raw(number, ts // 1000, user.encode(), msgspec.json.encode(item))


def judge(items: Iterable[Item], now_ms: int) -> Verdicts:
    """Judge everything that a replay would publish, as a worker would, had it been sent now."""
    verdicts = Verdicts()
    for number, item in enumerate(items, 1):
        if isinstance(item, Parcel):
            verdicts.add(number, item.value or b"", now_ms, item.headers)
        else:
            verdicts.add(number, msgspec.json.encode(item), now_ms)
    return verdicts


def _of_parcel(number: int, item: Parcel) -> Iterator[Raw]:
    """A record; one whose headers are part of its event becomes that event, as the pipeline carries no headers."""
    raw = Raw(number, item.recorded_ms, item.key, item.value, item.headers)
    if not item.headers:
        yield raw
        return
    batch = decode([raw])
    values = batch.raw or [item.value or b""]
    for value in values:
        yield raw._replace(value=value, headers=())

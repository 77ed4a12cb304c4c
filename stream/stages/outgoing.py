"""What the user stage sends: deltas, samples, dead letters, and what belongs to another partition, on its way there."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.covisitation import Deltas
from models.decay import YEAR_2000_S
from models.hashing import partition_of
from models.profiles import EventColumns, Sample
from stream.decoding import Batch, DeadLetter, json_of
from stream.events import Request
from stream.identity import completed, derived_id
from stream.packing import Origin
from stream.stages.admission import Admitted
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard
from stream.wire import Profiled, encode_global, middle, pack_covisits, parts

MOST_BYTES: Final = 7 * 1_048_576  # of a record for the other stages; their topics take 8 MiB


class Lesson(NamedTuple):
    """What a batch taught: `event` is the batch position of each touch's event, `item` its item."""

    deltas: Deltas
    sample: Sample
    columns: EventColumns
    item: NDArray[np.int32]
    event: NDArray[np.int32]


def deltas_of(
    lesson: Lesson, space: ItemSpace, shard: UserShard, batch: Batch, partition: int, high: int
) -> list[Send]:
    """Deltas of a batch up to the offset `high`."""
    event = lesson.event[lesson.deltas.source]
    origin = Origin(
        np.array(batch.offset, dtype=np.int64)[event],
        np.array(batch.index, dtype=np.int64)[event],
        lesson.columns.touch_category[lesson.deltas.source],
    )
    return send_deltas(lesson.deltas, origin, space, shard, partition, high)


def send_deltas(
    deltas: Deltas, origin: Origin, space: ItemSpace, shard: UserShard, partition: int, high: int
) -> list[Send]:
    """One record per item partition that needs something of these deltas, or several, one going on where another ends.

    What was sent to each is noted. What one source record teaches is never divided (see `stream.events.MAX_ITEMS`).
    """
    packed = pack_covisits(deltas, origin, partition, shard.sent, high, space.partition, space.ids, space.categories)
    if max((len(value) for value in packed if value is not None), default=0) > MOST_BYTES:
        halves = parts(deltas, origin)
        if len(halves) == 2:
            (before, there), (after, here) = halves
            sends = send_deltas(before, there, space, shard, partition, int(there.offset[-1]))
            return sends + send_deltas(after, here, space, shard, partition, high)
    sends = []
    for target, value in enumerate(packed):
        if value is not None:
            shard.sent[target] = high
            sends.append(Send("covisits", value, partition=target))
    return sends


def samples_of(lesson: Lesson, space: ItemSpace, batch: Batch, admitted: Admitted, partition: int) -> list[Send]:
    """Profiles of sampled users for the global stage, with the item that each had in hand."""
    sample, events, items = lesson.sample, lesson.columns, lesson.item
    if len(sample.event) == 0:
        return []
    first = events.touch[sample.event]
    has_item = events.touch[sample.event + 1] > first
    weights = np.where(has_item, events.touch_weight[np.minimum(first, len(items) - 1)] if len(items) else 0, 0)
    texts = [space.ids.text(items[t]) if has else "" for t, has in zip(first, has_item, strict=True)]
    names = space.categories
    record = Profiled(
        partition,
        [batch.offset[event] for event in admitted.events[sample.event]],
        (events.ts[sample.event].astype(np.int64) + YEAR_2000_S).tolist(),
        np.stack([sample.recency, sample.frequency, sample.spend, sample.hour_sin, sample.hour_cos], axis=1).tolist(),
        sample.channel.tolist(),
        [
            {names.text(c): float(w) for c, w in zip(row, weight, strict=True) if w > 0}
            for row, weight in zip(sample.category, sample.affinity, strict=True)
        ],
        texts,
        weights.tolist(),
    )
    return _sample_sends(record)


def _sample_sends(record: Profiled) -> list[Send]:
    """Samples in one record, or several; those of one source record, which share their identity, stay together."""
    value = encode_global(record)
    if len(value) > MOST_BYTES and (at := middle(np.array(record.offset, dtype=np.int64))):
        columns = msgspec.structs.astuple(record)
        before, after = (
            Profiled(record.source, *(column[span] for column in columns[1:])) for span in (slice(at), slice(at, None))
        )
        return _sample_sends(before) + _sample_sends(after)
    return [Send("global", value, partition=0)]


def dead_letter(topic: str, partition: int, letter: DeadLetter) -> Send:
    """A record, or an element of one, that could not be taken, with where it was."""
    identity = {
        "reason": letter.reason,
        "detail": letter.detail,
        "topic": topic,
        "partition": str(partition),
        "offset": str(letter.offset),
        "index": str(letter.index),
        "timestamp": str(letter.recorded_ms),
    }
    headers = tuple((name, value.encode(errors="replace")) for name, value in identity.items())
    return Send("dlq", letter.original, key=letter.key, headers=(*headers, *letter.headers))


def rekeyed(partition: int, batch: Batch, event: int, partitions: int) -> Send:
    """An event of another partition's user; an id from where it was found keeps it single, and its time is kept.

    The partition is named: a topic that was given more partitions would send the event in circles.
    """
    raw, key = json_of(batch.raw[event]), batch.user[event].encode()
    derived = derived_id(partition, batch.offset[event], batch.index[event])
    raw = completed(raw, derived, batch.recorded[event])  # the broker gives the record a new time
    home = partition_of(key, partitions)
    return Send("events", raw, partition=home, key=key, timestamp_ms=batch.recorded[event] // 1000)


def request_for(request: Request, home: int) -> Send:
    """A request about one user, to be ordered with its user's events."""
    return Send("events", msgspec.json.encode(request), partition=home, key=request.user.encode())

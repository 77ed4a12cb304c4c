"""Which events of a batch are learned: each is judged on its own and counted.

By partition, tombstones, duplicates, lateness and consent, in this order: what is refused goes no further.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.consent import hear
from models.decay import YEAR_2000_S
from models.hashing import hash_ids, partition_of
from models.profiles import ADS, ANALYTICS, CUSTOMER, DENIED, PERSONALISATION
from stream.decoding import Batch
from stream.stages.space import printable
from stream.stages.user_shard import UserShard

NO_SESSION: Final = hash_ids([""])[0]
REFUSALS: Final = np.uint8(DENIED << ANALYTICS | DENIED << PERSONALISATION | DENIED << ADS)
AHEAD_US: Final = 300_000_000  # an event moves the watermark at most this far beyond its record's time


class Admitted(NamedTuple):
    """Verdict over a batch.

    `ts`: time of each event, us; `keep`: per event; `events`: positions of the kept ones; `user`, `session`: aligned
    with `events`; `index`: user index of every event, -1 for foreign and forgotten ones; `foreign`: positions of events
    that belong to another partition; `told`: positions of events that are not learned but say something about consent.
    """

    ts: NDArray[np.int64]
    keep: NDArray[np.bool_]
    events: NDArray[np.int64]
    user: NDArray[np.int32]
    session: NDArray[np.uint32]
    index: NDArray[np.int32]  # type: ignore[assignment]  # the field's name outweighs tuple.index
    foreign: list[int]
    told: NDArray[np.int64]


def admit(shard: UserShard, batch: Batch, partition: int, partitions: int) -> Admitted:
    """Judge each event of a batch; counts what is refused; updates watermark, window, consent, who is a customer."""
    ts = np.array(batch.ts, dtype=np.int64)
    forgotten = _forgotten(shard, batch, ts)
    index = _known(shard, batch, partition, partitions, forgotten)
    shard.reserve()
    keep = index >= 0
    foreign = ~(keep | forgotten)
    customers = keep.copy()
    customers[batch.anonymous] = False
    shard.profiles.arrays.flags[index[customers]] |= CUSTOMER
    shard.touched[index[keep]] = ts[keep] // 1_000_000 - YEAR_2000_S  # of a user's events the last one counts
    keep &= ~_duplicates(shard, batch, keep)
    late = _late(shard, batch, ts, index >= 0, keep)
    keep &= ~late
    said = np.array(batch.consent, dtype=np.uint8)
    said[late] &= REFUSALS  # a refusal holds whenever it was said; a grant may have been taken back since
    denied = _denied(shard, said, index, keep, late)
    keep &= ~denied
    events, others = keep.nonzero()[0], foreign.nonzero()[0]
    shard.counts["rekeyed"] += len(others)
    shard.counts["learned"] += len(events)
    shard.counts["without_id"] += batch.without_id
    told = ((denied | late) & (said > 0)).nonzero()[0]
    sessions = _sessions(batch.session)[events]
    return Admitted(ts, keep, events, index[events], sessions, index, others.tolist(), told)


def filled_at(shard: UserShard, batch: Batch, partition: int, partitions: int) -> int | None:
    """Offset of the record whose users fill the shard, None if the batch leaves room."""
    room = shard.rules.users - len(shard.users)
    if len(batch.user) < room:
        return None
    new: set[str] = set()
    for event in np.flatnonzero(shard.users.lookup(batch.user) < 0).tolist():
        user = batch.user[event]
        if partition_of(user.encode(), partitions) == partition:
            new.add(user)
            if len(new) >= room:
                return batch.offset[event]
    return None


def _forgotten(shard: UserShard, batch: Batch, ts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Events from before their user was forgotten."""
    if len(shard.tombstones) == 0:
        return np.zeros(len(ts), dtype=np.bool_)
    found = shard.tombstones.cover(hash_ids(batch.user), ts // 1_000_000 - YEAR_2000_S)
    shard.counts["forgotten"] += int(np.count_nonzero(found))
    return found


def _known(
    shard: UserShard, batch: Batch, partition: int, partitions: int, forgotten: NDArray[np.bool_]
) -> NDArray[np.int32]:
    """Index of each event's user, -1 where not even the id is kept: of other partitions' and of forgotten users."""
    if not np.count_nonzero(forgotten):
        return shard.users.encode(batch.user, partition, partitions)
    index = np.full(len(forgotten), -1, dtype=np.int32)
    others = np.flatnonzero(~forgotten)
    index[others] = shard.users.encode([batch.user[event] for event in others], partition, partitions)
    return index


def _duplicates(shard: UserShard, batch: Batch, candidates: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Events whose id was seen; those without an id are identified by their offset and cannot repeat."""
    with_id = candidates
    if batch.without_id:
        with_id = with_id & np.array([bool(text) for text in batch.event_id], dtype=np.bool_)
    found = np.zeros(len(with_id), dtype=np.bool_)
    if np.count_nonzero(with_id):
        found[with_id] = shard.seen.mark(hash_ids(batch.event_id)[with_id])
        shard.counts["duplicates"] += int(np.count_nonzero(found))
    return found


def _sessions(texts: list[str]) -> NDArray[np.uint32]:
    """Hash of each session id, 0 for none."""
    try:
        hashes = hash_ids(texts)
    except ValueError:  # rare enough to look for only then: a NUL inside
        hashes = hash_ids(printable(texts))
    hashes[hashes == NO_SESSION] = 0
    return hashes.astype(np.uint32)


def _late(
    shard: UserShard,
    batch: Batch,
    ts: NDArray[np.int64],
    ours: NDArray[np.bool_],
    candidates: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Events older than the watermark, as it stood at each of them, by more than the rules allow."""
    capped = np.minimum(ts, np.array(batch.recorded, dtype=np.int64) + AHEAD_US)
    capped[~ours] = 0
    marks = np.maximum.accumulate(np.append(np.int64(shard.watermark), capped))
    shard.watermark = int(marks[-1])
    late = (ts < marks[1:] - shard.rules.lateness_s * 1_000_000) & candidates
    shard.counts["late"] += int(np.count_nonzero(late))
    return late


def _denied(
    shard: UserShard,
    said: NDArray[np.uint8],
    index: NDArray[np.int32],
    candidates: NDArray[np.bool_],
    late: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Events of users who do not let us learn, as consent stood at each event; a change is told by the profile."""
    default = 0 if shard.rules.consent else DENIED
    flags = shard.profiles.arrays.flags
    users = index[index >= 0]
    before = flags[users]
    denied = hear(flags, index, said, candidates | late, default) & candidates
    changed = users[flags[users] != before]
    shard.profiled_ms[changed] = np.minimum(shard.profiled_ms[changed], 1)
    shard.counts["denied"] += int(np.count_nonzero(denied))
    return denied

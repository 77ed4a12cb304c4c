"""From a cookie to a customer: the history of a visitor who has logged in follows to the customer's partition.

The first event with both ids (later ones once an hour at most) sends a `Link` to the cookie's partition. There, what
the cookie's history taught is taken back, and the history goes as a `Joined` to the customer's partition, where it is
learned as the customer's. Each step is a record of topic ``events``, in line with the events of its user: a crash
repeats it, and the second time there is nothing left to move, or the record's id has been seen.
"""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.covisitation import Weighting, retract
from models.decay import YEAR_2000_S
from models.hashing import hash_ids, partition_of
from models.histories import Touches
from models.joined_histories import adopt
from models.profiles import ANALYTICS
from stream.decoding import Batch
from stream.events import KINDS, MAX_ID_BYTES, Joined, Link, Past
from stream.packing import Origin
from stream.stages.admission import Admitted
from stream.stages.learned import Learned
from stream.stages.outgoing import send_deltas
from stream.stages.pushing import denied
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard

AGAIN_S: Final = 3_600  # of event time: a visitor may have left and come back under the cookie alone
KIND_NAMES: Final = tuple(KINDS)


def links(shard: UserShard, batch: Batch, admitted: Admitted, partitions: int) -> list[Send]:
    """A `Link` for each learned event with a cookie beside its customer, unless the same was sent within the hour.

    A pure function of the shard and the records, whatever the batches: what was sent last is kept per customer.
    """
    places = [place for place, cookie in batch.cookies.items() if admitted.keep[place] and _is_id(cookie)]
    if not places:
        return []
    hours = np.array([batch.ts[place] // (AGAIN_S * 1_000_000) for place in places], dtype=np.uint64)
    cookies = hash_ids([batch.cookies[place] for place in places])
    signs = ((cookies ^ hours * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)).astype(np.uint32)
    users = admitted.index[places]
    moved = np.isin(users, users[shard.linked[users] != signs])
    sends = []
    for at in np.flatnonzero(moved).tolist():
        user, place = users[at], places[at]
        if shard.linked[user] == signs[at]:
            continue
        shard.linked[user] = signs[at]
        link = Link(user=batch.cookies[place], to=batch.user[place])
        key = link.user.encode()
        home = partition_of(key, partitions)
        sends.append(Send("events", msgspec.json.encode(link), partition=home, key=key))
    return sends


def hand_over(
    shard: UserShard,
    space: ItemSpace,
    weighting: Weighting,
    link: Link,
    identity: tuple[int, int],
    partitions: int,
) -> Learned:
    """Take a cookie's history out of a shard and send it to the customer's; `identity` is partition and offset."""
    partition, offset = identity
    users = shard.users.lookup([link.user])
    if users[0] < 0 or shard.histories.arrays.count[users[0]] == 0:
        return Learned.of_request([], [])
    deltas = retract(shard.histories, users, weighting)
    touches = shard.histories.recall(users)
    columns = zip(
        space.ids.texts(touches.item), touches.kind.tolist(), touches.ts.tolist(), touches.starts.tolist(), strict=True
    )
    past = [Past(item, KIND_NAMES[kind], ts + YEAR_2000_S, starts) for item, kind, ts, starts in columns]
    joined = Joined(user=link.to, id=f"link-{partition}-{offset}", past=past)
    shard.changes.add(users)
    shard.histories.clear(users)
    origin = Origin.of_record(offset, len(deltas.item))
    key = link.to.encode()
    sends = send_deltas(deltas, origin, space, shard, partition, offset)
    sends.append(Send("events", msgspec.json.encode(joined), partition=partition_of(key, partitions), key=key))
    return _ranked(shard, users, sends)


def take_over(
    shard: UserShard, space: ItemSpace, weighting: Weighting, joined: Joined, identity: tuple[int, int]
) -> Learned:
    """Learn a cookie's history as the customer's, unless that was done, or the customer is not known or refuses it."""
    partition, offset = identity
    (seen,) = shard.seen.mark(hash_ids([joined.id])).tolist()
    users = shard.users.lookup([joined.user])
    if seen or users[0] < 0 or denied(shard, users, ANALYTICS)[0] or not joined.past:
        return Learned.of_request([], [])
    touches = Touches(
        np.zeros(len(joined.past), dtype=np.int32),
        space.encode([touch.item_id for touch in joined.past]),
        np.array([KINDS.get(touch.event_name, 0) for touch in joined.past], dtype=np.uint8),
        np.array([touch.second - YEAR_2000_S for touch in joined.past], dtype=np.int64).astype(np.uint32),
        np.array([touch.starts for touch in joined.past], dtype=np.bool_),
    )
    person = np.full(len(touches.ts), hash_ids([joined.user])[0])
    kept = ~shard.tombstones.cover(person, touches.ts.astype(np.int64))  # the history may come after it was forgotten
    touches = Touches._make(column[kept] for column in touches)
    if len(touches.ts) == 0:
        return Learned.of_request([], [])
    shard.changes.add(users)
    deltas = adopt(shard.histories, int(users[0]), touches, weighting)
    shard.counts["joined"] += 1
    origin = Origin.of_record(offset, len(deltas.item))
    return _ranked(shard, users, send_deltas(deltas, origin, space, shard, partition, offset))


def _ranked(shard: UserShard, users: NDArray[np.int32], sends: list[Send]) -> Learned:
    """Sends, and a new list for the user whose history has changed."""
    ts_ms = (shard.profiles.arrays.last_ts[users].astype(np.int64) + YEAR_2000_S) * 1000
    return Learned(sends, users, ts_ms, np.zeros(0, dtype=np.int64))


def _is_id(cookie: str) -> bool:
    return cookie.isprintable() and len(cookie.encode()) <= MAX_ID_BYTES

"""From a cookie to a customer: the history of a visitor who has logged in follows to the customer's partition.

The first event with both ids (later ones once an hour at most, logins once a minute) sends a `Linked` to the cookie's
partition. There, what the cookie's history taught is taken back, and the history goes as a `Joined` to the customer's
partition, where it is learned as the customer's. Each step is a record of topic ``events``, in line with the events of
its user.

Partitions lag differently, so that of two customers at one browser the later login may be heard of first, and takes
what is the other's. Once that one's is heard of, a `Returned` takes it back: what was touched belongs to whoever logged
in next, by event time, whatever was heard of first (see `stream.stages.claims`).

A crash repeats a step, and its record then comes twice. Every link and every history has a *place* in the log of the
partition that sent it; places rise from record to record, so what is not above the highest place heard of its source
was there before. What moves is thus decided by the first copy alone, and is a pure function of the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.covisitation import Weighting
from models.decay import YEAR_2000_S
from models.hashing import hash_ids, partition_of
from models.histories import Touches
from models.joined_histories import joined, newest, rewrite, without
from models.profiles import ANALYTICS, CUSTOMER, PERSONALISATION
from stream.decoding import Batch
from stream.events import (
    KINDS,
    MAX_ID_BYTES,
    MAX_MOVES,
    Back,
    Disowned,
    Forget,
    Joined,
    Link,
    Linked,
    Past,
    PastTouch,
    Returned,
)
from stream.packing import Origin
from stream.stages.admission import Admitted
from stream.stages.claims import Owner, Verdict
from stream.stages.learned import Learned
from stream.stages.outgoing import send_deltas
from stream.stages.pushing import denied
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard

# What programs send where they have no id, in small letters; and whatever is of zeros and dashes alone: a device's
# advertising id whose owner has opted out.
PLACEHOLDERS: Final = {
    *("undefined", "null", "none", "nil", "nan", "false", "true", "unknown", "anonymous", "anon", "guest", "(none)"),
    *("(not set)", "(not provided)", "[object object]"),
}
AGAIN_S: Final = 3_600  # of event time: a visitor may have left and come back under the cookie alone
LOGIN_S: Final = 60  # who says that he logs in has been away before
LOGINS: Final = frozenset((KINDS["login"], KINDS["sign_up"]))
LINKS, HISTORIES, RETURNS = range(3)
PLACES: Final = 1_024  # in a record, more than MAX_ELEMENTS and MAX_MOVES
MOST_BYTES: Final = 524_288  # of a record, half of what one may have
KIND_NAMES: Final = tuple(KINDS)
STRIDE: Final = np.uint64(0x9E3779B97F4A7C15)
_second: Final = attrgetter("second")

Moving = TypeVar("Moving", Link, Past, Back)
Addressed = TypeVar("Addressed", Link, Past)
Moves = Linked | Joined | Returned


def links(shard: UserShard, batch: Batch, admitted: Admitted, partition: int, partitions: int) -> list[Send]:
    """A link for each learned event with a cookie beside its customer, unless the two were linked a short while ago.

    A pure function of the shard and the records, whatever the batches.
    """
    events = [
        event
        for event, cookie in batch.cookies.items()
        if admitted.keep[event] and _names_somebody(cookie) and _names_somebody(batch.user[event])
    ]
    if not events:
        return []
    logins = np.array([batch.kind[event] in LOGINS for event in events])
    seconds = np.array([batch.ts[event] // 1_000_000 for event in events])
    whiles = np.column_stack((seconds // AGAIN_S, seconds // np.where(logins, LOGIN_S, AGAIN_S))).astype(np.uint64)
    pairs = shard.hashes[admitted.index[events]] ^ hash_ids([batch.cookies[event] for event in events]) * STRIDE
    seen = shard.linked.mark((pairs[:, None] ^ whiles << np.uint64(32)).ravel()).reshape(-1, 2)
    found = []
    for at in np.flatnonzero(~np.where(logins, seen[:, 1], seen[:, 0])).tolist():
        event = events[at]
        place = _place(batch.offset[event], batch.index[event])
        found.append(Link(batch.cookies[event], batch.user[event], batch.ts[event] // 1_000_000, place))
    return _sends(Linked, partition, _by_home(found, partitions))


def hand_over(
    shard: UserShard,
    space: ItemSpace,
    weighting: Weighting,
    linked: Linked,
    identity: tuple[int, int],
    partitions: int,
) -> Learned:
    """Take cookies' histories, up to their links, out of a shard and send them to the customers'.

    `identity` is partition and offset. Who ever came as a customer keeps what is his, whoever names him as a cookie;
    so does who refuses to be learned from or to have lists, which a customer's list would then be made of.
    """
    partition, offset = identity
    heard = _unheard(shard, LINKS, linked.source, _in_time(linked.moving), offset)
    moving = _by_home(heard, partitions)
    found = moving.pop(partition, [])
    sends = _sends(Linked, partition, moving)
    users = shard.users.lookup([link.user for link in found])
    customers = users >= 0
    customers[customers] = (shard.profiles.arrays.flags[users[customers]] & CUSTOMER) > 0
    shard.counts["not_cookies"] += int(np.count_nonzero(customers))
    found, users = [link for link, no in zip(found, customers, strict=True) if not no], users[~customers]
    claims = _hear(shard, found, partitions)
    holders = np.unique(users[users >= 0])
    refused = denied(shard, holders, ANALYTICS) | denied(shard, holders, PERSONALISATION)
    holders = holders[~refused & (shard.histories.arrays.count[holders] > 0)]
    touches = _recall(shard, holders)
    taker = np.full(len(touches.user), -1)
    for n in np.flatnonzero(np.isin(users, holders)).tolist():  # of most nothing is known, or it has moved
        theirs = (touches.user == users[n]) & (touches.ts > claims[n].verdict.after - YEAR_2000_S)
        taker[(taker < 0) & theirs & (touches.ts <= found[n].second - YEAR_2000_S)] = n
    movers = np.unique(touches.user[taker >= 0])
    if len(movers):
        shard.changes.add(movers)
        rest = _those(touches, (taker < 0) & np.isin(touches.user, movers))
        deltas = rewrite(shard.histories, movers, rest, weighting)
        sends += send_deltas(deltas, Origin.of_record(offset, len(deltas.item)), space, shard, partition, offset)
    takers = set(taker.tolist())
    told = [_told(_those(touches, taker == n), space) if n in takers else [] for n in range(len(found))]
    pasts, returns = _settle(shard, claims, told, offset)
    sends += _sends(Joined, partition, _by_home(pasts, partitions)) + _sends(Returned, partition, returns)
    return _ranked(shard, movers, sends)


def take_over(
    shard: UserShard,
    space: ItemSpace,
    weighting: Weighting,
    joined_: Joined,
    identity: tuple[int, int],
    partitions: int,
) -> Learned:
    """Learn cookies' histories as their customers', but of those who are not known, refuse it, or were forgotten."""
    partition, offset = identity
    moving = _by_home(_unheard(shard, HISTORIES, joined_.source, joined_.moving, offset), partitions)
    found = moving.pop(partition, [])
    sends = _sends(Joined, partition, moving)
    users = shard.users.lookup([past.user for past in found])
    welcome = users >= 0
    welcome[welcome] = ~denied(shard, users[welcome], ANALYTICS)
    source = np.repeat(np.arange(len(found)), [len(past.touches) for past in found])
    touches = _read([touch for past in found for touch in past.touches], users[source], space)
    persons = hash_ids([past.user for past in found])[source]
    kept = welcome[source] & ~shard.tombstones.cover(persons, touches.ts.astype(np.int64))
    if not kept.any():
        return Learned.of_request(sends, [])
    touches = _those(touches, kept)
    heirs = np.unique(touches.user)
    shard.changes.add(heirs)
    whole = newest(joined(_recall(shard, heirs), touches, source[kept]), shard.histories.size)
    deltas = rewrite(shard.histories, heirs, whole, weighting)
    shard.counts["joined"] += len(np.unique(source[kept]))
    sends += send_deltas(deltas, Origin.of_record(offset, len(deltas.item)), space, shard, partition, offset)
    return _ranked(shard, heirs, sends)


def give_back(
    shard: UserShard, space: ItemSpace, weighting: Weighting, returned: Returned, identity: tuple[int, int]
) -> Learned:
    """Take out of customers' histories what is somebody's who had logged in before them at the same browser."""
    partition, offset = identity
    found = list(_unheard(shard, RETURNS, returned.source, returned.moving, offset))
    users = shard.users.of_hashes(np.array([int(back.person, 16) for back in found], dtype=np.uint64))
    lost = Counter(
        (int(user), touch.item_id, KINDS.get(touch.event_name, 0), touch.second - YEAR_2000_S)
        for user, back in zip(users, found, strict=True)
        for touch in back.touches
    )
    holders = np.unique(users[users >= 0])
    touches = _recall(shard, holders)
    gone = np.zeros(len(touches.user), dtype=np.bool_)
    columns = (touches.user.tolist(), space.ids.texts(touches.item), touches.kind.tolist(), touches.ts.tolist())
    for n, touch in enumerate(zip(*columns, strict=True)):
        gone[n] = lost[touch] > 0
        lost[touch] -= 1
    losers = np.unique(touches.user[gone])
    if not len(losers):
        return Learned.of_request([], [])
    shard.changes.add(losers)
    shard.counts["returned"] += len(losers)
    theirs = np.isin(touches.user, losers)
    rest = without(_those(touches, theirs), gone[theirs])
    deltas = rewrite(shard.histories, losers, rest, weighting)
    sends = send_deltas(deltas, Origin.of_record(offset, len(deltas.item)), space, shard, partition, offset)
    return _ranked(shard, losers, sends)


def disowned(request: Forget, partitions: int) -> list[Send]:
    """Have every partition drop what a forgotten customer took from its cookies: there it could go to others yet."""
    (person,) = hash_ids([request.user]).tolist()
    value = msgspec.json.encode(Disowned(person=f"{person:016x}"))
    return [Send("events", value, partition=partition) for partition in range(partitions)]


class _Claim(NamedTuple):
    link: Link
    cookie: int
    owner: Owner
    verdict: Verdict


def _hear(shard: UserShard, found: Sequence[Link], partitions: int) -> list[_Claim]:
    """What each link may have; links rise in time."""
    shard.claims.expire(shard.watermark // 1_000_000 - shard.rules.lateness_s)
    cookies, persons = (hash_ids(names).tolist() for names in ([x.user for x in found], [x.to for x in found]))
    owners = [
        Owner(person, partition_of(link.to.encode(), partitions)) for link, person in zip(found, persons, strict=True)
    ]
    verdicts = map(shard.claims.hear, cookies, [link.second for link in found], owners)
    return list(map(_Claim, found, cookies, owners, verdicts))


def _settle(
    shard: UserShard, claims: Sequence[_Claim], told: Sequence[list[PastTouch]], offset: int
) -> tuple[list[Past], dict[int, list[Back]]]:
    """What goes to the customers of links, and what others have to give back, by partition; it is remembered, too."""
    pasts: list[Past] = []
    returns: dict[int, list[Back]] = {}
    places = count()
    most = shard.histories.size
    for (link, cookie, owner, verdict), own in zip(claims, told, strict=True):
        held = []  # by the same customer already, since a later login
        for taken in verdict.taken:
            if taken.owner.person == owner.person:
                held += taken.touches
                continue
            own += taken.touches
            back = Back(f"{taken.owner.person:016x}", _place(offset, next(places)), taken.touches)
            returns.setdefault(taken.owner.home, []).append(back)
        own = sorted(own, key=_second)[-most:]
        if own:  # what came before is somebody else's, so a visit begins
            pasts.append(Past(link.to, link.place, [msgspec.structs.replace(own[0], starts=True), *own[1:]]))
        shard.claims.keep(cookie, link.second, owner, sorted(own + held, key=_second)[-most:])
    return pasts, returns


def _in_time(moving: Sequence[Link]) -> Sequence[Link]:
    """Links from the earliest to the latest, and of one second as `Claims` has them."""
    persons = hash_ids([link.to for link in moving]).tolist()
    return [moving[n] for n in sorted(range(len(moving)), key=lambda n: (moving[n].second, persons[n]))]


def _place(offset: int, n: int) -> int:
    """Of the n-th thing that a record gives rise to, among all that its partition ever sends."""
    return offset * PLACES + n


def _unheard(shard: UserShard, kind: int, source: int, moving: Sequence[Moving], offset: int) -> Iterator[Moving]:
    """What of a source is heard for the first time, with the place that it has here.

    Links and histories are told apart: one that is sent on, as its user lives elsewhere, overtakes what follows from
    others of its record.
    """
    heard = shard.heard.get((kind, source), -1)
    shard.heard[kind, source] = max([heard, *(each.place for each in moving)])
    for n, each in enumerate(moving):
        if each.place <= heard:
            shard.counts["links_repeated"] += 1
        else:
            yield msgspec.structs.replace(each, place=_place(offset, n))


def _by_home(moving: Iterable[Addressed], partitions: int) -> dict[int, list[Addressed]]:
    """What moves, by the partition that its user belongs to."""
    found: dict[int, list[Addressed]] = {}
    for each in moving:
        found.setdefault(partition_of(each.user.encode(), partitions), []).append(each)
    return found


def _sends(kind: Callable[..., Moves], source: int, moving: Mapping[int, list[Moving]]) -> list[Send]:
    return [
        Send("events", value, partition=home)
        for home, some in moving.items()
        for value in _values(lambda part: kind(source=source, moving=part), some)
    ]


def _values(made: Callable[[list[Moving]], Moves], moving: list[Moving]) -> list[bytes]:
    """One record, or several of about equal size where it would be too large."""
    value = msgspec.json.encode(made(moving))
    if len(moving) <= MAX_MOVES and (len(value) <= MOST_BYTES or len(moving) == 1):
        return [value]
    half = len(moving) // 2
    return _values(made, moving[:half]) + _values(made, moving[half:])


def _recall(shard: UserShard, users: NDArray[np.int32]) -> Touches:
    touches = shard.histories.recall(users)
    return touches._replace(user=users[touches.user])


def _those(touches: Touches, which: NDArray[np.bool_]) -> Touches:
    return Touches._make(column[which] for column in touches)


def _told(touches: Touches, space: ItemSpace) -> list[PastTouch]:
    columns = zip(
        space.ids.texts(touches.item), touches.kind.tolist(), touches.ts.tolist(), touches.starts.tolist(), strict=True
    )
    return [PastTouch(item, KIND_NAMES[kind], ts + YEAR_2000_S, starts) for item, kind, ts, starts in columns]


def _read(told: list[PastTouch], users: NDArray[np.int32], space: ItemSpace) -> Touches:
    return Touches(
        users,
        space.encode([touch.item_id for touch in told]),
        np.array([KINDS.get(touch.event_name, 0) for touch in told], dtype=np.uint8),
        np.array([touch.second - YEAR_2000_S for touch in told], dtype=np.int64).astype(np.uint32),
        np.array([touch.starts for touch in told], dtype=np.bool_),
    )


def _ranked(shard: UserShard, users: NDArray[np.int32], sends: list[Send]) -> Learned:
    """Sends, and new lists for users whose histories have changed."""
    ts_ms = (shard.profiles.arrays.last_ts[users].astype(np.int64) + YEAR_2000_S) * 1000
    return Learned(sends, users, ts_ms, np.zeros(0, dtype=np.int64))


def _names_somebody(name: str) -> bool:
    if not name.strip("0- ") or name.strip().lower() in PLACEHOLDERS:
        return False
    return name.isprintable() and (name.isascii() or len(name.encode()) <= MAX_ID_BYTES)

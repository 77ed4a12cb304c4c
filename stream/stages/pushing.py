"""From ranked users to the Redis writes of one flush: what changed, rendered; what ended, removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.decay import YEAR_2000_S
from models.hashing import hash_ids
from models.offer_ranking import Picked
from models.offer_table import OfferTable
from models.placement_lists import Placed, signatures
from models.profiles import ADS, CONSENT_MASK, DENIED, PERSONALISATION
from models.ranking import Lists
from stream.framing import Names, ProfileColumns, set_lists, set_offers, set_profiles
from stream.keys import OFFERS_TTL_S, PROFILE_TTL_S, RECS_TTL_S, Keys
from stream.rendering import Fragments
from stream.resp import WriteBatch
from stream.stages.sends import Send
from stream.stages.serving import Chosen
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard

LAST_SECOND: Final = 253_402_300_799  # end of the year 9999, for offers without one: what every reader's dates can hold
REFRESH_MS: Final = RECS_TTL_S * 500  # an unchanged list is written again after half its life
PROFILE_EVERY_MS: Final = 3_600_000  # unless the segment moved or consent changed


class Shelf(NamedTuple):
    """Offers as they are pushed, by row of the offer table: JSON of the id, end, and a hash of both.

    Rows are no identity, because offers come and go. `mark` has one more entry, 0, for row -1.
    """

    fragments: Fragments
    until_s: NDArray[np.int64]
    mark: NDArray[np.uint64]

    @classmethod
    def of(cls, table: OfferTable) -> Shelf:
        """What is pushed of a table's offers."""
        fragments = Fragments()
        fragments.put(np.arange(len(table.ids), dtype=np.int32), list(table.ids))
        marks = hash_ids([f"{name} {end}" for name, end in zip(table.ids, table.until_s, strict=True)])
        return cls(fragments, np.minimum(table.until_s, LAST_SECOND), np.append(marks, np.uint64(0)))


class Ranked(NamedTuple):
    """Users of one flush: time (ms) of each one's newest event, list, offers, and whether the segment moved."""

    users: NDArray[np.int32]
    ts_ms: NDArray[np.int64]
    lists: Lists
    picked: Picked
    moved: NDArray[np.bool_]
    placed: Sequence[Placed] = ()


@dataclass(slots=True)
class Pushes:
    """One flush: its writes, for how many users lists were ranked, and what is to be sent once it is written.

    `written` holds the lists whose like may be logged.
    """

    writes: WriteBatch
    lists: int
    written: list[Chosen] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)


def push(shard: UserShard, space: ItemSpace, keys: Keys, ranked: Ranked, shelf: Shelf, *, force: bool) -> Pushes:
    """Write what changed for the ranked users and remember what was written; with `force` also what did not change.

    Users' lists come with a list per placement; `Ranked.placed` has these.
    """
    writes = WriteBatch()
    refused = denied(shard, ranked.users, PERSONALISATION)
    written = _push_lists(shard, space, keys, ranked, refused, writes, force=force)
    _push_offers(shard, space, keys, ranked, shelf, writes, force=force)
    _push_profiles(shard, keys, ranked, refused, writes, force=force)
    return Pushes(writes, len(ranked.users), written)


def denied(shard: UserShard, users: NDArray[np.int32], grant: int) -> NDArray[np.bool_]:
    """Whether each user refuses what a grant covers, or never said and the default is no."""
    said = (shard.profiles.arrays.flags[users] >> np.uint8(grant)) & 3
    refused: NDArray[np.bool_] = said == DENIED
    return refused if shard.rules.consent else refused | (said == 0)


def _push_lists(
    shard: UserShard,
    space: ItemSpace,
    keys: Keys,
    ranked: Ranked,
    refused: NDArray[np.bool_],
    writes: WriteBatch,
    *,
    force: bool,
) -> list[Chosen]:
    users, lists, ts_ms = ranked.users, ranked.lists, ranked.ts_ms
    before = shard.last[users]
    gone = refused | (lists.item[:, 0] < 0)
    for user in users[gone & ((before[:, 0] >= 0) | force)]:
        writes.delete(keys.recs(shard.users.text(user)))
        shard.last[user] = -1
    changed = (lists.item != before).any(axis=1) | (ts_ms - shard.pushed_ms[users] >= REFRESH_MS) | force
    chosen = np.flatnonzero(changed & ~gone)
    some, changing, at_ms = lists.of(chosen), users[chosen], ts_ms[chosen]
    names = Names.of(keys.recs_form, shard.users, changing)
    writes.set_all(set_lists(names, some, at_ms, RECS_TTL_S, shard.rules.ranking.encode(), space.fragments))
    shard.last[changing] = some.item
    shard.pushed_ms[changing] = at_ms
    written = _push_placed(shard, space, keys, ranked, gone, writes, force=force)
    if shard.rules.served:
        certain = Placed(some, (some.item >= 0).astype(np.float64))
        written.append(Chosen(None, changing, at_ms, certain))
    return written


def _push_placed(
    shard: UserShard,
    space: ItemSpace,
    keys: Keys,
    ranked: Ranked,
    gone: NDArray[np.bool_],
    writes: WriteBatch,
    *,
    force: bool,
) -> list[Chosen]:
    """Write the lists of placements, but for users who are to have none: who refused, or for whom nothing is known.

    A list that the rules have left empty is written as such: without it readers would fall back on the plain one.
    """
    users, ts_ms = ranked.users, ranked.ts_ms
    written = []
    for column, (placement, placed) in enumerate(zip(shard.rules.placements, ranked.placed, strict=True)):
        before = shard.placed[users, column]
        now = signatures(placed.lists.item, space.ids.hashes, ts_ms // REFRESH_MS)
        now[gone] = 0
        shard.placed[users, column] = now
        for user in users[gone & ((before != 0) | force)]:
            writes.delete(keys.recs(shard.users.text(user), placement.name))
        chosen = np.flatnonzero(~gone & ((now != before) | force))
        some = placed.of(chosen)
        names = Names.of(keys.placement_form(placement.name), shard.users, users[chosen])
        model = shard.rules.ranking.encode()
        writes.set_all(set_lists(names, some.lists, ts_ms[chosen], RECS_TTL_S, model, space.fragments))
        written.append(Chosen(placement.name, users[chosen], ts_ms[chosen], some))
    return written


def _push_offers(
    shard: UserShard,
    space: ItemSpace,
    keys: Keys,
    ranked: Ranked,
    shelf: Shelf,
    writes: WriteBatch,
    *,
    force: bool,
) -> None:
    users, picked = ranked.users, ranked.picked
    picked.offer[denied(shard, users, ADS)] = -1
    before = shard.offers[users]
    if not (force or before.any() or (picked.offer >= 0).any()):
        return
    signature = _signatures(picked.offer, shelf, ranked.ts_ms)
    shard.offers[users] = signature
    for n in np.flatnonzero((signature == 0) & ((before != 0) | force)):
        writes.delete(keys.offers(shard.users.text(users[n])))
    chosen = np.flatnonzero((signature != 0) & ((signature != before) | force))
    if not len(chosen):
        return
    some = Picked(picked.offer[chosen], picked.score[chosen], picked.why[chosen])
    last = shelf.until_s[some.offer].max(axis=1, where=some.offer >= 0, initial=0)
    ttl_s = np.clip(last - shard.now_s, 1, OFFERS_TTL_S)
    names = Names.of(keys.offers_form, shard.users, users[chosen])
    until_ms = shelf.until_s * 1000
    writes.set_all(set_offers(names, some, ranked.ts_ms[chosen], ttl_s, until_ms, shelf.fragments, space.fragments))


def _signatures(picked: NDArray[np.int32], shelf: Shelf, ts_ms: NDArray[np.int64]) -> NDArray[np.uint64]:
    """What tells one pushed value from another, 0 for no offers: which offers, their ends, and the half of a lifetime.

    Without the time, a key would end before its offers.
    """
    signature = np.zeros(len(picked), dtype=np.uint64)
    for column in picked.T:
        signature = signature * np.uint64(1_000_003) + shelf.mark[column]
    period = (ts_ms // (OFFERS_TTL_S * 500)).astype(np.uint64)
    return np.where(picked[:, 0] < 0, np.uint64(0), signature + period)


def _push_profiles(
    shard: UserShard, keys: Keys, ranked: Ranked, refused: NDArray[np.bool_], writes: WriteBatch, *, force: bool
) -> None:
    users = ranked.users
    profiles = shard.profiles.arrays
    due = ranked.moved | (ranked.ts_ms - shard.profiled_ms[users] >= PROFILE_EVERY_MS)
    for user in users[refused & ((shard.profiled_ms[users] > 0) | force)]:
        writes.delete(keys.profile(shard.users.text(user)))
        shard.profiled_ms[user] = 0
    chosen = np.flatnonzero(due & ~refused)
    if not len(chosen):
        return
    some = users[chosen]
    columns = ProfileColumns(
        shard.segment[some],
        (profiles.last_ts[some].astype(np.int64) + YEAR_2000_S) * 1000,
        profiles.events[some],
        profiles.spend[some],
        profiles.flags[some] & np.uint8(CONSENT_MASK),
    )
    names = Names.of(keys.profile_form, shard.users, some)
    writes.hset_all(set_profiles(names, columns, PROFILE_TTL_S))
    shard.profiled_ms[some] = ranked.ts_ms[chosen]

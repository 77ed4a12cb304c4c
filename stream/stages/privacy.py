"""Forgetting a user, and telling what is kept of one: steps over (state, request), which say what is to be done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.covisitation import Deltas, Weighting, retract
from models.decay import YEAR_2000_S
from models.hashing import hash_ids
from models.profiles import ADS, ANALYTICS, GRANTED, PERSONALISATION
from stream.answers import Exported, Forgotten, Touch
from stream.events import KINDS, Control, Export, Forget, RankAgain, Request
from stream.keys import PRIVACY_TTL_S, Keys
from stream.resp import WriteBatch
from stream.stages.learned import Answer
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard

KIND_NAMES: Final = tuple(KINDS)
GRANTS: Final = {"analytics_storage": ANALYTICS, "personalization_storage": PERSONALISATION, "ad_personalization": ADS}
NEVER: Final = (0, 0)  # a tombstone's times for somebody who never asked
ELSEWHERE: Final = frozenset({"category", "affinity", "flags"})  # columns of a profile that are told in other words


class Removed(NamedTuple):
    """What forgetting takes away: deltas to subtract, indices of dropped users, keys to delete with the report."""

    deltas: Deltas
    users: NDArray[np.int32]
    answer: Answer


def forget(shard: UserShard, keys: Keys, weighting: Weighting, request: Forget) -> Removed:
    """Remove a user from a shard and leave a tombstone.

    Parameters
    ----------
    shard
        The state, changed in place.
    keys
        Builder of Redis keys.
    weighting
        As touches are learned with it.
    request
        Its time is set.

    Returns
    -------
    Removed
        What learning emitted for the history that is kept, negated; a pure function of state and request.

    Notes
    -----
    A request that comes again (the door may repeat it after a crash) removes nothing: the user may have come back.
    """
    asked_s = (request.asked_ms or 0) // 1000 - YEAR_2000_S
    (person,) = hash_ids([request.user]).tolist()
    repeated = asked_s <= shard.tombstones.of(person)[1]
    users = known(shard, [] if repeated else [request.user])
    deltas = retract(shard.histories, users, weighting)
    cut = bool((shard.histories.arrays.count[users] >= shard.shortest).any())
    if not repeated:
        shard.blend.forget_users(users, shard.histories.arrays)
        shard.drop(users)
        shard.claims.forget(person)
        shard.tombstones.put(person, max(asked_s, shard.watermark // 1_000_000 - YEAR_2000_S), asked_s)
    erased = erasure(keys, [] if repeated else [request.user], shard.named)
    report = Forgotten(
        request=request.request,
        known=len(users) > 0,
        already=repeated,
        until_ms=(shard.tombstones.of(person)[0] + YEAR_2000_S) * 1000,
        touches=len(deltas.item),
        pairs=len(deltas.other),
        cut=cut,
        keys=len(erased),
    )
    return Removed(deltas, users, _answered(keys, request, report, erased))


def erasure(keys: Keys, users: Sequence[str], placements: Collection[str]) -> WriteBatch:
    """Delete all that is kept of some users in Redis, answers excepted: these end by themselves."""
    writes = WriteBatch()
    for user in users:
        writes.delete(*(key for key in keys.user_keys(user, sorted(placements)) if key != keys.privacy(user)))
    return writes


def named_again(shard: UserShard, controls: Sequence[tuple[int, Control]]) -> tuple[NDArray[np.int32], list[str]]:
    """Users whose keys are to be written again: indices of those who are known, and ids of those who were forgotten.

    What is written again may be what a predecessor wrote after its successor had erased it.
    """
    named = [user for _, control in controls if isinstance(control, RankAgain) for user in control.users]
    unknown = [user for user, index in zip(named, shard.users.lookup(named).tolist(), strict=True) if index < 0]
    gone = [user for user in unknown if shard.tombstones.of(hash_ids([user]).tolist()[0]) != NEVER]
    return known(shard, named), gone


def known(shard: UserShard, users: list[str]) -> NDArray[np.int32]:
    """Indices of those users who are known."""
    found = shard.users.lookup(users)
    return found[found >= 0]


def export(shard: UserShard, space: ItemSpace, keys: Keys, request: Export) -> Answer:
    """Tell what is kept of a user outside of Redis."""
    users = known(shard, [request.user])
    told = _told(shard, space, request, users) if len(users) else Exported(request=request.request, known=False)
    told = msgspec.structs.replace(told, placements=sorted(shard.named))
    return _answered(keys, request, told, WriteBatch())


def _told(shard: UserShard, space: ItemSpace, request: Export, users: NDArray[np.int32]) -> Exported:
    touches = shard.histories.recall(users)
    names = space.ids.texts(touches.item)
    moments = zip(names, touches.kind.tolist(), touches.ts.tolist(), strict=True)
    profile = {name: column[users[0]] for name, column in shard.profiles.arrays._asdict().items()}
    weights = profile["affinity"]
    categories = space.categories.texts(profile["category"][weights > 0])
    said = {name: int(profile["flags"]) >> place & 3 for name, place in GRANTS.items()}
    return Exported(
        request=request.request,
        known=True,
        history=[
            Touch(item_id=item, event_name=KIND_NAMES[kind], event_timestamp=(ts + YEAR_2000_S) * 1_000_000)
            for item, kind, ts in moments
        ],
        profile={name: number.item() for name, number in profile.items() if name not in ELSEWHERE},
        affinity=dict(zip(categories, weights[weights > 0].tolist(), strict=True)),
        segment=int(shard.segment[users[0]]),
        consent={name: "granted" if grant == GRANTED else "denied" for name, grant in said.items() if grant},
    )


def _answered(keys: Keys, request: Request, told: Forgotten | Exported, writes: WriteBatch) -> Answer:
    writes.set(keys.privacy(request.user), msgspec.json.encode(told), PRIVACY_TTL_S)
    return Answer(request.user, writes)

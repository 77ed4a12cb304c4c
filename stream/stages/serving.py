"""What the user stage logs of the lists it has pushed: topic ``served``, one record per flush."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.placement_lists import Placed
from stream.keys import CONTRACT_VERSION
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserShard

MOST_LISTS: Final = 1_000  # of one record: 1.5 MB of 100 items each


class Chosen(NamedTuple):
    """Lists of one placement (None: the plain ones) that were written: whose, with which time (ms), and what."""

    placement: str | None
    users: NDArray[np.int32]
    ts_ms: NDArray[np.int64]
    placed: Placed


class ServedList(msgspec.Struct, frozen=True, gc=False):
    """One list as it was written to Redis.

    Attributes
    ----------
    user, ts, placement
        Whose, the time of the newest event included (ms UTC), and which placement's; None for ``recs``.
    items
        Places in the record's table of ids, best first.
    propensity
        For each item the probability with which it is in a list made from the same scores, above 0 to 1.
    """

    user: str
    ts: int
    placement: str | None
    items: list[int]
    propensity: list[float]


class Served(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Value of a record of topic ``served``: lists that one flush of a partition of ``events`` has written.

    Attributes
    ----------
    v
        Version of the contract.
    model, exp
        What ranked the lists; arm of a running experiment, if any.
    ids
        The distinct items.
    lists
        In no particular order. After a crash some come again.
    """

    v: int = CONTRACT_VERSION
    model: str
    exp: str | None = None
    ids: list[str]
    lists: list[ServedList]


def served(partition: int, shard: UserShard, space: ItemSpace, written: Sequence[Chosen]) -> list[Send]:
    """Records about written lists: of all if the rules say so, else of the placements that explore.

    Notes
    -----
    About 5 us per list.
    """
    rules = shard.rules
    exploring = {placement.name for placement in rules.placements if placement.exploration > 0}
    told = [chosen for chosen in written if rules.served or chosen.placement in exploring]
    lists = [one for chosen in told for one in _lists(shard, chosen)]
    sends = []
    for start in range(0, len(lists), MOST_LISTS):
        part = lists[start : start + MOST_LISTS]
        used, place = np.unique(
            np.concatenate([np.array(one.items, dtype=np.int32) for one in part]), return_inverse=True
        )
        places = np.split(place, np.cumsum([len(one.items) for one in part])[:-1])
        rows = [msgspec.structs.replace(one, items=row.tolist()) for one, row in zip(part, places, strict=True)]
        value = msgspec.json.encode(Served(model=rules.ranking, ids=space.ids.texts(used), lists=rows))
        sends.append(Send("served", value, partition=partition))
    return sends


def decode_served(value: bytes) -> Served:
    """Read a record of topic ``served``."""
    return msgspec.json.decode(value, type=Served)


def _lists(shard: UserShard, chosen: Chosen) -> list[ServedList]:
    """Lists with indices of items."""
    items, propensity = chosen.placed.lists.item, np.maximum(np.round(chosen.placed.propensity, 6), 1e-6)
    sizes = (items >= 0).sum(axis=1).tolist()
    rows = zip(shard.users.texts(chosen.users), chosen.ts_ms.tolist(), items.tolist(), propensity.tolist(), strict=True)
    return [
        ServedList(user, ts, chosen.placement, listed[:size], chances[:size])
        for (user, ts, listed, chances), size in zip(rows, sizes, strict=True)
    ]

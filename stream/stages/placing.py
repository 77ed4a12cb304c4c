"""Lists of placements: what the rules of each make of the long lists of one flush."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.hashing import hash_ids
from models.newcomers import Pool
from models.placement import Placement
from models.placement_lists import Placed, Rules, Stock, chances, place_lists
from models.ranking import Lists
from stream.events import KINDS
from stream.stages.space import ItemSpace
from stream.stages.user_shard import UserRules, UserShard

TURN_US: Final = 10_000_000  # event time after which a shard looks for new items again


class Placing:
    """The placements of a process.

    Parameters
    ----------
    rules
        What the shop decided.
    space
        The process's items.
    """

    def __init__(self, rules: UserRules, space: ItemSpace) -> None:
        self.placements: tuple[Placement, ...] = rules.placements
        self.explores = rules.explores
        self._space = space
        self._rules = [_rules(placement, placement.candidates(rules.history), space) for placement in self.placements]
        self._salts = hash_ids([placement.name for placement in self.placements])

    def place(self, shard: UserShard, users: NDArray[np.int32], wide: Lists) -> list[Placed]:
        """Each placement's lists for some users, from long ranked lists."""
        if not self.placements:
            return []
        space = self._space
        newcomers = shard.newcomers
        stock = Stock(space.category, space.hidden, space.scratch.place, newcomers.count, newcomers.below)
        pool = self._pool(shard)
        events = shard.profiles.arrays.events[users]
        found = []
        for rules, salt in zip(self._rules, self._salts, strict=True):
            out = Placed.empty(len(users), rules.k)
            chance = chances(shard.hashes[users], events, salt)
            place_lists(rules, wide, shard.histories.arrays, users, chance, pool, stock, out)
            found.append(out)
        return found

    def _pool(self, shard: UserShard) -> Pool:
        """New items as the shard's visitors know them; looked for every ten seconds of event time.

        They are items of the catalogue or, where there is none, such as have appeared at all.
        """
        if not self.explores:
            return Pool(np.zeros(0, dtype=np.int32), 1.0)
        turn = shard.watermark // TURN_US
        if shard.pool is None or shard.pool[0] != turn:
            space = self._space
            known = space.listed & ~space.hidden
            if not space.listed.any():
                met = np.flatnonzero(shard.newcomers.count)
                known[met[met < len(known)]] = True
            shard.pool = turn, shard.newcomers.pool(known, space.ids.hashes, turn)
        return shard.pool[1]


def _rules(placement: Placement, depth: int, space: ItemSpace) -> Rules:
    codes = space.encode_categories(list(placement.without))
    barred = np.zeros(int(codes.max(initial=-1)) + 1, dtype=np.bool_)
    barred[codes[codes >= 0]] = True
    return Rules.of(placement, depth, barred, KINDS["purchase"])

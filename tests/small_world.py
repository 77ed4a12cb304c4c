"""A handful of users and items, learned by the kernels and by their slow references at the same time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.covisitation import Weighting
from models.histories import Histories
from models.neighbour_rows import NeighbourRows
from models.ranking import Query
from tests.plain import (
    KINDS,
    PlainHistories,
    PlainRows,
    Ranked,
    Touch,
    deltas_of,
    near,
    plain_emit,
    plain_rank,
    plain_votes,
    vocabulary,
)

USERS, ITEMS = 4, 9
IDS = ["i10", "i9", "b", "a", "ä", "i1", "Z", "日本", "aa"]  # not in text order
HALF_LIFE_S = 3_600
WEIGHTING = Weighting(KINDS, near(), 3)
VOTES = Query(KINDS, near(1.5, 5), 3, 0.5)
WHOLE = np.zeros(ITEMS, dtype=np.int32)


class World:
    """The fast and the plain state after the same stream; times are whole half-lives, so that sums are exact."""

    def __init__(self, stream: Sequence[Touch], size: int = 4, neighbours: int = 5, transitions: int = 2) -> None:
        self.ids = vocabulary(IDS)
        self.histories, self.plain_histories = Histories(size), PlainHistories(size)
        self.histories.reserve(USERS)
        self.rows = NeighbourRows(neighbours, transitions, HALF_LIFE_S)
        self.rows.reserve(ITEMS)
        self.plain_rows = PlainRows(neighbours, transitions, HALF_LIFE_S, 1.0)
        for touch in stream:
            self.learn(touch._replace(ts=touch.ts * HALF_LIFE_S))

    def learn(self, touch: Touch) -> None:
        visits = plain_emit(self.plain_histories, [touch], WEIGHTING)
        self.histories.append(touch.user, touch.item, touch.kind, touch.ts, starts=touch.starts) if visits else None
        self.plain_rows.learn(visits)
        self.rows.learn(deltas_of(visits), WHOLE)

    def expected(self, user: int, votes: Query, k: int, hidden: Sequence[int] = ()) -> Ranked:
        recent = self.plain_histories.recent.get(user, [])
        seeds = self.plain_histories.distances(user, votes.gap)
        return plain_rank(plain_votes(seeds, self.plain_rows, votes), IDS, k, [*hidden, *(t.item for t in recent[:1])])

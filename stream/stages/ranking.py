"""How a shard's lists and offers are ranked, and what that learns: by the blend, or by co-visitation alone."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from models.blend_features import Desk, desk, votes
from models.blend_offers import rank_users_blended
from models.covisitation import Deltas, Weighting, emit, power_law
from models.histories import Touches
from models.offer_ranking import ItemFacts, OfferColumns, OfferScratch, Picked, Shoppers, rank_users
from models.ranking import Lists, Query, query
from models.weight_averaging import Opinion
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.stepwise import Stepwise
from stream.stages.user_shard import UserRules, UserShard
from stream.wire import BlendModel, Weighed, encode_global

STEP: Final = 250  # touches learned without a pause: 1 ms by the blend, 5 where each of them is a lesson


def pauses(touches: Touches) -> bool:
    """Whether others may run while a batch is learned."""
    return len(touches.user) > STEP


class Ranking(Protocol):
    """A way of ranking; it keeps nothing of a shard, whose state is in the shard."""

    def learn(self, shard: UserShard, touches: Touches) -> Stepwise[Deltas]:
        """Learn a batch, append it to the histories, and return what it teaches about pairs of items."""

    def rank(
        self,
        shard: UserShard,
        users: NDArray[np.int32],
        offers: OfferColumns,
        sums: OfferScratch,
    ) -> tuple[Lists, Picked]:
        """Rank lists and pick offers for some users, at the event time that the shard has reached.

        `sums` is workspace.
        """

    def tell(self, shard: UserShard, partition: int, offset: int) -> list[Send]:
        """What the global stage is to know after the record at an offset."""

    def hear(self, model: BlendModel) -> None:
        """Take over what the global stage made of that."""


def ranking_of(rules: UserRules, space: ItemSpace, weights: Weighting) -> Ranking:
    """The ranking that a shop has chosen, with the weight of each kind of event."""
    if rules.ranking == "blend":
        return BlendRanking(space, weights, votes(weights.kind, rules.near))
    near = power_law(rules.near)
    return CovisitRanking(space, weights, query(weights.kind)._replace(near=near, step_share=rules.step_share))


class CovisitRanking:
    """Neighbours of the recent items, in the neighbours' order.

    Parameters
    ----------
    space
        The process's items.
    weights
        How strongly touches teach.
    votes
        How recent items vote.
    """

    def __init__(self, space: ItemSpace, weights: Weighting, votes: Query) -> None:
        self._space = space
        self._weights = weights
        self._votes = votes

    def learn(self, shard: UserShard, touches: Touches) -> Stepwise[Deltas]:
        """See `Ranking`; 0.5 us per touch."""
        if pauses(touches):
            yield
        return emit(shard.histories.arrays, touches, self._weights)

    def rank(
        self,
        shard: UserShard,
        users: NDArray[np.int32],
        offers: OfferColumns,
        sums: OfferScratch,
    ) -> tuple[Lists, Picked]:
        """See `Ranking`; 2-6 us per user."""
        space = self._space
        lists, picked = Lists.empty(len(users), shard.rules.depth), Picked.empty(len(users))
        rank_users(
            shard.histories.arrays,
            users,
            space.rows.arrays,
            self._votes,
            facts_of(space),
            offers,
            Shoppers(shard.profiles.arrays, shard.segment, shard.now_s),
            space.scratch,
            sums,
            lists,
            picked,
        )
        return lists, picked

    def tell(self, shard: UserShard, partition: int, offset: int) -> list[Send]:
        """Nothing is learned here."""
        return []

    def hear(self, model: BlendModel) -> None:
        """Nothing to do."""


class BlendRanking:
    """The blend of co-visitation, similar sessions, content, repeats and popularity, weighed by what came next.

    Parameters
    ----------
    space
        The process's items.
    weights
        How strongly touches teach.
    votes
        How recent items vote.
    """

    def __init__(self, space: ItemSpace, weights: Weighting, votes: Query) -> None:
        self._space = space
        self._weights = weights
        self._votes = votes
        self._work: Desk | None = None
        self._mean: tuple[Opinion, BlendModel] | None = None

    def learn(self, shard: UserShard, touches: Touches) -> Stepwise[Deltas]:
        """See `Ranking`; 5-20 us per touch."""
        blend, space, histories = shard.blend, self._space, shard.histories.arrays
        if self._mean is not None:
            mean, model = self._mean
            partition, offset = blend.spoke_at
            blend.hear(mean, model.version, included=model.heard.get(partition, -1) >= offset)
        out, visits = Deltas.room(len(touches.user), histories.item.shape[1]), 0
        for start in range(0, len(touches.user), STEP):
            if pauses(touches):
                yield  # others may meet items, publish rows, take up records of the catalogue
            blend.reserve(space.ids.size)
            blend.consult(space.contents.catalogue)
            span, rows, desk_ = slice(start, start + STEP), space.rows.arrays, self._desk(shard)
            visits = blend.learn_some(
                histories, rows, touches, span, self._weights, self._votes, desk_, out, visits, test=not shard.rehearses
            )
        blend.watch()
        return out.first(visits)

    def rank(
        self,
        shard: UserShard,
        users: NDArray[np.int32],
        offers: OfferColumns,
        sums: OfferScratch,
    ) -> tuple[Lists, Picked]:
        """See `Ranking`; 10-18 us per user."""
        space = self._space
        shard.blend.consult(space.contents.catalogue)
        lists, picked = Lists.empty(len(users), shard.rules.depth), Picked.empty(len(users))
        rank_users_blended(
            shard.blend.arrays,
            shard.histories.arrays,
            users,
            space.rows.arrays,
            self._votes,
            facts_of(space),
            offers,
            Shoppers(shard.profiles.arrays, shard.segment, shard.now_s),
            self._desk(shard),
            sums,
            lists,
            picked,
        )
        return lists, picked

    def tell(self, shard: UserShard, partition: int, offset: int) -> list[Send]:
        """The shard's weights, now and then."""
        opinion = shard.blend.opinion()
        if opinion is None:
            return []
        shard.blend.spoke_at = partition, offset
        record = Weighed(partition, offset, opinion.lessons, opinion.weight.tolist(), opinion.square.tolist())
        return [Send("global", encode_global(record), partition=0)]

    def hear(self, model: BlendModel) -> None:
        """Keep the mean; each shard moves towards it with its next batch."""
        self._mean = Opinion(np.array(model.weight), np.array(model.square), model.lessons), model

    def _desk(self, shard: UserShard) -> Desk:
        """Working memory that fits the items and the histories."""
        work, history = self._work, shard.histories.size
        if work is None or work.scratch is not self._space.scratch or len(work.recent) != history:
            work = self._work = desk(self._space.scratch, history)
        return work


def facts_of(space: ItemSpace) -> ItemFacts:
    """What ranking reads about items."""
    return ItemFacts(space.hidden, space.category, space.ids.blob, space.ids.spans)

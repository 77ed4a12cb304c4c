"""Blended lists and offers of one pass, against the blend's own lists and the slow formula of offers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.blend_features import Sources, describe, desk, votes
from models.blend_offers import rank_users_blended
from models.blend_ranker import BlendRanker
from models.offer_ranking import ItemFacts, OfferColumns, OfferScratch, Picked, Shoppers
from models.offer_table import build_table
from models.offers import Offer, Shopper, score_offers
from models.profiles import Profiles
from models.ranking import Lists, scratch
from tests.streams import ITEM_IDS, TOUCHES, Touch, stream_of

OFFERS = [
    Offer(id="few", items=(ITEM_IDS[0], ITEM_IDS[3]), value=3.0),
    Offer(id="many", items=tuple(ITEM_IDS[1:8]), value=1.0),
    Offer(id="one", items=(ITEM_IDS[2],), value=2.0),
]


def learned(touches: list[Touch]) -> BlendRanker:
    model = BlendRanker(history=60)
    stream = stream_of(touches)
    for key, item in zip(stream.key.tolist(), stream.item.tolist(), strict=True):
        model.learn_one(str(key), ITEM_IDS[item])
    return model


def ranked(model: BlendRanker, offers: list[Offer], hidden: set[int]) -> tuple[Lists, Picked, list[str]]:
    users = np.arange(len(model._users), dtype=np.int32)
    items = model._items
    index = dict(zip(items.texts(range(len(items))), range(len(items)), strict=True))
    table = build_table(offers, lambda item: index.get(item, 10_000), lambda _: 0, ())
    profiles = Profiles()
    profiles.reserve(len(users))
    shoppers = Shoppers(profiles.arrays, np.full(len(users), -1, dtype=np.int16), 0)
    unseen = np.zeros(len(items), dtype=np.bool_)
    unseen[list(hidden)] = True
    facts = ItemFacts(unseen, np.full(len(items), -1, dtype=np.int32), items.blob, items.spans)
    lists, picked = Lists.empty(len(users), 20), Picked.empty(len(users))
    work = desk(scratch(len(items)), 60)
    histories, rows = model._histories.arrays, model._rows.arrays
    arrays = model.blend.arrays
    columns = OfferColumns.of(table)
    sums = OfferScratch.of(columns)
    rank_users_blended(arrays, histories, users, rows, votes(), facts, columns, shoppers, work, sums, lists, picked)
    assert not work.scratch.score.any()
    assert not work.candidates.place.any()
    return lists, picked, list(table.ids)


def chances(model: BlendRanker, user: int) -> dict[str, float]:
    """What the blend holds each candidate's chance to be, up to a factor."""
    work = model._desk()
    arrays = model.blend.arrays
    state = (arrays.postings, arrays.tallies, arrays.races, arrays.catalogue)
    sources = Sources(model._histories.arrays, model._rows.arrays, *state)
    found = describe(sources, user, votes(), work)
    weight = arrays.learner.weight[0] + arrays.learner.weight[work.group[0]] + arrays.learner.weight[work.group[1]]
    names = model._items.texts(work.candidates.item[1:found])
    logits = weight @ work.candidates.x[:, 1:found].astype(np.float64)
    return dict(zip(names, np.exp(logits - logits.max(initial=0.0)).tolist(), strict=True))


@given(touches=TOUCHES.filter(lambda touches: len(touches) > 0), data=st.data())
@settings(deadline=None, max_examples=40)
def test_offers_are_scored_by_the_chances_that_rank_the_list(touches: list[Touch], data: st.DataObject) -> None:
    model = learned(touches)
    size = len(model._items)
    hidden = data.draw(st.sets(st.integers(0, size - 1), max_size=size))
    lists, picked, ids = ranked(model, OFFERS, hidden)
    plain, none, _ = ranked(model, [], hidden)
    assert (none.offer == -1).all()
    assert lists.item.tolist() == plain.item.tolist()
    assert lists.why.tolist() == plain.why.tolist()
    gone = set(model._items.texts(np.array(sorted(hidden), dtype=np.int32)))
    for user in range(len(model._users)):
        shown = {item: chance for item, chance in chances(model, user).items() if item not in gone}
        expected = score_offers(shown, OFFERS, Shopper(), 0) if sum(shown.values()) else []
        found = {ids[o]: s for o, s in zip(picked.offer[user], picked.score[user], strict=True) if o >= 0}
        near = {scored.offer_id: scored.score for scored in expected if scored.score > 1e-6}
        assert {name: found[name] for name in near} == pytest.approx(near, rel=1e-3)
        for o, why in zip(picked.offer[user], picked.why[user], strict=True):
            if o >= 0:
                assert model._items.text(int(why)) in next(offer.items for offer in OFFERS if offer.id == ids[o])

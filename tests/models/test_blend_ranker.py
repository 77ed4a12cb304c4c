"""The blend in one process: the evaluator's kernel against River's interface, and lists that do not depend on luck."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.blend import PRIOR, Blend
from models.blend_features import votes
from models.blend_ranker import PARTS, BlendRanker, run
from models.candidates import clear
from models.evaluation import measure
from models.ranking import Lists
from models.text_features import Facts
from tests.blending import FACTS, described, teach
from tests.streams import ITEM_IDS, TOUCHES, Touch, stream_of


@given(touches=TOUCHES, partitions=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_evaluator_lists_what_the_class_lists(touches: list[Touch], partitions: int) -> None:
    """With several partitions: what as many blends list that share rows and catalogue, each with its own visitors."""
    facts = tuple(FACTS.get(item, Facts()) for item in ITEM_IDS)
    stream = stream_of(touches, facts=facts)
    lists = run(stream, 12, partitions)
    measure(stream, lists)
    model = BlendRanker()
    blends = [model.blend, *(Blend() for _ in range(partitions - 1))]
    rows = iter(lists.tolist())
    for n, (key, item, ts) in enumerate(zip(stream.key, stream.item, stream.ts, strict=True)):
        model.blend = blends[key % partitions]
        model.blend.reserve(len(model._items))
        if stream.scored[n]:
            expected = [ITEM_IDS[i] for i in next(rows) if i >= 0]
            assert [name for name, _ in model.recommend(str(key), 12)] == expected
        model.learn_one(str(key), ITEM_IDS[item], 1, {"ts": int(ts) - 946_684_800, **_context(facts[item])})


def test_partitions_know_their_own_visitors_only() -> None:
    """The lists of the test above differ where sessions and popularity are split."""
    chance = np.random.default_rng(1)
    touches = [
        (int(u), int(i), 1) for u, i in zip(chance.integers(0, 5, 300), chance.integers(0, 10, 300), strict=True)
    ]
    stream = stream_of(touches)
    assert (run(stream, 12, 1) != run(stream, 12, 3)).any()


@pytest.mark.parametrize("part", PARTS)
@given(touches=TOUCHES.filter(lambda touches: len(touches) > 0))
@settings(deadline=None, max_examples=20)
def test_parts_list_what_they_vote_for_and_nothing_else(part: str, touches: list[Touch]) -> None:
    facts = tuple(FACTS.get(item, Facts()) for item in ITEM_IDS)
    stream = stream_of(touches, facts=facts)
    lists = run(stream, 12, part=part)
    measure(stream, lists)
    model = BlendRanker(frozen=True)
    rows = iter(lists.tolist())
    for n, (key, item, ts) in enumerate(zip(stream.key, stream.item, stream.ts, strict=True)):
        if stream.scored[n]:
            features, work = described(model, str(key))
            clear(work.candidates, len(features))
            scores = {name: sum(PRIOR[f] * x[f] for f in PARTS[part]) for name, x in features.items()}
            scores.pop(ITEM_IDS[stream.item[stream.previous[n]]])
            listed = [ITEM_IDS[i] for i in next(rows) if i >= 0]
            assert set(listed) == {name for name, score in scores.items() if score > 0}
            assert all(scores[a] >= scores[b] - 2e-5 for a, b in pairwise(listed))
        model.learn_one(str(key), ITEM_IDS[item], 1, {"ts": int(ts) - 946_684_800, **_context(facts[item])})


def _context(facts: Facts) -> dict[str, object]:
    return {"title": facts.title, "price": facts.price} if facts.title else {}


def test_hidden_items_are_not_shown() -> None:
    model = BlendRanker()
    teach(model, [(n % 3, n % 7, 1) for n in range(40)])
    lists = Lists.empty(1, 20)
    hidden = np.ones(len(model._items), dtype=np.bool_)
    hidden[3] = False
    items, users = model._items, np.zeros(1, dtype=np.int32)
    histories, rows = model._histories.arrays, model._rows.arrays
    work = model._desk()
    model.blend.rank_many(histories, users, rows, votes(), hidden, items.blob, items.spans, work, lists)
    assert set(lists.item[0].tolist()) == {3, -1}


def test_same_lists_under_another_hash_seed() -> None:
    code = """
import numpy as np
from models.blend_ranker import BlendRanker
model = BlendRanker()
chance = np.random.default_rng(1)
for n in range(300):
    model.learn_one(f"u{chance.integers(20)}", f"i{chance.integers(30)}", 1, {"ts": n})
print([(model.recommend(f"u{u}"), model.explain(f"u{u}")) for u in range(20)], model.blend.weights.tolist())
"""
    answers = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert answers[0] == answers[1]
    assert len(answers[0]) > 1_000

"""Lists of placements against a plain reference, and what must hold of them whatever the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.histories import Histories
from models.list_quality import explore, same_category
from models.newcomers import POOL, Newcomers, Pool
from models.placement import Placement
from models.placement_lists import NEW, Placed, Rules, Stock, chances, place_lists, signatures
from models.ranking import Lists
from tests.plain import bounded
from tests.plain_lists import plain_select

PURCHASE = 3
ITEMS = 24
CATEGORIES = 4
SIZE = 6  # of a history

placements = st.builds(
    Placement,
    name=st.just("home"),
    k=st.integers(1, 6),
    exclude=st.sampled_from(["nothing", "bought", "seen"]),
    per_category=st.none() | st.integers(1, 3),
    diversity=st.sampled_from([0.0, 0.3, 1.0]),
    exploration=st.sampled_from([0.0, 0.2, 0.5]),
)
touched = st.lists(st.tuples(st.integers(0, ITEMS - 1), st.sampled_from([0, PURCHASE])), max_size=9)


@st.composite
def visitors(draw: st.DrawFn) -> list[tuple[list[int], list[int], list[tuple[int, int]]]]:
    """For each of some visitors ranked items, their falling scores, and touches, oldest first."""
    found = []
    for _ in range(draw(st.integers(1, 3))):
        items = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=14))
        scores = sorted(draw(st.lists(st.integers(1, 9), min_size=len(items), max_size=len(items))), reverse=True)
        found.append((items, scores, draw(touched)))
    return found


def ranked(rows: Sequence[tuple[list[int], list[int], Any]], depth: int) -> Lists:
    wide = Lists.empty(len(rows), depth)
    for u, (items, scores, _) in enumerate(rows):
        wide.item[u, : len(items)] = items
        wide.micro[u, : len(items)] = scores
        wide.why[u, : len(items)] = [(item * 7) % ITEMS for item in items]
        wide.reason[u, : len(items)] = [item % 3 for item in items]
    return wide


def plain_place(
    placement: Placement,
    depth: int,
    items: list[int],
    scores: list[int],
    recent: list[tuple[int, int]],
    category: list[int],
    hidden: list[bool],
    barred: set[int],
    pool: list[int],
    chance: int,
) -> tuple[list[int], list[float]]:
    """A placement's list as its rules say it; `recent` is the history, newest first."""
    items, scores = items[:depth], scores[:depth]
    gone = {item for item, _ in recent[:1]}
    if placement.exclude == "seen":
        gone |= {item for item, _ in recent}
    elif placement.exclude == "bought":
        gone |= {item for item, kind in recent if kind == PURCHASE}
    of = np.array([category[item] for item in items], dtype=np.int32)
    out = [item in gone or category[item] in barred for item in items]
    similar = same_category(of).tolist()
    most = placement.per_category or len(items)
    places = plain_select([float(s) for s in scores], of.tolist(), similar, out, placement.diversity, most, placement.k)
    shown = [items[place] for place in places]
    fresh = [i for i in pool if i not in shown and i not in gone and not hidden[i] and category[i] not in barred]
    room, propensity = np.empty(placement.k, dtype=np.int32), np.empty(placement.k)
    share = placement.exploration
    ranked_, pool_ = (np.array(part, dtype=np.int32) for part in (shown, fresh))
    length = explore(ranked_, pool_, 0.5, share, np.uint64(chance), room, propensity)
    return room[:length].tolist(), propensity[:length].tolist()


@given(
    placement=placements,
    rows=visitors(),
    category=st.lists(st.integers(-1, CATEGORIES - 1), min_size=ITEMS, max_size=ITEMS),
    hidden=st.sets(st.integers(0, ITEMS - 1), max_size=3),
    common=st.sets(st.integers(0, ITEMS - 2), max_size=3),
    barred=st.sets(st.integers(0, CATEGORIES - 1), max_size=2),
    pool=st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=8),
    depth=st.integers(1, 14),
    chance=st.integers(0, 2**63),
)
@bounded
def test_lists_equal_the_plain_rules(
    placement: Placement,
    rows: list[tuple[list[int], list[int], list[tuple[int, int]]]],
    category: list[int],
    hidden: set[int],
    common: set[int],
    barred: set[int],
    pool: list[int],
    depth: int,
    chance: int,
) -> None:
    histories = Histories(SIZE)
    histories.reserve(len(rows))
    for user, (_, _, touches) in enumerate(rows):
        for second, (item, kind) in enumerate(touches):
            histories.append(user, item, kind, second)
    wide = ranked(rows, 14)
    before = [column.copy() for column in wide]
    flags = [item in hidden for item in range(ITEMS)]
    bars = np.array([c in barred for c in range(CATEGORIES)], dtype=np.bool_)[: max(barred, default=-1) + 1]
    place = np.zeros(ITEMS, dtype=np.int32)
    # what has appeared too often since the pool was made, is left out as what is hidden
    appeared = np.array([2 if item in common else 1 for item in range(ITEMS - 1)], dtype=np.uint32)
    stock = Stock(np.array(category, dtype=np.int32), np.array(flags), place, appeared, 2)
    flags = [hide or item in common for item, hide in enumerate(flags)]
    users = np.arange(len(rows), dtype=np.int32)
    draw = np.array([chance + user for user in users.tolist()], dtype=np.uint64)
    out = Placed.empty(len(rows), placement.k)
    rules = Rules.of(placement, depth, bars, PURCHASE)
    place_lists(rules, wide, histories.arrays, users, draw, Pool(np.array(pool, dtype=np.int32), 0.5), stock, out)

    assert not place.any()
    assert all((a == b).all() for a, b in zip(before, wide, strict=True))
    for user, (items, scores, _) in enumerate(rows):
        kinds = histories.recall(np.array([user], dtype=np.int32))
        recent = list(zip(kinds.item.tolist(), kinds.kind.tolist(), strict=True))[::-1]
        shown, propensity = plain_place(
            placement, depth, items, scores, recent, category, flags, barred, pool, chance + user
        )
        size = len(shown)
        assert out.lists.item[user].tolist() == shown + [-1] * (placement.k - size)
        assert out.propensity[user, :size].tolist() == propensity
        for at, item in enumerate(shown):
            told = tuple(int(column[user, at]) for column in out.lists[1:])
            if item in items[:depth] and told[2] != NEW:
                assert told == (scores[items.index(item)], (item * 7) % ITEMS, item % 3)
            else:
                assert item in pool
                assert told == (0, -1, NEW)


def test_a_placement_without_rules_is_the_ranked_list() -> None:
    rows = [(list(range(1, 9)), list(range(9, 1, -1)), [(0, 0)])]
    histories = Histories(SIZE)
    histories.append(0, 0, 0, 1)
    stock = Stock(
        np.zeros(ITEMS, dtype=np.int32),
        np.zeros(ITEMS, dtype=np.bool_),
        np.zeros(ITEMS, dtype=np.int32),
        np.zeros(0, dtype=np.uint32),
        1,
    )
    out, wide = Placed.empty(1, 5), ranked(rows, 8)
    nobody, draw = np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.uint64)
    rules = Rules.of(Placement("x", k=5), 5, np.zeros(0, dtype=np.bool_), PURCHASE)
    place_lists(rules, wide, histories.arrays, nobody, draw, Pool(np.zeros(0, dtype=np.int32), 1.0), stock, out)
    first = wide.first(5)
    for name in Lists._fields:
        assert getattr(out.lists, name).tolist() == getattr(first, name).tolist()
    assert out.propensity.tolist() == [[1.0] * 5]


def test_what_is_drawn_follows_from_user_event_and_placement() -> None:
    hashes, events = np.array([7, 7, 8, 7], dtype=np.uint64), np.array([1, 1, 1, 2], dtype=np.uint32)
    one, two = (chances(hashes, events, np.uint64(salt)) for salt in (1, 2))
    assert one[0] == one[1]
    assert len({*one.tolist(), *two.tolist()}) == 6


def test_signatures_tell_lists_apart_by_ids_not_by_indices() -> None:
    def sign(items: list[int], hashes: NDArray[np.uint64], period: int = 5) -> int:
        rows = np.array([items], dtype=np.int32)
        return int(signatures(rows, hashes, np.array([period], dtype=np.int64))[0])

    hashes = np.array([11, 12, 13], dtype=np.uint64)
    found = [sign(items, hashes) for items in ([0, 1], [1, 0], [0, -1], [-1, -1], [0, 1])]
    assert len(set(found)) == 4
    assert found[0] == found[4] == sign([2, 1], hashes[::-1].copy()[[0, 1, 2]])
    assert sign([0, 1], hashes, 6) != found[0]
    assert min(found) > 1  # 0 and 1 mean something else


@given(
    seen=st.lists(st.integers(0, ITEMS - 1), max_size=40),
    known=st.sets(st.integers(0, ITEMS - 1)),
    dropped=st.sets(st.integers(0, ITEMS - 1), max_size=3),
    below=st.integers(1, 3),
)
@bounded
def test_new_is_what_has_appeared_too_little(seen: list[int], known: set[int], dropped: set[int], below: int) -> None:
    newcomers = Newcomers(below)
    newcomers.learn_many(np.array(seen, dtype=np.int32))
    newcomers.drop_items(np.array(sorted(dropped), dtype=np.int32))
    newcomers = Newcomers.restore(newcomers.snapshot(), below)
    flags = np.array([item in known for item in range(ITEMS)])
    hashes = np.random.default_rng(1).integers(0, 2**63, ITEMS).astype(np.uint64)
    found = newcomers.pool(flags, hashes, turn=3).item.tolist()
    assert sorted(found) == sorted(i for i in known if i in dropped or seen.count(i) < below)
    shuffled = np.random.default_rng(2).permutation(ITEMS)  # another process has met the items in another order
    moved = Newcomers(below)
    moved.learn_many(shuffled[[i for i in seen if i not in dropped]].astype(np.int32))
    flags_, hashes_ = np.zeros_like(flags), np.zeros_like(hashes)
    flags_[shuffled], hashes_[shuffled] = flags, hashes
    assert moved.pool(flags_, hashes_, turn=3).item.tolist() == shuffled[found].tolist()


def test_every_new_item_has_its_turn() -> None:
    known = np.ones(2 * POOL, dtype=np.bool_)
    hashes = np.random.default_rng(1).integers(0, 2**63, len(known)).astype(np.uint64)
    turns = [set(Newcomers().pool(known, hashes, turn).item.tolist()) for turn in range(20)]
    assert {len(turn) for turn in turns} == {POOL}
    assert len(set.union(*turns)) > 0.99 * len(known)

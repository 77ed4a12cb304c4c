from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models.newcomers
from models.list_quality import NO_CATEGORY, arrange, explore, same_category, select_diverse
from models.newcomers import Newcomers
from models.placement import PLACEMENTS, Placement, PlacementError, load_placements
from tests.plain import bounded
from tests.plain_lists import plain_select

candidates = st.lists(st.tuples(st.integers(1, 9), st.integers(-1, 3), st.booleans()), max_size=15)


@given(
    cells=candidates,
    diversity=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    per_category=st.integers(1, 4),
    k=st.integers(1, 8),
    seed=st.integers(0, 9),
)
@bounded
def test_selection_equals_plain_marginal_relevance(
    cells: list[tuple[int, int, bool]], diversity: float, per_category: int, k: int, seed: int
) -> None:
    cells = sorted(cells, key=lambda cell: -cell[0])
    scores = np.array([score for score, _, _ in cells], dtype=np.float64)
    category = np.array([c for _, c, _ in cells], dtype=np.int32)
    excluded = np.array([out for *_, out in cells], dtype=np.bool_)
    drawn = np.random.default_rng(seed).integers(0, 5, (len(cells), len(cells))) / 4
    alike = same_category(category)
    none = np.zeros((0, 0), dtype=np.float32)
    for similarity, given_ in ((alike, alike), (alike, none), (drawn_ := np.maximum(drawn, drawn.T), drawn_)):
        room = np.full(k, -1, dtype=np.int32)
        given_ = given_.astype(np.float32)
        filled = select_diverse(scores, category, given_, excluded, diversity, per_category, room)
        plain = plain_select(
            scores.tolist(), category.tolist(), similarity.tolist(), excluded.tolist(), diversity, per_category, k
        )
        assert room[:filled].tolist() == plain


@pytest.mark.parametrize(
    ("share", "k", "ranked", "new"),
    [(0.25, 4, 4, 6), (0.3, 5, 9, 4), (0.1, 3, 3, 2), (0.5, 4, 2, 1), (0.4, 1, 1, 3), (0.2, 5, 0, 2), (0.4, 5, 5, 12)],
)
def test_propensities_are_the_frequencies(
    share: float, k: int, ranked: int, new: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the pool on, which is drawn itself where there are more new items than it holds."""
    rounds = 20_000
    monkeypatch.setattr(models.newcomers, "POOL", 4)
    known = np.arange(100 + new) >= 100
    hashes = np.random.default_rng(1).integers(0, 2**63, len(known)).astype(np.uint64)
    shown: Counter[int] = Counter()
    told: dict[int, set[float]] = {}
    places: Counter[int] = Counter()
    for chance in range(rounds):
        out, propensity = np.empty(k, dtype=np.int32), np.empty(k)
        fresh, drawn = Newcomers().pool(known, hashes, chance)
        length = explore(np.arange(ranked, dtype=np.int32), fresh, drawn, share, np.uint64(chance), out, propensity)
        items = out[:length].tolist()
        assert len(set(items)) == length <= k
        assert [i for i in items if i < 100] == list(range(sum(i < 100 for i in items)))  # in their order
        shown.update(items)
        places.update(place for place, item in enumerate(items) if item >= 100)
        for item, p in zip(items, propensity[:length].tolist(), strict=True):
            told.setdefault(item, set()).add(round(p, 9))
    for item, (p,) in told.items():
        assert shown[item] / rounds == pytest.approx(p, abs=0.015), item
    given_away = sum(count for item, count in shown.items() if item >= 100) / rounds
    assert given_away <= share * k + 0.02
    if ranked:
        assert places[0] == 0


def test_the_same_visitor_and_event_see_the_same() -> None:
    plain = (np.arange(9, dtype=np.int32), np.linspace(1, 0.1, 9), np.full(9, NO_CATEGORY, dtype=np.int32))
    rest = (same_category(plain[2]), np.zeros(9, dtype=np.bool_), np.arange(50, 60, dtype=np.int32))
    placement = Placement("home", k=5, exploration=0.3)
    lists = [arrange(placement, *plain, *rest, chance).item.tolist() for chance in (7, 7, 8, -3)]
    assert lists[0] == lists[1] != lists[2]
    assert all(len(items) == 5 for items in lists)


@given(cells=candidates, chance=st.integers(-(2**70), 2**70), name=st.sampled_from(sorted(PLACEMENTS)))
@bounded
def test_every_placement_keeps_its_rules(cells: list[tuple[int, int, bool]], chance: int, name: str) -> None:
    placement = PLACEMENTS[name]
    cells = sorted(cells, key=lambda cell: -cell[0])
    items = np.arange(len(cells), dtype=np.int32)
    category = np.array([c for _, c, _ in cells], dtype=np.int32)
    excluded = np.array([out for *_, out in cells], dtype=np.bool_)
    fresh = np.arange(len(cells) + 3, dtype=np.int32)[-5:]
    fresh = fresh[[n >= len(cells) or not excluded[n] for n in fresh.tolist()]]
    scores = np.array([score for score, _, _ in cells], dtype=np.float64)
    found = arrange(placement, items, scores, category, same_category(category), excluded, fresh, chance)
    listed = found.item.tolist()
    assert len(set(listed)) == len(listed) <= placement.k
    assert not any(excluded[i] for i in listed if i < len(cells))
    assert ((found.propensity > 0) & (found.propensity <= 1)).all()
    ranked = [i for i in listed if i < len(cells) and i not in fresh.tolist()]
    if placement.per_category:
        assert max(Counter(c for i in ranked if (c := cells[i][1]) >= 0).values(), default=0) <= placement.per_category
    if not placement.diversity:
        assert ranked == sorted(ranked)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"k": 0}, "k must"),
        ({"exclude": "all"}, "exclude must be one of nothing, bought, seen"),
        ({"per_category": 0}, "per_category"),
        ({"diversity": 1.1}, "diversity"),
        ({"diversity": float("nan")}, "diversity"),
        ({"exploration": 0.6}, "exploration"),
    ],
)
def test_rules_out_of_range_are_refused(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Placement(**{"name": "home", **wrong})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[placements]]\nk = 1", "placement number 1: Object missing required field `name`"),
        ("[[placements]]\nname = 'a'\ncolour = 1", "placement 'a': colour: unknown field; known are name, k, exclude,"),
        ("[[placements]]\nname = 'a'\nk = 'x'", "placement 'a': k: Expected `int`, got `str`"),
        ("[[placements]]\nname = 'a'\nexclude = 'x'", "placement 'a': exclude: Invalid enum value 'x'"),
        ("[[placements]]\nname = 'a'\ndiversity = 2", "placement 'a': diversity must be 0 to 1, not 2"),
        ("[[placements]]\nname = 'a'\nwithout = ['b', 3]", "placement 'a': without[1]: Expected `str`, got `int`"),
        ("[[placements]]\nname = 'a'\n" * 2, "placement 'a': name: used twice"),
        ("placements = [1]", "placement number 1: Expected `object`, got `int`"),
        ("[placements]\nname = 'a'", "placements: write [[placements]] with double brackets"),
        ("placement = 1", "unknown key 'placement', only [[placements]] is known"),
        ("x", "not TOML: Expected '='"),
        ("".join(f"[[placements]]\nname = 'p{n}'\n" for n in range(17)), "17 placements, at most 16 are possible"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_line(text: str, why: str) -> None:
    with pytest.raises(PlacementError) as error:
        load_placements(text, "shop.toml")
    assert str(error.value).startswith(f"shop.toml: {why}")
    assert "\n" not in str(error.value)


def test_a_file_says_what_its_placements_are() -> None:
    text = "[[placements]]\nname = 'cart'\nk = 8\nexclude = 'seen'\nper_category = 3\ndiversity = 0.1"
    assert load_placements(text, "f") == (PLACEMENTS["cart"],)
    assert load_placements("", "f") == ()


def test_candidates_are_as_many_as_the_rules_may_leave_out() -> None:
    assert Placement("a", k=5).candidates(20) == 5
    assert Placement("a", k=5, exclude="bought").candidates(20) == 25
    for rules in (Placement("a", k=5, per_category=1), Placement("a", k=5, without=("b",))):
        assert rules.candidates(20) == 15

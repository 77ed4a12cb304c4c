"""Slow references of the kernels in `models`: dictionaries and lists, written from the docstrings and the formulas."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.covisitation import Deltas, Weighting, power_law
from models.histories import Histories, Touches
from models.neighbour_rows import NeighbourRows
from models.ranking import Lists, Query, rank_rows, scratch
from models.vocabulary import Vocabulary

KINDS = np.array([0.0, 1.0, 1.0, 2.0, 3.0], dtype=np.float32)  # by rising strength; kind 0 teaches nothing
bounded = settings(max_examples=40, deadline=None)  # a busy machine is no failure


class Touch(NamedTuple):
    user: int
    item: int
    kind: int = 1
    ts: int = 0
    starts: bool = False


class Visit(NamedTuple):
    """What one touch teaches: `pairs` are (earlier item, weight, whether it came immediately before)."""

    item: int
    weight: float
    ts: int
    source: int
    pairs: tuple[tuple[int, float, bool], ...]


def touches(users: int = 5, items: int = 8, seconds: int = 10**6) -> st.SearchStrategy[Touch]:
    return st.builds(
        Touch,
        st.integers(0, users - 1),
        st.integers(0, items - 1),
        st.integers(0, len(KINDS) - 1),
        st.integers(0, seconds),
        st.booleans(),
    )


def streams(
    users: int = 5, items: int = 8, seconds: int = 10**6, *, most: int = 60, least: int = 0
) -> st.SearchStrategy[list[Touch]]:
    return st.lists(touches(users, items, seconds), min_size=least, max_size=most)


def columns(stream: Sequence[Touch]) -> Touches:
    return Touches(
        np.array([t.user for t in stream], dtype=np.int32),
        np.array([t.item for t in stream], dtype=np.int32),
        np.array([t.kind for t in stream], dtype=np.uint8),
        np.array([t.ts for t in stream], dtype=np.uint32),
        np.array([t.starts for t in stream], dtype=np.bool_),
    )


class PlainHistories:
    """Per user a list of touches, newest first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.recent: dict[int, list[Touch]] = {}

    def append(self, touch: Touch) -> bool:
        mine = self.recent.setdefault(touch.user, [])
        if mine and mine[0].item == touch.item and mine[0].kind >= touch.kind:
            return False
        self.recent[touch.user] = [touch, *mine][: self.size]
        return True

    def distances(self, user: int, gap: int) -> list[tuple[int, Touch]]:
        """Each touch with its place, newest first: one further per touch, `gap` further per session boundary."""
        found, crossed = [], 0
        for place, touch in enumerate(self.recent.get(user, [])):
            found.append((place + gap * crossed, touch))
            crossed += touch.starts
        return found


def plain_emit(histories: PlainHistories, stream: Sequence[Touch], weighting: Weighting) -> list[Visit]:
    visits = []
    for source, touch in enumerate(stream):
        weight = weighting.kind[touch.kind]
        if weight <= 0 or not histories.append(touch):
            continue
        older = histories.distances(touch.user, weighting.gap)[1:]
        pairs = tuple(
            (other.item, float(weight * weighting.near[distance - 1]), place == 0)
            for place, (distance, other) in enumerate(older)
            if other.item != touch.item and distance - 1 < len(weighting.near)
        )
        visits.append(Visit(touch.item, float(weight), touch.ts, source, pairs))
    return visits


def visits_of(deltas: Deltas) -> list[Visit]:
    found = []
    for v in range(len(deltas.item)):
        span = slice(deltas.start[v], deltas.start[v + 1])
        pairs = zip(deltas.other[span].tolist(), deltas.pull[span].tolist(), deltas.step[span].tolist(), strict=True)
        found.append(
            Visit(int(deltas.item[v]), float(deltas.weight[v]), int(deltas.ts[v]), int(deltas.source[v]), tuple(pairs))
        )
    return found


def deltas_of(visits: Sequence[Visit], sign: float = 1.0) -> Deltas:
    pairs = [pair for visit in visits for pair in visit.pairs]
    return Deltas(
        np.array([v.item for v in visits], dtype=np.int32),
        np.array([v.weight for v in visits], dtype=np.float32) * np.float32(sign),
        np.array([v.ts for v in visits], dtype=np.uint32),
        np.array([v.source for v in visits], dtype=np.int32),
        np.cumsum([0, *(len(v.pairs) for v in visits)], dtype=np.int32),
        np.array([other for other, _, _ in pairs], dtype=np.int32),
        np.array([pull for _, pull, _ in pairs], dtype=np.float32) * np.float32(sign),
        np.array([step for _, _, step in pairs], dtype=np.bool_),
    )


class PlainRow:
    """One item's row; every value is what it was worth at second 0 (later contributions are worth more)."""

    def __init__(self) -> None:
        self.total = 0.0
        self.cells: dict[int, float] = {}
        self.steps: dict[int, float] = {}


class PlainRows:
    def __init__(self, neighbours: int, transitions: int, half_life_s: float, backward: float) -> None:
        self.neighbours, self.transitions = neighbours, transitions
        self.half_life_s, self.backward = half_life_s, backward
        self.rows: dict[int, PlainRow] = {}

    def learn(self, visits: Sequence[Visit]) -> None:
        for visit in visits:
            worth = 2.0 ** (visit.ts / self.half_life_s)
            self._row(visit.item).total += visit.weight * worth
            for other, pull, step in visit.pairs:
                if self.backward > 0:
                    add(self._row(visit.item).cells, other, pull * self.backward * worth, self.neighbours)
                add(self._row(other).cells, visit.item, pull * worth, self.neighbours)
                if step:
                    add(self._row(other).steps, visit.item, pull * worth, self.transitions)

    def _row(self, item: int) -> PlainRow:
        return self.rows.setdefault(item, PlainRow())

    def values(self) -> dict[tuple[int, str, int], float]:
        """Every number by (item, what, other item)."""
        found: dict[tuple[int, str, int], float] = {}
        for item, row in self.rows.items():
            found[item, "total", -1] = row.total
            found |= {(item, "cell", other): value for other, value in row.cells.items()}
            found |= {(item, "step", other): value for other, value in row.steps.items()}
        return found


def add(cells: dict[int, float], item: int, amount: float, most: int) -> None:
    """Add to a cell; the newcomer of a full row takes the place of the weakest (of equal ones the foremost)."""
    if item in cells:
        cells[item] = max(cells[item] + amount, 0.0)
    elif amount > 0 and len(cells) < most:
        cells[item] = amount
    elif amount > 0:
        weakest = min(cells, key=cells.__getitem__)
        places = [(item, amount) if other == weakest else (other, value) for other, value in cells.items()]
        cells.clear()
        cells.update(places)


def values_of(rows: NeighbourRows) -> dict[tuple[int, str, int], float]:
    """Every number of the fast rows, as `PlainRows.values`."""
    arrays = rows.arrays
    found: dict[tuple[int, str, int], float] = {}
    for item in np.flatnonzero(arrays.row >= 0).tolist():
        row = int(arrays.row[item])
        worth = 2.0 ** int(arrays.epoch[row])
        found[item, "total", -1] = float(arrays.total[row]) * worth
        for what, others, values, size in (
            ("cell", arrays.item, arrays.value, arrays.size),
            ("step", arrays.step_item, arrays.step_value, arrays.steps),
        ):
            for c in range(size[row]):
                assert (item, what, int(others[row, c])) not in found, "an item has two cells in one row"
                found[item, what, int(others[row, c])] = float(values[row, c]) * worth
    return found


def same_values(
    left: Mapping[tuple[int, str, int], float], right: Mapping[tuple[int, str, int], float], within: float = 1e-9
) -> bool:
    """Equal within a tolerance relative to each row's largest number; what is absent is 0."""
    scale: dict[int, float] = {}
    for values in (left, right):
        for (item, _, _), value in values.items():
            scale[item] = max(scale.get(item, 0.0), abs(value))
    return all(
        abs(left.get(key, 0.0) - right.get(key, 0.0)) <= within * max(scale[key[0]], 1e-300) for key in {*left, *right}
    )


class Ranked(NamedTuple):
    """A list as (item, score in 1e-6), and by item every vote it got as (seed, size)."""

    cells: list[tuple[int, int]]
    votes: dict[int, list[tuple[int, float]]]


def plain_votes(
    seeds: Iterable[tuple[int, Touch]], rows: PlainRows, query: Query
) -> dict[int, list[tuple[int, float]]]:
    """g(i) w(h_i) (c(h_i, j) + [i = 0] s t(h_0, j)) / n(h_i), one by one."""
    votes: dict[int, list[tuple[int, float]]] = {}
    for place, (distance, touch) in enumerate(seeds):
        row = rows.rows.get(touch.item)
        if distance >= len(query.near) or row is None or row.total <= 0:
            continue
        share = float(query.near[distance] * query.kind[touch.kind]) / row.total
        for item, value in row.cells.items():
            votes.setdefault(item, []).append((touch.item, share * value))
        for item, value in row.steps.items() if place == 0 else ():
            votes.setdefault(item, []).append((touch.item, share * query.step_share * value))
    return votes


def plain_rank(
    votes: dict[int, list[tuple[int, float]]], ids: Sequence[str], k: int, without: Iterable[int] = ()
) -> Ranked:
    """Best k by the score rounded to six decimals, ties by id as text."""
    micros = {item: math.floor(sum(v for _, v in got) * 1e6 + 0.5 + 1e-9) for item, got in votes.items()}
    ordered = sorted((-micro, ids[item], item) for item, micro in micros.items() if micro > 0)
    hidden = set(without)
    return Ranked([(item, -micro) for micro, _, item in ordered if item not in hidden][:k], votes)


def same_list(lists: Lists, row: int, expected: Ranked) -> bool:
    """Items, scores, padding and reasons of one list against the reference."""
    k = lists.item.shape[1]
    items, micros = [i for i, _ in expected.cells], [m for _, m in expected.cells]
    short = k - len(items)
    if lists.item[row].tolist() != items + [-1] * short or lists.micro[row].tolist() != micros + [0] * short:
        return False
    for item, why in zip(items, lists.why[row].tolist(), strict=False):
        got = expected.votes[item]
        strongest = max(vote for _, vote in got)
        if not any(seed == why and vote >= strongest * (1 - 1e-9) for seed, vote in got):
            return False
    return bool((lists.why[row, len(items) :] == -1).all())


def vocabulary(ids: Sequence[str]) -> Vocabulary:
    made = Vocabulary(4)
    made.encode(list(ids))
    return made


def rank(
    histories: Histories, rows: NeighbourRows, users: Sequence[int], query: Query, ids: Vocabulary, k: int = 5
) -> Lists:
    """The ranking kernel with nothing hidden."""
    lists = Lists.empty(len(users), k)
    hidden = np.zeros(len(ids), dtype=np.bool_)
    wanted = np.array(users, dtype=np.int32)
    rank_rows(histories.arrays, wanted, rows.arrays, query, hidden, ids.blob, ids.spans, scratch(len(ids)), lists)
    return lists


def near(exponent: float = 1.0, length: int = 6) -> NDArray[np.float32]:
    """A short table of distances, so that its end is met."""
    return power_law(exponent, length)


def same_lists(left: Lists, right: Lists, rows: slice = slice(None)) -> bool:
    """Whether lists equal some rows of others, in every column."""
    columns_ = ((left.item, right.item), (left.micro, right.micro), (left.why, right.why))
    return all(np.array_equal(mine, theirs[rows]) for mine, theirs in columns_)


def equal_arrays(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)

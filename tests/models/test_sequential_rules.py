from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.sequential_rules import SequentialRules, run
from tests.streams import ITEM_IDS, TOUCHES, Touch, queries, shown, stream_of


class PlainRules:
    """The slow reference: dictionaries, one touch after another."""

    def __init__(self, steps: int, rules: int) -> None:
        self.steps, self.rules = steps, rules
        self.recent: dict[int, list[str]] = {}
        self.rows: dict[str, dict[str, float]] = {}

    def learn(self, key: int, item: str) -> None:
        recent = self.recent.setdefault(key, [])
        for distance, earlier in enumerate(recent[: self.steps], 1):
            if earlier == item:
                continue
            row = self.rows.setdefault(earlier, {})
            if item in row:
                row[item] += 1 / distance
            elif len(row) < self.rules:
                row[item] = 1 / distance
            else:
                cells = list(row.items())
                cells[min(range(len(cells)), key=lambda c: cells[c][1])] = (item, 1 / distance)
                self.rows[earlier] = dict(cells)
        recent.insert(0, item)

    def best(self, key: int) -> list[tuple[str, float]]:
        row = self.rows.get(self.recent[key][0], {})
        return sorted(row.items(), key=lambda cell: (-round(cell[1], 6), cell[0]))


@given(touches=TOUCHES, steps=st.integers(1, 5), rules=st.integers(1, 5), k=st.integers(1, 6))
@settings(deadline=None)
def test_kernel_and_class_equal_the_plain_rules_step_by_step(
    touches: list[Touch], steps: int, rules: int, k: int
) -> None:
    stream = stream_of(touches)
    lists = run(stream, k, steps, rules)
    plain, model = PlainRules(steps, rules), SequentialRules(steps, rules)
    rows = {n: row for (n, _, _), row in zip(queries(stream), lists, strict=True)}
    for n, (key, item) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), strict=True)):
        if n in rows:
            expected = plain.best(key)[:k]
            assert shown(rows[n]) == [name for name, _ in expected]
            assert dict(model.recommend(key, k)) == pytest.approx(dict(expected))
        plain.learn(key, ITEM_IDS[item])
        model.learn_one(key, ITEM_IDS[item], 1)


def test_repeats_and_negative_feedback_teach_nothing() -> None:
    model = SequentialRules()
    for item, y in [("tent", 1), ("tent", 1), ("mat", 0), ("stove", -1), ("lamp", True)]:
        model.learn_one("ann", item, y)
    model.learn_one("bob", "tent", 1)
    assert model.recommend("bob") == [("lamp", 1.0)]


def test_knows_no_more_items_than_told() -> None:
    model = SequentialRules(max_items=2)
    for item in ("tent", "mat", "stove"):
        model.learn_one("ann", item, 1)
    model.learn_one("bob", "tent", 1)
    assert model.recommend("bob") == [("mat", 1.0)]
    assert model.rank("bob", {"mat", "stove", "axe"}) == ["mat", "axe", "stove"]


@given(before=TOUCHES, after=TOUCHES)
@settings(deadline=None)
def test_a_forgotten_user_leaves_what_there_would_be_without_him(before: list[Touch], after: list[Touch]) -> None:
    model, other = SequentialRules(steps=60, rules=10), SequentialRules(steps=60, rules=10)
    first, rest = ([(key, ITEM_IDS[item]) for key, item, _ in touches] for touches in (before, after))
    for event in first:
        model.learn_one(*event)
        if event[0] != 0:
            other.learn_one(*event)
    model.forget_one(0)
    for event in rest:
        model.learn_one(*event)
        other.learn_one(*event)
    for user in range(5):
        assert dict(model.recommend(user)) == pytest.approx(dict(other.recommend(user)))


def test_what_the_user_forgot_stays_in_the_sums() -> None:
    model = SequentialRules(steps=2)
    for item in ("tent", "mat", "stove"):
        model.learn_one("ann", item, 1)
    model.forget_one("ann")
    for user, item in (("bob", "tent"), ("cyd", "mat")):
        model.learn_one(user, item, 1)
    assert model.recommend("bob") == [("mat", 1.0), ("stove", 0.5)]
    assert model.recommend("cyd") == []


def test_forgets_the_user_silent_for_longest() -> None:
    model = SequentialRules(max_users=2)
    for user, item in [("ann", "tent"), ("bob", "tent"), ("ann", "mat"), ("cyd", "tent")]:
        model.learn_one(user, item, 1)
    assert [bool(model.recommend(user)) for user in ("bob", "cyd")] == [False, True]

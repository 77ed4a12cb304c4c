"""Control records in a fetch: each finds what came before it and nothing else, and a flood of them stays cheap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.keys import Keys
from stream.local import LocalRecord
from stream.stages.learned import Learned
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from tests.records import event, record

FLOOD = 2_000


class Counted:
    """A record that counts how often its value is read: once each time it is decoded."""

    def __init__(self, plain: LocalRecord) -> None:
        self.offset, self.timestamp, self.key, self.headers = plain.offset, plain.timestamp, plain.key, plain.headers
        self._value = plain.value
        self.reads = 0

    @property
    def value(self) -> bytes | None:
        self.reads += 1
        return self._value


def stage(**rules: Any) -> UserStage:
    made = UserStage(ItemSpace(1), Keys(), UserRules(**({"ranking": "covisit"} | rules)), 1)
    made.open(0, None)
    return made


def flood(control: str) -> dict[str, Any]:
    match control:
        case "link":
            return {"control": "link", "source": 0, "moving": [["cookie", "ada", 1_750_000_000, 1]]}
        case "joined":
            return {
                "control": "joined",
                "source": 0,
                "moving": [["ada", 1, [["tent", "view_item", 1_750_000_000, True]]]],
            }
        case "returned":
            return {
                "control": "returned",
                "source": 0,
                "moving": [["0" * 16, 1, [["tent", "view_item", 1_750_000_000, True]]]],
            }
        case "disowned":
            return {"control": "disowned", "person": "0" * 16}
    return {"control": control, "user": "ada"}


@pytest.mark.parametrize("control", ["forget", "export", "link", "joined", "returned", "disowned", "rank_all"])
@pytest.mark.parametrize("between", [0, 1])
def test_a_flood_of_control_records_is_decoded_once_or_twice(control: str, between: int) -> None:
    values = [flood(control) if n % 2 or not between else event("ada", "tent", at=n) for n in range(FLOOD)]
    records = [Counted(record(n, value, at=n)) for n, value in enumerate(values)]
    made = stage()
    made.learn(0, records)
    assert made.shards[0].counts["controls"] == FLOOD // (1 + between)
    assert max(each.reads for each in records) <= 2


def test_a_nearly_full_shard_decodes_a_few_times_more() -> None:
    records = [Counted(record(n, event(f"u{n}", "tent", at=n), at=n)) for n in range(FLOOD)]
    made = stage(users=200)
    made.learn(0, records)
    assert made.shards[0].counts["learned"] == FLOOD
    assert sum(each.reads for each in records) <= 20 * FLOOD


def learned(part: Sequence[Any]) -> Learned:
    users, dropped = (np.array(sorted(set(some)), dtype=np.int32) for some in part)
    ts_ms = np.arange(len(users), dtype=np.int64) + len(dropped)
    return Learned([Send("events", b"%d" % len(users))], users, ts_ms, ts_ms, dropped=dropped)


def told(found: Learned) -> Any:
    arrays = (found.users, found.ts_ms, found.event_ms, found.dropped)
    return found.sends, [array.tolist() for array in arrays]


PARTS = st.lists(st.tuples(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5))), min_size=1, max_size=9)


@settings(deadline=None)
@given(PARTS)
def test_parts_are_joined_in_any_grouping(parts: list[Any]) -> None:
    found = [learned(part) for part in parts]
    assert told(Learned.of_all(found)) == told(reduce(Learned.then, found))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.histories import KIND_MASK, SESSION_START, Histories, append
from tests.plain import PlainHistories, Touch, bounded, columns, equal_arrays, streams


def stored(histories: Histories, user: int) -> list[Touch]:
    """The ring as touches, newest first."""
    if user >= len(histories.arrays.head):
        return []
    head, found = int(histories.arrays.head[user]), []
    for i in range(int(histories.arrays.count[user])):
        item, ts, kind = (column[user, (head - i) % histories.size] for column in histories.arrays[:3])
        found.append(Touch(user, int(item), int(kind & KIND_MASK), int(ts), bool(kind & SESSION_START)))
    return found


def feed(histories: Histories, stream: list[Touch]) -> list[bool]:
    return [histories.append(t.user, t.item, t.kind, t.ts, starts=t.starts) for t in stream]


@bounded
@given(streams(users=3, items=4), st.sampled_from([1, 2, 3, 20, 127]))
def test_equal_plain_lists_after_every_touch(stream: list[Touch], size: int) -> None:
    fast, plain = Histories(size), PlainHistories(size)
    for touch in stream:
        assert feed(fast, [touch]) == [plain.append(touch)]
        for user in range(3):
            mine = plain.recent.get(user, [])
            assert stored(fast, user) == mine
            assert fast.recent(user) == [t.item for t in mine]
            assert len(mine) <= size


@bounded
@given(streams(), st.integers(1, 6))
def test_kernel_and_method_are_the_same(stream: list[Touch], size: int) -> None:
    method, kernel = Histories(size), Histories(size)
    kernel.reserve(5)
    batch = columns(stream)
    told = [bool(append(kernel.arrays, *(column[n] for column in batch))) for n in range(len(stream))]
    assert told == feed(method, stream)
    assert equal_arrays(method.snapshot(5), kernel.snapshot(5))


@bounded
@given(streams(), streams(), st.integers(1, 6))
def test_goes_on_from_a_snapshot_as_if_nothing_had_happened(before: list[Touch], after: list[Touch], size: int) -> None:
    histories = Histories(size)
    feed(histories, before)
    again = Histories.restore(histories.snapshot(5))
    assert feed(again, after) == feed(histories, after)
    assert equal_arrays(again.snapshot(5), histories.snapshot(5))


@bounded
@given(streams())
def test_a_snapshot_is_a_copy(stream: list[Touch]) -> None:
    histories = Histories(3)
    feed(histories, stream)
    taken, same = histories.snapshot(5), histories.snapshot(5)
    feed(histories, [Touch(user, 99, 4, 5) for user in range(5)])
    assert equal_arrays(taken, same)


def test_reading_leaves_the_state_equal_and_knows_no_strangers() -> None:
    histories = Histories(3)
    feed(histories, [Touch(0, 7), Touch(1, 8)])
    before = histories.snapshot(2)
    assert [histories.recent(user) for user in (-1, 0, 1, 2, 10**6)] == [[], [7], [8], [], []]
    assert equal_arrays(histories.snapshot(2), before)
    assert len(histories.arrays.head) == 256


def test_a_stronger_repeat_is_kept_and_a_reload_is_not() -> None:
    histories = Histories(5)
    kinds = [1, 1, 3, 1, 3, 4]
    assert feed(histories, [Touch(0, 7, kind) for kind in kinds]) == [True, False, True, False, False, True]
    assert histories.recent(0) == [7, 7, 7]


@pytest.mark.parametrize("size", [0, -1, 128])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size must be 1 to 127"):
        Histories(size)


def test_memory_is_nine_bytes_a_touch_and_two_a_user() -> None:
    histories = Histories(20)
    histories.reserve(1_000)
    assert sum(column.nbytes for column in histories.arrays) == 1_000 * (9 * 20 + 2)

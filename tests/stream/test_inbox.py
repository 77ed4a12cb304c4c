"""Fetches between the consumer's thread and the event loop: none lost, in order, bounded."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.fetches import TP, ConsumerRecord, Fetch
from stream.inbox import MOST_BYTES, Inbox
from tests.patience import PATIENCE_S

MOST = 10
FIRST, SECOND = TP("t", 0), TP("t", 1)


def fetch(tp: TP, number: int, records: int = 1, epoch: int = 1) -> Fetch:
    values = [ConsumerRecord(tp.topic, tp.partition, 100 * number + n, 0, 0, None, b"", ()) for n in range(records)]
    return Fetch(tp, values, epoch, number, 10_000)


def inbox(most: int = MOST) -> tuple[Inbox, list[str]]:
    told: list[str] = []
    return Inbox(most, arrived=lambda: told.append("arrived"), made_room=lambda: told.append("room")), told


@given(st.lists(st.tuples(st.sampled_from([FIRST, SECOND]), st.integers(1, MOST)) | st.sampled_from(["take", "one"])))
def test_everything_is_taken_once_in_order_and_in_pieces_of_at_most_so_many(steps: list[object]) -> None:
    box, _ = inbox()
    put: dict[TP, list[Fetch]] = {FIRST: [], SECOND: []}
    taken: dict[TP, list[Fetch]] = {FIRST: [], SECOND: []}
    for step in [*steps, *["take"] * len(steps)]:
        if isinstance(step, tuple):
            tp, records = step
            put[tp].append(fetch(tp, len(put[tp]), records))
            box.put(put[tp][-1])
        else:
            for found in box.take([FIRST, SECOND] if step == "take" else [FIRST]):
                taken[found.tp].append(found)
    for tp in put:
        assert [r for found in taken[tp] for r in found.records] == [r for each in put[tp] for r in each.records]
        assert sum(found.fetches for found in taken[tp]) == len(put[tp])
        assert all(len(found.records) <= MOST for found in taken[tp])
        assert [found.number for found in taken[tp]] == sorted(found.number for found in taken[tp])


def test_what_does_not_follow_is_not_joined() -> None:
    box, _ = inbox()
    for each in (fetch(FIRST, 0), fetch(FIRST, 1), fetch(FIRST, 3), fetch(FIRST, 0, epoch=2)):
        box.put(each)
    taken = [found for _ in range(3) for found in box.take([FIRST])]
    assert [(f.epoch, f.number, f.fetches) for f in taken] == [(1, 0, 2), (1, 3, 1), (2, 0, 1)]


def test_room_is_by_partition_and_told_when_it_comes_back() -> None:
    box, told = inbox()
    box.put(fetch(FIRST, 0, MOST - 1))
    assert box.has_room(FIRST)
    box.take([FIRST])
    assert told == ["arrived"], "it was never full"
    box.put(fetch(FIRST, 1, MOST))
    assert not box.has_room(FIRST)
    assert box.has_room(SECOND)
    assert box.take([SECOND]) == []
    assert not box.has_room(FIRST)
    box.take([FIRST])
    assert box.has_room(FIRST)
    assert told == ["arrived", "arrived", "room"]


def test_room_is_bounded_in_bytes_too() -> None:
    box, _ = inbox(most=1000)
    large = [ConsumerRecord("t", 0, n, 0, 0, None, bytes(MOST_BYTES // 2 + 1), ()) for n in range(3)]
    for number, record in enumerate(large[:2]):
        assert box.has_room(FIRST)
        box.put(Fetch(FIRST, [record], 1, number, 10))
    assert not box.has_room(FIRST)
    assert [len(f.records) for f in box.take([FIRST])] == [1], "together they would be more"
    assert box.has_room(FIRST)


def test_what_was_read_before_a_seek_is_dropped() -> None:
    box, _ = inbox()
    box.put(fetch(FIRST, 0, MOST))
    box.put(fetch(SECOND, 0))
    box.drop([FIRST])
    assert box.has_room(FIRST)
    assert [found.tp for found in box.take([FIRST, SECOND])] == [SECOND]


def test_an_error_is_raised_once_and_loses_nothing() -> None:
    box, told = inbox()
    box.put(fetch(FIRST, 0))
    box.fail(RuntimeError("no permission"))
    assert told == ["arrived", "arrived"]
    with pytest.raises(RuntimeError, match="no permission"):
        box.take([FIRST])
    assert len(box.take([FIRST])) == 1


def test_one_batch_of_a_partition_is_taken_at_a_time() -> None:
    """Faust pauses a partition whose agent's queue is nearly full, and more than one would not fit into it."""
    box, _ = inbox()
    for number in range(3):
        box.put(fetch(FIRST, number, MOST - 1))
    box.put(fetch(SECOND, 0))
    assert [len(box.take([FIRST, SECOND])) for _ in range(4)] == [2, 1, 1, 0]


async def test_a_thread_wakes_the_event_loop() -> None:
    loop = asyncio.get_running_loop()
    box = Inbox(MOST, arrived=lambda: loop.call_soon_threadsafe(box.wake_up), made_room=lambda: None)
    thread = threading.Thread(target=lambda: box.put(fetch(FIRST, 0)))
    thread.start()
    await box.arrival(PATIENCE_S)
    assert len(box.take([FIRST])) == 1
    thread.join()
    await box.arrival(0.001)  # nothing more came: it ends by itself
    assert box.take([FIRST]) == []

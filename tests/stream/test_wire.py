from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.covisitation import Deltas
from models.neighbour_rows import NeighbourRows
from models.vocabulary import Vocabulary
from stream.packing import Origin
from stream.wire import (
    DOUBT,
    FLUSH,
    Popular,
    Profiled,
    WireError,
    decode_global,
    encode_global,
    pack_covisits,
    since,
    unpack_covisits,
)
from tests.records import cells, close, told

IDS = ["tent", "mat", "stove", "höhle", "日本", "a b", "x" * 256, "mug"]
CATEGORIES = ["camping", "küche", "a:b"]
YEAR = 31_536_000


class Sender:
    """One process that packs: its own order of ids, its own partitions of them."""

    def __init__(self, order: list[int], partition: list[int]) -> None:
        self.items, self.categories = Vocabulary(), Vocabulary()
        self.items.encode([IDS[n] for n in order])
        self.categories.encode(CATEGORIES if order[0] % 2 else CATEGORIES[::-1])
        self.partition = np.array([partition[n] for n in order], dtype=np.int32)

    def pack(self, visits: list[dict[str, Any]], target: int, bounds: tuple[int, int] = (-1, 99)) -> bytes | None:
        low, high = bounds
        lows = np.full(3, low, dtype=np.int64)
        return pack_covisits(*self.outgoing(visits), 3, lows, high, self.partition, self.items, self.categories)[target]

    def outgoing(self, visits: list[dict[str, Any]]) -> tuple[Deltas, Origin]:
        pairs = [pair for visit in visits for pair in visit["pairs"]]
        deltas = Deltas(
            self.items.encode([IDS[visit["item"]] for visit in visits]),
            np.array([visit["weight"] for visit in visits], dtype=np.float32),
            np.array([visit["ts"] for visit in visits], dtype=np.uint32),
            np.arange(len(visits), dtype=np.int32),
            np.cumsum([0, *(len(visit["pairs"]) for visit in visits)]).astype(np.int32),
            self.items.encode([IDS[other] for other, _, _ in pairs]),
            np.array([pull for _, pull, _ in pairs], dtype=np.float32),
            np.array([step for _, _, step in pairs], dtype=np.bool_),
        )
        codes = [
            -1 if visit["category"] is None else self.categories.encode([visit["category"]])[0] for visit in visits
        ]
        return deltas, Origin(
            np.array([visit["offset"] for visit in visits], dtype=np.int64),
            np.array([visit["index"] for visit in visits], dtype=np.int64),
            np.array(codes, dtype=np.int32),
        )


NUMBER = st.integers(0, len(IDS) - 1)
WEIGHT = st.floats(0.125, 4, width=32)


@st.composite
def many_visits(draw: st.DrawFn) -> list[dict[str, Any]]:
    offset = draw(st.integers(0, 2**40))
    found = []
    for _ in range(draw(st.integers(1, 8))):
        offset += draw(st.integers(0, 2))  # several visits of one event or batch share an offset
        item = draw(NUMBER)
        others = draw(st.lists(st.sampled_from([n for n in range(len(IDS)) if n != item]), max_size=4))
        found.append(
            {
                "item": item,
                "weight": draw(WEIGHT),
                "ts": draw(st.integers(0, 2**32 - 1)),
                "offset": offset,
                "index": draw(st.integers(0, 2**31)),
                "category": draw(st.none() | st.sampled_from(CATEGORIES)),
                "pairs": [(other, draw(WEIGHT), i == 0) for i, other in enumerate(others)],
            }
        )
    return found


VISITS = many_visits()
ORDER = st.permutations(range(len(IDS)))
PARTITION = st.lists(st.integers(0, 2), min_size=len(IDS), max_size=len(IDS))


def expected(visits: list[dict[str, Any]], partition: list[int], target: int) -> list[dict[str, Any]]:
    found = []
    for visit in visits:
        mine = partition[visit["item"]] == target
        pairs = [(IDS[o], pull, step) for o, pull, step in visit["pairs"] if mine or partition[o] == target]
        if mine or pairs:
            found.append(visit | {"item": IDS[visit["item"]], "pairs": pairs})
    return found


@settings(deadline=None)
@given(VISITS, ORDER, PARTITION)
def test_each_target_gets_what_it_needs_and_nothing_else(
    visits: list[dict[str, Any]], order: list[int], partition: list[int]
) -> None:
    sender = Sender(order, partition)
    for target in range(3):
        value = sender.pack(visits, target, (5, 77))
        needed = expected(visits, partition, target)
        assert (value is None) == (not needed)
        if value is not None:
            record = unpack_covisits(value)
            assert (record.source, record.low, record.high) == (3, 5, 77)
            assert told(record) == needed


@settings(deadline=None)
@given(VISITS, ORDER, ORDER, PARTITION)
def test_no_index_of_the_process_leaves_it(
    visits: list[dict[str, Any]], order: list[int], other: list[int], partition: list[int]
) -> None:
    for target in range(3):
        packed = [value for o in (order, other) if (value := Sender(o, partition).pack(visits, target)) is not None]
        assert len(packed) != 1
        if packed:
            one, two = map(unpack_covisits, packed)
            assert told(one) == told(two)
            assert len(packed[0]) == len(packed[1])
            assert sorted(one.items) == sorted(two.items)
            assert sorted(one.categories) == sorted(two.categories)


@settings(deadline=None)
@given(VISITS.filter(lambda visits: all(v["ts"] < 4 * YEAR for v in visits)), ORDER, PARTITION)
def test_targets_together_learn_what_one_process_would(
    visits: list[dict[str, Any]], order: list[int], partition: list[int]
) -> None:
    sender = Sender(order, partition)
    whole = NeighbourRows(neighbours=16, transitions=8)
    whole.learn(sender.outgoing(visits)[0], np.zeros(len(IDS), dtype=np.int32))
    together: dict[str, Any] = {}
    for target in range(3):
        value = sender.pack(visits, target)
        if value is None:
            continue
        record = unpack_covisits(value)
        ids = Vocabulary()
        codes = ids.encode(record.items)
        rows = NeighbourRows(neighbours=16, transitions=8)
        deltas = record.deltas._replace(item=codes[record.deltas.item], other=codes[record.deltas.other])
        where = np.array([partition[IDS.index(name)] for name in ids.texts(range(len(ids)))], dtype=np.int32)
        rows.learn(deltas, where, target)
        found = cells(rows, ids.texts(range(len(ids))))
        assert not found.keys() & together.keys()
        together |= found
    assert together == close(cells(whole, [IDS[n] for n in order]), rel=1e-12)


@settings(deadline=None)
@given(VISITS, PARTITION, st.integers(-1, 20))
def test_since_leaves_exactly_what_is_above_the_mark(
    visits: list[dict[str, Any]], partition: list[int], past: int
) -> None:
    mark = visits[0]["offset"] + past - 1
    sender = Sender(list(range(len(IDS))), partition)
    for target in range(3):
        value = sender.pack(visits, target)
        if value is not None:
            left = told(since(unpack_covisits(value), mark))
            assert left == [visit for visit in expected(visits, partition, target) if visit["offset"] > mark]


@settings(deadline=None)
@given(VISITS, st.data())
def test_records_cut_short_are_refused(visits: list[dict[str, Any]], data: st.DataObject) -> None:
    value = Sender(list(range(len(IDS))), [0] * len(IDS)).pack(visits, 0)
    assert value is not None
    for end in {0, 3, 4, 43, data.draw(st.integers(0, len(value) - 1)), len(value) - 1}:
        with pytest.raises(WireError):
            unpack_covisits(value[:end])
    with pytest.raises(WireError):
        unpack_covisits(value + b"\0")


@pytest.mark.parametrize(
    "value", [b"", b"RVC", b"RVC1", b"RVC2" + bytes(200), FLUSH, DOUBT, b'{"event_name":"view_item"}']
)
def test_foreign_records_are_refused(value: bytes) -> None:
    with pytest.raises(WireError):
        unpack_covisits(value)


@given(st.binary(min_size=40, max_size=200))
def test_noise_behind_the_magic_is_refused(noise: bytes) -> None:
    with pytest.raises(WireError):
        unpack_covisits(b"RVC1" + noise)


def test_global_records_come_back_as_they_were() -> None:
    popular = Popular(1, 7, 1_750_000_000, ["tent", "höhle"], [1.5, 0.1], [3, -2], ["camping", ""])
    profiled = Profiled(2, [9], [1_750_000_000], [[1.0, 2.0, 0.5, 0.0, -1.0]], [3], [{"küche": 2.0}], ["tent"], [1.0])
    assert decode_global(encode_global(popular)) == popular
    assert decode_global(encode_global(profiled)) == profiled
    with pytest.raises(WireError):
        decode_global(b"\x93\xa3odd\x01\x02")

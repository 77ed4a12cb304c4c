from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from aiokafka.partitioner import murmur2  # type: ignore[import-untyped]  # no py.typed
from hypothesis import given
from hypothesis import strategies as st

from models.hashing import hash_ids
from models.vocabulary import Vocabulary, grown, id_less
from tests.plain import bounded, equal_arrays, vocabulary

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
batches = st.lists(st.lists(texts, max_size=15), max_size=8)


@bounded
@given(batches, st.integers(1, 8), st.lists(texts, max_size=6))
def test_equals_a_dictionary_after_every_batch(made: list[list[str]], capacity: int, asked: list[str]) -> None:
    fast, plain = Vocabulary(capacity), dict[str, int]()
    for batch in made:
        expected = [plain.setdefault(text, len(plain)) for text in batch]
        assert fast.encode(batch).tolist() == expected
        assert len(fast) == len(plain)
        assert fast.lookup(asked).tolist() == [plain.get(text, -1) for text in asked]
        assert fast.texts(range(len(fast))) == list(plain)
        assert [fast.text(i) for i in plain.values()] == list(plain)
        assert fast.hashes[: len(fast)].tolist() == hash_ids(list(plain)).tolist()


@bounded
@given(batches, batches)
def test_goes_on_from_a_snapshot_as_if_nothing_had_happened(before: list[list[str]], after: list[list[str]]) -> None:
    fast = Vocabulary(2)
    for batch in before:
        fast.encode(batch)
    arrays = fast.arrays()
    again = [Vocabulary.from_arrays(arrays), copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))]
    for batch in after:
        expected = fast.encode(batch).tolist()
        assert all(other.encode(batch).tolist() == expected for other in again)
    assert all(equal_arrays(other.arrays(), fast.arrays()) for other in again)
    assert Vocabulary.from_arrays(arrays).texts(range(len(arrays["spans"]))) == list(
        dict.fromkeys(text for batch in before for text in batch)
    )


class Plain:
    """A dictionary; the index of a removed id goes to the next new one."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.free: list[int] = []
        self.size = 0

    def encode(self, ids: list[str]) -> list[int]:
        for text in ids:
            if text not in self.known:
                self.known[text] = self.free.pop() if self.free else self.size
                self.size = max(self.size, self.known[text] + 1)
        return [self.known[text] for text in ids]

    def remove(self, ids: list[str]) -> None:
        self.free += [self.known.pop(text) for text in ids]


@bounded
@given(st.lists(st.lists(texts, max_size=15) | st.integers(0, 2**15), max_size=20), st.integers(1, 8))
def test_removed_ids_make_room_for_others(steps: list[list[str] | int], capacity: int) -> None:
    """Lists are encoded; a number removes the ids whose bit is set in it."""
    fast, plain, restored = Vocabulary(capacity), Plain(), Vocabulary(capacity)
    for step in steps:
        if isinstance(step, list):
            assert fast.encode(step).tolist() == restored.encode(step).tolist() == plain.encode(step)
        else:
            gone = [text for bit, text in enumerate(sorted(plain.known)) if step >> bit & 1]
            fast.remove(fast.lookup(gone))
            restored.remove(restored.lookup(gone))
            plain.remove(gone)
            assert fast.lookup(gone).tolist() == [-1] * len(gone)
        assert (len(fast), fast.size) == (len(plain.known), plain.size)
        assert fast.lookup(list(plain.known)).tolist() == list(plain.known.values())
        assert fast.indices().tolist() == sorted(plain.known.values())
        names = {index: text for text, index in plain.known.items()}
        assert fast.texts(range(fast.size)) == [names.get(index, "") for index in range(plain.size)]
        assert fast.hashes[list(plain.known.values())].tolist() == hash_ids(list(plain.known)).tolist()
        restored = Vocabulary.from_arrays(fast.arrays())


def test_ids_that_come_and_go_take_no_more_room() -> None:
    made = Vocabulary()
    ids = [f"{n:036d}" for n in range(60_000)]
    for start in range(0, len(ids), 500):
        made.encode(ids[start : start + 500])
        if start >= 2_000:
            made.remove(made.lookup(ids[start - 2_000 : start - 1_500]))
        if start == 10_000:
            room = [array.nbytes for array in vars(made).values()]
    assert len(made) == 2_000
    assert made.size == 2_500
    assert [array.nbytes for array in vars(made).values()] == room


@bounded
@given(batches, st.integers(1, 5), st.data())
def test_ids_of_other_partitions_are_not_added(made: list[list[str]], partitions: int, data: st.DataObject) -> None:
    partition = data.draw(st.integers(0, partitions - 1))
    fast, plain = Vocabulary(), dict[str, int]()
    for batch in made:
        mine = [text for text in batch if (murmur2(text.encode()) & 0x7FFFFFFF) % partitions == partition]
        for text in mine:
            plain.setdefault(text, len(plain))
        assert fast.encode(batch, partition, partitions).tolist() == [plain.get(text, -1) for text in batch]
    assert len(fast) == len(plain)


@bounded
@given(batches)
def test_batches_do_not_matter(made: list[list[str]]) -> None:
    whole, split = Vocabulary(), Vocabulary(1)
    whole.encode([text for batch in made for text in batch])
    for batch in made:
        split.encode(batch)
    assert equal_arrays(whole.arrays(), split.arrays())


@bounded
@given(st.lists(texts, max_size=10), st.lists(texts, max_size=10))
def test_looking_up_leaves_the_state_equal(known: list[str], asked: list[str]) -> None:
    made = vocabulary(known)
    before = pickle.dumps(made)
    made.lookup(asked)
    made.texts(range(len(made)))
    assert pickle.dumps(made) == before


@bounded
@given(st.lists(texts, min_size=2, max_size=8, unique=True))
def test_ids_sort_as_text(known: list[str]) -> None:
    made = vocabulary(known)
    for left in range(len(known)):
        for right in range(len(known)):
            assert id_less(made.blob, made.spans, left, right) == (known[left] < known[right])


@bounded
@given(st.lists(texts, max_size=8, unique=True), st.integers(1, 9))
def test_partitions_are_kafkas(known: list[str], count: int) -> None:
    made = vocabulary(known)
    found = made.partitions(np.arange(len(known), dtype=np.int32), count).tolist()
    assert found == [(murmur2(text.encode()) & 0x7FFFFFFF) % count for text in known]


def test_equal_hashes_are_told_apart_by_their_bytes() -> None:
    made = vocabulary(["tent"])
    made.hashes[0] = hash_ids(["mat"])[0]
    made.table[:] = -1
    made.table[int(made.hashes[0]) & (len(made.table) - 1)] = 0  # as if "tent" had the hash of "mat"
    assert made.lookup(["mat"]).tolist() == [-1]
    assert made.encode(["mat"]).tolist() == [1]


@pytest.mark.parametrize("bad", [["a\0b"], ["new", "a\0b"], ["\0"]])
def test_an_id_with_nul_is_refused_and_nothing_added(bad: list[str]) -> None:
    made = vocabulary(["a", "b"])
    with pytest.raises(ValueError, match="NUL"):
        made.encode(bad)
    assert made.texts(range(len(made))) == ["a", "b"]


def test_memory_is_the_ids_and_at_most_60_bytes_each() -> None:
    made = Vocabulary()
    ids = [f"{n:036d}" for n in range(100_000)]
    for start in range(0, len(ids), 2_000):
        made.encode(ids[start : start + 2_000])
    used = made.blob.nbytes + made.spans.nbytes + made.hashes.nbytes + made.table.nbytes
    assert used <= len(ids) * (36 * 1.5 + 2 * 8 * 1.5 + 24)


@bounded
@given(st.integers(0, 20), st.integers(0, 50), st.sampled_from([1.25, 1.5, 2.0]))
def test_growing_keeps_what_is_there_and_adds_zeros(length: int, needed: int, step: float) -> None:
    array = np.arange(1, 2 * length + 1, dtype=np.int32).reshape(length, 2)
    bigger = grown(array, needed, step)
    assert len(bigger) >= max(length, needed)
    assert bigger[:length].tolist() == array.tolist()
    assert not bigger[length:].any()
    assert needed > length or bigger is array


def test_ids_are_found_by_their_hashes() -> None:
    vocabulary = Vocabulary()
    names = [f"id{n}" for n in range(5_000)]
    vocabulary.encode(names)
    gone = vocabulary.lookup(names[::7])
    vocabulary.remove(gone)
    assert vocabulary.of_hashes(hash_ids([*names, "nobody"])).tolist() == vocabulary.lookup([*names, "nobody"]).tolist()

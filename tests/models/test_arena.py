from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.arena import end_of, free, new_heads, put, room, start_of
from tests.plain import bounded

TEXTS = st.binary(max_size=40) | st.integers(1_015, 1_040).map(lambda n: b"x" * n)


def store(heads: NDArray[np.int64], blob: NDArray[np.uint8], text: bytes) -> int:
    return int(put(heads, blob, np.frombuffer(text, dtype=np.uint8), 0, len(text)))


@bounded
@given(st.lists(TEXTS | st.integers(0, 20), max_size=60))
def test_strings_stay_what_they_are_whatever_comes_and_goes(steps: list[bytes | int]) -> None:
    """Bytes are put; a number frees one of those that are held."""
    texts = [step for step in steps if isinstance(step, bytes)]
    heads, blob = new_heads(), np.zeros(room(len(texts), sum(map(len, texts))) + 8, dtype=np.uint8)
    held: list[tuple[int, bytes]] = []
    for step in steps:
        if isinstance(step, bytes):
            held.append((store(heads, blob, step), step))
        elif held:
            free(heads, blob, held.pop(step % len(held))[0])
        assert [blob[start_of(span) : end_of(span)].tobytes() for span, _ in held] == [text for _, text in held]


@bounded
@given(TEXTS, TEXTS)
def test_nothing_is_left_of_what_was_freed(gone: bytes, kept: bytes) -> None:
    heads, blob = new_heads(), np.zeros(room(2, len(gone) + len(kept)) + 8, dtype=np.uint8)
    first, second = store(heads, blob, gone), store(heads, blob, kept)
    free(heads, blob, first)
    assert not blob[start_of(first) + 8 : end_of(first)].any()  # eight bytes link the free chunks
    assert blob[start_of(second) : end_of(second)].tobytes() == kept


def test_room_is_what_was_held_at_a_time_however_often_it_changes_hands() -> None:
    heads, blob = new_heads(), np.zeros(100_000, dtype=np.uint8)
    held: list[int] = []
    for n in range(10_000):
        held.append(store(heads, blob, b"%036d" % n))
        if len(held) > 50:
            free(heads, blob, held.pop(n * 7919 % 50))
    assert heads[0] == 51 * 40

"""Byte strings in one buffer, with the room of removed ones given to later ones of about the same length.

A string lies in a chunk of a multiple of eight bytes and is found by its *span*, start and length in one integer.
Freed chunks of a size form a list that runs through the chunks themselves, so that nothing is searched, moved or
collected: putting and freeing cost a few nanoseconds whatever has gone before. The buffer grows to the most that each
size ever held; strings over 1 KiB, which no id is, leave their bytes behind.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.kernel import kernel, lean_kernel

CHUNK = 8
CLASSES = 129  # chunk sizes of 0 to 1,024 bytes
LENGTH_BITS = 20
LENGTH_MASK = (1 << LENGTH_BITS) - 1
NOTHING = -1


def new_heads() -> NDArray[np.int64]:
    """First free chunk of each size, in chunks; entry 0 is the number of bytes in use so far."""
    heads = np.full(CLASSES, NOTHING, dtype=np.int64)
    heads[0] = 0
    return heads


def room(strings: int, nbytes: int) -> int:
    """Bytes that so many strings of so many bytes altogether take at most."""
    return nbytes + (CHUNK - 1) * strings


@lean_kernel
def start_of(span: int) -> int:
    """First byte of a string."""
    return span >> LENGTH_BITS


@lean_kernel
def end_of(span: int) -> int:
    """Byte behind a string."""
    return (span >> LENGTH_BITS) + (span & LENGTH_MASK)


@lean_kernel
def length_of(span: int) -> int:
    """Bytes of a string."""
    return span & LENGTH_MASK


@kernel
def put(heads: NDArray[np.int64], blob: NDArray[np.uint8], data: NDArray[np.uint8], start: int, end: int) -> int:
    """Store ``data[start:end]`` and return its span; the blob must have `room` for it."""
    length = end - start
    chunks = (length + CHUNK - 1) // CHUNK
    if 0 < chunks < CLASSES and heads[chunks] != NOTHING:
        at = heads[chunks]
        heads[chunks] = _read(blob, at)
    else:
        at = heads[0]
        heads[0] += chunks * CHUNK
    for i in range(length):
        blob[at + i] = data[start + i]
    span: int = at << LENGTH_BITS | length
    return span


@lean_kernel
def free(heads: NDArray[np.int64], blob: NDArray[np.uint8], span: int) -> None:
    """Give a string's chunk back, its bytes wiped: what is removed may be someone's name."""
    chunks = (length_of(span) + CHUNK - 1) // CHUNK
    at = start_of(span)
    for i in range(at, end_of(span)):
        blob[i] = 0
    if 0 < chunks < CLASSES:
        _write(blob, at, heads[chunks])
        heads[chunks] = at


@lean_kernel
def _read(blob: NDArray[np.uint8], at: int) -> int:
    value = np.uint64(0)
    for i in range(8):
        value |= np.uint64(blob[at + i]) << np.uint64(8 * i)
    return np.int64(value)  # type: ignore[return-value]  # Numba: one type for both ways


@lean_kernel
def _write(blob: NDArray[np.uint8], at: int, value: int) -> None:
    rest = np.uint64(value)
    for i in range(8):
        blob[at + i] = np.uint8(rest & np.uint64(0xFF))
        rest >>= np.uint64(8)

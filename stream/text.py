"""Kernels that write text into a byte buffer, from which values and commands are put together.

Each takes the buffer and the place to write at, and returns the place behind what it wrote. The caller makes room,
`SLACK` bytes more than what is written; what is read must be followed by as many readable bytes.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

import llvmlite.ir as ir  # type: ignore[import-untyped]  # no py.typed
import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from models.kernel import lean_kernel

SLACK: Final = 16  # bytes that `copy` may touch behind the end
COMMA, DOT, ZERO = 44, 46, 48
MILLION = 1_000_000


class _Ids(Protocol):
    """A vocabulary, or the fragments of one."""

    blob: NDArray[np.uint8]
    spans: NDArray[np.int64]


class Texts(NamedTuple):
    """Ids as a kernel takes them: all their bytes, and where each one's lie (see `models.arena`)."""

    blob: NDArray[np.uint8]
    spans: NDArray[np.int64]

    @classmethod
    def of(cls, ids: _Ids) -> Texts:
        """The arrays of a vocabulary or of fragments."""
        return cls(ids.blob, ids.spans)


@intrinsic
def _move16(typing: Any, source: Any, start: Any, out: Any, at: Any) -> Any:
    """Move 16 bytes with one load and one store, as C's ``memcpy(out + at, source + start, 16)``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = ir.VectorType(ir.IntType(8), SLACK).as_pointer()

        def address(array: int, offset: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            return builder.bitcast(builder.gep(data, [arguments[offset]]), block)

        builder.store(builder.load(address(0, 1), align=1), address(2, 3), align=1)
        return context.get_dummy_value()

    return types.void(source, types.int64, out, types.int64), generate


@lean_kernel
def copy(source: NDArray[np.uint8], start: int, end: int, out: NDArray[np.uint8], at: int) -> int:
    """Copy ``source[start:end]``, 16 bytes at a time: byte by byte, fragments were most of a list's cost."""
    for done in range(0, end - start, SLACK):
        _move16(source, start + done, out, at + done)  # type: ignore[call-arg]  # numba adds the typing context
    return at + end - start


@lean_kernel
def put(byte: int, out: NDArray[np.uint8], at: int) -> int:
    """Write one byte."""
    out[at] = byte
    return at + 1


@lean_kernel
def comma(position: int, out: NDArray[np.uint8], at: int) -> int:
    """Separate from what came before, unless nothing did."""
    return put(COMMA, out, at) if position > 0 else at


@lean_kernel
def digits(value: int) -> int:
    """How many digits `integer` writes."""
    count = 1
    rest = value // 10
    while rest > 0:
        count += 1
        rest //= 10
    return count


@lean_kernel
def integer(value: int, out: NDArray[np.uint8], at: int) -> int:
    """Write a number >= 0."""
    end = at + digits(value)
    for place in range(end - 1, at - 1, -1):
        out[place] = ZERO + value % 10
        value //= 10
    return end


@lean_kernel
def decimal(micro: int, out: NDArray[np.uint8], at: int) -> int:
    """Write ``micro / 1e6``, >= 0, with at most six decimals and no trailing zeros."""
    at = integer(micro // MILLION, out, at)
    rest = micro % MILLION
    if rest == 0:
        return at
    out[at] = DOT
    for place in range(at + 6, at, -1):
        out[place] = ZERO + rest % 10
        rest //= 10
    at += 6
    while out[at] == ZERO:
        at -= 1
    return at + 1


@lean_kernel
def hundredths(value: int, out: NDArray[np.uint8], at: int) -> int:
    """Write ``value / 100``, >= 0, with two decimals."""
    at = put(DOT, out, integer(value // 100, out, at))
    at = put(ZERO + value // 10 % 10, out, at)
    return put(ZERO + value % 10, out, at)


@lean_kernel
def phrase(text: NDArray[np.uint8], out: NDArray[np.uint8], at: int) -> int:
    """Write a `constant`."""
    return copy(text, 0, len(text) - SLACK, out, at)


@lean_kernel
def exactly(text: NDArray[np.uint8], out: NDArray[np.uint8], at: int) -> int:
    """Write a `constant` where what follows is written already."""
    for i in range(len(text) - SLACK):
        out[at + i] = text[i]
    return at + len(text) - SLACK


def constant(text: bytes) -> NDArray[np.uint8]:
    """A text for `phrase`: followed by bytes that may be read."""
    return np.frombuffer(text + bytes(SLACK), dtype=np.uint8)

"""Arrays that refer to ids by index: which indices they use, and putting another process's indices in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel


def mark_used(indices: NDArray[np.int32], used: NDArray[np.bool_]) -> None:
    """Set the flag of every index that occurs; negative ones stand for nothing. About 1 ns each.

    Examples
    --------
    >>> used = np.zeros(4, dtype=np.bool_)
    >>> mark_used(np.array([[2, -1], [0, 2]], dtype=np.int32), used)
    >>> used.tolist()
    [True, False, True, False]
    """
    _mark(np.ascontiguousarray(indices).reshape(-1), used)


def translate(indices: NDArray[np.int32], theirs: NDArray[np.int32], ours: NDArray[np.int32]) -> None:
    """Replace in place each index ``theirs[n]`` by ``ours[n]``, and every other one by -1. About 1-3 ns each.

    Parameters
    ----------
    indices
        C-contiguous, of any shape.
    theirs
        Rising.
    ours
        As long as `theirs`.

    Examples
    --------
    >>> indices = np.array([[7, 3], [-1, 5]], dtype=np.int32)
    >>> translate(indices, np.array([3, 7], dtype=np.int32), np.array([0, 1], dtype=np.int32))
    >>> indices.tolist()
    [[1, 0], [-1, -1]]
    """
    table: NDArray[Any] = np.full(int(theirs[-1]) + 1 if len(theirs) else 0, -1, dtype=np.int32)
    table[theirs] = ours
    _translate(indices.reshape(-1), table)


@lean_kernel
def _mark(indices: NDArray[np.int32], used: NDArray[np.bool_]) -> None:
    for index in indices:
        if 0 <= index < len(used):
            used[index] = True


@lean_kernel
def _translate(indices: NDArray[np.int32], table: NDArray[np.int32]) -> None:
    for n in range(len(indices)):
        index = indices[n]
        indices[n] = table[index] if 0 <= index < len(table) else -1

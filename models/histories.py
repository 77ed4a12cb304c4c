"""Recent items per user: the learned memory from which deltas are emitted and lists are ranked.

Each user has a ring of the last N touches (item, second, kind of event), so that appending moves nothing and a forget
can replay what was learned. A touch that repeats the newest item with no stronger kind is dropped: it says nothing new
and would only push older items out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernel import kernel, lean_kernel
from models.vocabulary import grown

HISTORY = 20  # touches kept per user unless told otherwise
MAX_HISTORY = 127
SESSION_START = np.uint8(0x80)  # flag beside the kind: this touch opened a session
KIND_MASK = np.uint8(0x7F)


class Touches(NamedTuple):
    """One batch of touches as columns, in stream order; the histories' and the deltas' input.

    `user`, `item`: dense indices; `kind`: index into the table of event weights, < 128; `ts`: seconds since 2000-01-01
    (uint32, until 2136); `starts`: True where the touch opens a session.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    kind: NDArray[np.uint8]
    ts: NDArray[np.uint32]
    starts: NDArray[np.bool_]


@kernel
def single(touches: Touches, n: int) -> Touches:
    """The n-th touch alone, as a view."""
    end = n + 1
    return Touches(
        touches.user[n:end], touches.item[n:end], touches.kind[n:end], touches.ts[n:end], touches.starts[n:end]
    )


class HistoryArrays(NamedTuple):
    """The arrays kernels read and write: rings by user (row) and slot (column)."""

    item: NDArray[np.int32]
    ts: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    head: NDArray[np.uint8]
    count: NDArray[np.uint8]  # type: ignore[assignment]  # the field's name outweighs tuple.count


class Histories:
    """Rings of the last `size` touches per user.

    Parameters
    ----------
    size
        Touches kept per user, 1 to 127. More costs 9 bytes per user each and lengthens every ranking.

    Notes
    -----
    Memory: ``9 * size + 2`` bytes per user. An append costs a few nanoseconds.

    Examples
    --------
    >>> histories = Histories(size=3)
    >>> for second, item in enumerate([7, 8, 9, 5]):
    ...     _ = histories.append(user=0, item=item, kind=0, ts=second)
    >>> histories.recent(0)
    [5, 9, 8]
    """

    def __init__(self, size: int = HISTORY) -> None:
        if not 1 <= size <= MAX_HISTORY:
            raise ValueError(f"size must be 1 to 127, not {size}")
        self.size = size
        self.arrays = HistoryArrays(
            np.zeros((0, size), dtype=np.int32),
            np.zeros((0, size), dtype=np.uint32),
            np.zeros((0, size), dtype=np.uint8),
            np.zeros(0, dtype=np.uint8),
            np.zeros(0, dtype=np.uint8),
        )

    def reserve(self, users: int) -> None:
        """Make room for users ``0 .. users - 1``."""
        if users > len(self.arrays.head):
            self.arrays = HistoryArrays._make(grown(a, max(users, 256)) for a in self.arrays)

    def append(self, user: int, item: int, kind: int, ts: int, *, starts: bool = False) -> bool:
        """Add one touch; False if it repeats the newest item with no stronger kind and was dropped."""
        self.reserve(user + 1)
        return bool(append(self.arrays, user, item, kind, ts, starts))

    def clear(self, users: NDArray[np.int32]) -> None:
        """Forget what some users touched, and wipe it."""
        for column in self.arrays:
            column[users] = 0

    def recall(self, users: NDArray[np.int32]) -> Touches:
        """What is kept of some users' touches, user by user, oldest first; they are called 0, 1 ... as they are given.

        Appended to empty histories it makes the same histories again.
        """
        a = self.arrays
        age = np.arange(self.size - 1, -1, -1)
        kept = age < a.count[users][:, None]
        slots = (a.head[users].astype(np.int64)[:, None] - age) % self.size
        item, kind, ts = (column[users[:, None], slots][kept] for column in (a.item, a.kind, a.ts))
        user = np.repeat(np.arange(len(users), dtype=np.int32), a.count[users])
        return Touches(user, item, kind & KIND_MASK, ts, (kind & SESSION_START) > 0)

    def holders(self, items: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Users whose rings hold any of some items, flagged by index; about 1 ns per touch."""
        filled = np.arange(self.size) < self.arrays.count[:, None]
        return np.flatnonzero((items[self.arrays.item] & filled).any(axis=1)).astype(np.int32)

    def recent(self, user: int) -> list[int]:
        """Items of a user, newest first; empty for an unknown user."""
        if user < 0 or user >= len(self.arrays.head):
            return []
        head, count = int(self.arrays.head[user]), int(self.arrays.count[user])
        return [int(self.arrays.item[user, (head - i) % self.size]) for i in range(count)]

    def snapshot(self, users: int) -> dict[str, NDArray[Any]]:
        """Copies of the rings of users ``0 .. users - 1``."""
        self.reserve(users)
        return {name: getattr(self.arrays, name)[:users].copy() for name in HistoryArrays._fields}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]]) -> Histories:
        """Histories from the arrays of `snapshot`."""
        histories = cls(arrays["item"].shape[1])
        histories.arrays = HistoryArrays._make(np.ascontiguousarray(arrays[name]) for name in HistoryArrays._fields)
        return histories


@lean_kernel
def append(histories: HistoryArrays, user: int, item: int, kind: int, ts: int, starts: bool) -> bool:
    """Add one touch to a ring, unless it repeats the newest item with no stronger kind.

    Kinds are numbered by rising strength, so a cart after a view of the same item is kept and a reload is not.
    """
    size = histories.item.shape[1]
    head: int = np.int64(histories.head[user])  # type: ignore[assignment]  # Numba: int() of uint8 is unsigned
    count: int = np.int64(histories.count[user])  # type: ignore[assignment]
    if count > 0 and histories.item[user, head] == item and (histories.kind[user, head] & KIND_MASK) >= kind:
        return False
    head = head + 1 if count > 0 and head + 1 < size else 0
    histories.item[user, head] = item
    histories.ts[user, head] = ts
    histories.kind[user, head] = np.uint8(kind) | (SESSION_START if starts else np.uint8(0))
    histories.head[user] = head
    if count < size:
        histories.count[user] = count + 1
    return True

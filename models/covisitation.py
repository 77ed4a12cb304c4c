"""Decayed, position-weighted co-visitation: which items are met near each other, learned per event.

A touch of item b by someone whose recent items are h1 (newest), h2, ... adds ``w(b) f(i)`` to the cell (h_i, b)
(*forward*) and, with a weight of its own, to (b, h_i) (*backward*); the step h1 -> b is also counted as a *transition*.
The work is split in two so that it can cross Kafka: `emit` turns touches into `Deltas` where the histories live, and
`models.neighbour_rows` adds them up where the rows live. Both are sums, so a person can be subtracted again.

It is wrong where order matters beyond one step (a sequence model sees more), and for items never met together.

References
----------
Linden, Smith, York (2003), "Amazon.com recommendations: item-to-item collaborative filtering".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.histories import HISTORY, KIND_MASK, SESSION_START, Histories, HistoryArrays, Touches, append
from models.kernel import lean_kernel

GAP = 3  # a session boundary counts like this many further items


class Weighting(NamedTuple):
    """How strongly a touch counts, as tables a kernel indexes.

    `kind`: weight of an event kind; `near`: f(distance), index 0 = the newest item; `gap`: extra distance per session
    boundary between two touches; beyond the table's end the weight is 0.
    """

    kind: NDArray[np.float32]
    near: NDArray[np.float32]
    gap: int


def power_law(exponent: float, length: int = HISTORY) -> NDArray[np.float32]:
    """Weights ``(i + 1) ** -exponent`` for the distances 0 .. length - 1."""
    return np.arange(1, length + 1, dtype=np.float32) ** np.float32(-exponent)


def weighting(kinds: NDArray[np.float32] | None = None) -> Weighting:
    """The defaults by which touches teach: 1/(i + 1) by distance, every kind alike unless told."""
    return Weighting(np.ones(1, dtype=np.float32) if kinds is None else kinds, power_law(1.0), GAP)


class Deltas(NamedTuple):
    """Visits and their pairs, as columns. Visit v has the pairs ``start[v] .. start[v + 1] - 1``, newest item first.

    `item`, `weight`, `ts` describe the visit; `source` is the position of its touch in the input batch; `other` and
    `pull` are the earlier item and the pair's weight; `step` is True for the item touched immediately before.
    """

    item: NDArray[np.int32]
    weight: NDArray[np.float32]
    ts: NDArray[np.uint32]
    source: NDArray[np.int32]
    start: NDArray[np.int32]
    other: NDArray[np.int32]
    pull: NDArray[np.float32]
    step: NDArray[np.bool_]

    @classmethod
    def room(cls, touches: int, size: int) -> Deltas:
        """Columns for what so many touches can teach whose rings hold `size` items."""
        return cls(
            np.empty(touches, dtype=np.int32),
            np.empty(touches, dtype=np.float32),
            np.empty(touches, dtype=np.uint32),
            np.empty(touches, dtype=np.int32),
            np.zeros(touches + 1, dtype=np.int32),
            np.empty(touches * size, dtype=np.int32),
            np.empty(touches * size, dtype=np.float32),
            np.empty(touches * size, dtype=np.bool_),
        )

    def first(self, visits: int) -> Deltas:
        """The first so many visits with their pairs."""
        pairs = int(self.start[visits])
        ends = (visits, visits, visits, visits, visits + 1, pairs, pairs, pairs)
        return Deltas._make(column[:end] for column, end in zip(self, ends, strict=True))

    def then(self, after: Deltas) -> Deltas:
        """These and others behind them, whose `source` goes on counting."""
        moved = after._replace(source=after.source + len(self.source), start=after.start[1:] + self.start[-1])
        return Deltas._make(
            np.concatenate(columns).astype(columns[0].dtype) for columns in zip(self, moved, strict=True)
        )


def emit(histories: HistoryArrays, touches: Touches, weighting: Weighting) -> Deltas:
    """Append touches to the histories and return what they teach about pairs of items.

    Parameters
    ----------
    histories
        The users' rings; changed in place. Must have room for every user index in `touches`.
    touches
        The batch, in stream order.
    weighting
        Weights by kind and distance.

    Returns
    -------
    Deltas
        One visit per touch that was not a repeat and has a weight above 0, with at most one pair per touch in the ring.

    Notes
    -----
    About 10 ns per pair. A pure function of the histories and the batch.
    """
    deltas = Deltas.room(len(touches.user), histories.item.shape[1])
    return deltas.first(emit_into(histories, touches, weighting, deltas))


def retract(histories: Histories, users: NDArray[np.int32], weighting: Weighting) -> Deltas:
    """What `emit` returned for what the histories keep of some users, with the opposite sign.

    Parameters
    ----------
    histories
        Left as they are.
    users
        Distinct indices.
    weighting
        As it was when the touches were learned.

    Returns
    -------
    Deltas
        Exactly what was emitted for users whose history was never cut. For others, touches that were dropped from it
        stay in the sums, as do their pairs.
    """
    alone = Histories(histories.size)
    alone.reserve(len(users))
    deltas = emit(alone.arrays, histories.recall(users), weighting)
    return deltas._replace(weight=-deltas.weight, pull=-deltas.pull)


@lean_kernel
def emit_into(histories: HistoryArrays, touches: Touches, weighting: Weighting, out: Deltas) -> int:
    """Write the deltas of a batch into prepared columns; returns the number of visits."""
    visits = 0
    for n in range(len(touches.user)):
        visits = emit_touch(histories, touches, n, weighting, out, visits)
    return visits


@lean_kernel
def emit_touch(
    histories: HistoryArrays, touches: Touches, n: int, weighting: Weighting, out: Deltas, visits: int
) -> int:
    """Append one touch and write its deltas behind those of so many visits; returns the number of visits."""
    kind = int(touches.kind[n])
    user = touches.user[n]
    weight = weighting.kind[kind]
    if weight <= 0 or not append(histories, user, touches.item[n], kind, touches.ts[n], touches.starts[n]):
        return visits
    out.item[visits] = touches.item[n]
    out.weight[visits] = weight
    out.ts[visits] = touches.ts[n]
    out.source[visits] = n
    out.start[visits + 1] = pairs_of_newest(histories, user, 0, weighting, out, np.int64(out.start[visits]))  # type: ignore[arg-type]  # Numba: a wider int
    return visits + 1


@lean_kernel
def pairs_of_newest(
    histories: HistoryArrays, user: int, skip: int, weighting: Weighting, out: Deltas, pairs: int
) -> int:
    """Write the pairs of the touch that is `skip` places behind the newest with all older ones; returns the new end."""
    size = histories.item.shape[1]
    count = np.int64(histories.count[user])
    head = (np.int64(histories.head[user]) - skip) % size
    item = histories.item[user, head]
    weight = weighting.kind[histories.kind[user, head] & KIND_MASK]
    crossed = 1 if histories.kind[user, head] & SESSION_START else 0
    for i in range(1, count - skip):
        slot = head - i if head >= i else head - i + size
        distance = i - 1 + crossed * weighting.gap
        if distance >= len(weighting.near):
            break
        other = histories.item[user, slot]
        if other != item:
            out.other[pairs] = other
            out.pull[pairs] = weight * weighting.near[distance]
            out.step[pairs] = i == 1
            pairs += 1
        if histories.kind[user, slot] & SESSION_START:
            crossed += 1
    return pairs

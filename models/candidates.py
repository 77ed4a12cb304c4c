"""Candidates of one list and what each model says about them: the common table into which several models vote."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel

ROOM: Final = 4096  # candidates of one list; later ones are left out
FULL: Final = -1


class Candidates(NamedTuple):
    """Working memory of one list; all zero between lists, so that adding needs no preparation.

    `place`: by item index, 1 + its column, 0 = no candidate; `item`: by column; `x`: float32[features, ROOM], what the
    models say; `total`: by feature, the sum of its votes. `place` and `item` may be those of a `Scratch`. `clue`: by
    column, the visitor's item through which a similar session was found; means nothing where none was. `voter`: by
    column, 1 + the session that voted last.
    """

    place: NDArray[np.int32]
    item: NDArray[np.int32]
    x: NDArray[np.float32]
    total: NDArray[np.float64]
    clue: NDArray[np.int32]
    voter: NDArray[np.int32]

    @classmethod
    def empty(cls, items: int, features: int) -> Candidates:
        """Room for item indices below `items`: 8 bytes each, and 16 kB per feature."""
        return cls(
            np.zeros(items, dtype=np.int32),
            np.zeros(items + 1, dtype=np.int32),
            np.zeros((features, ROOM), dtype=np.float32),
            np.zeros(features),
            np.zeros(ROOM, dtype=np.int32),
            np.zeros(ROOM, dtype=np.int32),
        )


@lean_kernel
def column(candidates: Candidates, item: int, found: int) -> int:
    """Column of an item: `found` if it is new (it is listed then, and the caller counts it), `FULL` if none is left."""
    place = np.int64(candidates.place[item])
    at: int = place - 1 if place > 0 else np.int64(found)  # type: ignore[assignment]  # Numba: signed
    if at == candidates.x.shape[1]:
        return FULL
    candidates.place[item] = at + 1  # in any case: a wrong guess whether it is new costs more than two writes
    candidates.item[at] = item
    return at


@lean_kernel
def add_cells(
    candidates: Candidates,
    feature: int,
    items: NDArray[np.int32],
    values: NDArray[np.float64],
    size: int,
    vote: float,
    found: int,
) -> int:
    """Let the first `size` cells of a row vote in a feature; returns how many candidates there are now."""
    x = candidates.x[feature]
    total = 0.0
    for c in range(size):
        part = values[c] * vote
        if part > 0.0:
            at = column(candidates, items[c], found)
            if at >= 0:
                found += at == found
                x[at] += part
                total += part
    candidates.total[feature] += total
    return found


@lean_kernel
def clear(candidates: Candidates, found: int) -> None:
    """Forget the candidates of a list."""
    for c in range(found):
        candidates.place[candidates.item[c]] = 0
    candidates.x[:, :found] = 0.0
    candidates.total[:] = 0.0
    candidates.voter[:found] = 0

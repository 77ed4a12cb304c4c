"""The blend: one list from several models, weighed by what visitors did next, with a reason for every item.

`models.blend_features` gathers candidates and what each model says of them, `models.listwise` weighs them. Before a
touch is learned, the list it would have been shown is ranked again and the weights move towards the item that was
touched (test, then learn). A drop of the hit rate that ADWIN finds significant makes the weights move faster again.

State is local to a partition of users, but for the rows of co-visitation, which belong to the items: with P partitions
each sees 1/P of the sessions, and the rows see all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from models.blend_features import FEATURES, GROUPS, Desk, Sources, describe
from models.blend_features import NEWEST, POPULAR, PREVIOUS, SEEN, SESSIONS, STEP, WALK
from models.candidates import clear
from models.covisitation import RowArrays
from models.histories import HistoryArrays, Touches
from models.kernel import kernel
from models.listwise import Learner, learn, mixed, score, softmax
from models.postings import Postings
from models.ranking import MICRO, Lists, Query, explain
from models.session_knn import learn_touch
from models.tallies import Tallies, tally
from models.vocabulary import id_less

REASONS: Final = ("covisit", "next", "sessions", "walk", "seen", "popular")
COVISIT, NEXT, ALIKE, ONWARD, AGAIN, TREND = range(6)
NO_REASON: Final = 255
# where all learning of the weights starts: about what seven public streams agreed on
PRIOR: Final = (1.3, 0.6, 0.5, 0.4, 0.2, 0.9, 0.0, 0.4, 0.2, 0.2, -0.9, 0.1)
RATE: Final = 0.05
BLOCKS: Final = 1 << 17  # of postings: 8 MB
ALL_TEACH: Final = 20_000  # so many first lists teach the weights, ...
EVERY: Final = 4  # ... later each so many-th: enough to follow, at a quarter of the cost
GRID: Final = 1e5  # scores that agree to so many parts of 1 rank by id, like in `models.ranking`
TOP: Final = 20  # a hit is a target among so many
SAMPLE: Final = 25  # lessons whose mean hit rate is one value for ADWIN
QUICKEN: Final = 0.25  # what a drift leaves of the squared gradients: the next steps are twice as long
TOUCHES, LESSONS, HITS = range(3)  # counts


class BlendArrays(NamedTuple):
    """What kernels read and write: the partition's postings, tallies, weights and counts."""

    postings: Postings
    tallies: Tallies
    learner: Learner
    counts: NDArray[np.int64]


class Blend:
    """The blend of one partition of users.

    Parameters
    ----------
    blocks
        Blocks of postings, > 0: sessions that can be found by their items. The oldest are dropped first.
    rate
        Learning rate of the weights, > 0. Higher adapts faster and is noisier.
    frozen
        Keep the weights as they are; sessions and popularity are still learned.

    Notes
    -----
    A list costs about 10 us, and a lesson as much again (one touch in four once `ALL_TEACH` are past). Memory: 64 bytes
    per block and 24 per item.
    """

    def __init__(self, blocks: int = BLOCKS, rate: float = RATE, *, frozen: bool = False) -> None:
        self.rate = rate
        self.frozen = frozen
        self.drifts = 0
        self.arrays = BlendArrays(
            Postings.empty(blocks),
            Tallies.empty(),
            Learner.start(np.array(PRIOR), GROUPS),
            np.zeros(3, dtype=np.int64),
        )
        self._detector = ADWIN()
        self._told = np.zeros(3, dtype=np.int64)

    @property
    def hit_rate(self) -> float:
        """Share of recent lessons whose target was among the first 20, over the window ADWIN holds to be stable."""
        return float(self._detector.estimation)

    @property
    def pace(self) -> float:
        """Mean step of the shared weights for a gradient of 1: falls as they settle, doubles at a drift."""
        return float((self.rate / np.sqrt(self.arrays.learner.square[0])).mean())

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights shared by all lists, by feature."""
        return self.arrays.learner.weight[0].copy()

    def reserve(self, items: int) -> None:
        """Make room for item indices below `items`."""
        arrays = self.arrays
        self.arrays = arrays._replace(
            postings=arrays.postings.reserved(items), tallies=arrays.tallies.reserved(items)
        )

    def learn_many(
        self, histories: HistoryArrays, rows: RowArrays, touches: Touches, kinds: NDArray[np.float32], query: Query,
        desk: Desk,
    ) -> None:
        """Test, then learn a batch. To be called before `emit` appends the touches to the histories.

        Parameters
        ----------
        histories, rows
            The visitors' recent items before the batch, and the neighbour rows at hand.
        touches
            The batch, in stream order; a visitor's later touches are tested against the state before the batch.
        kinds, query
            Weight by kind of event (0 = teaches nothing), and how recent items vote.
        desk
            Working memory with room for every item index.
        """
        learn_touches(self.arrays, histories, rows, touches, kinds, query, self.frozen, self.rate, desk)
        self.watch()

    def watch(self) -> None:
        """Tell ADWIN the hit rate since the last time; quicken the learning if it has fallen for good."""
        counts = self.arrays.counts
        lessons = counts[LESSONS] - self._told[LESSONS]
        if lessons < SAMPLE:
            return
        before = self._detector.estimation
        self._detector.update(float((counts[HITS] - self._told[HITS]) / lessons))
        self._told = counts.copy()
        if self._detector.drift_detected and self._detector.estimation < before:
            self.drifts += 1
            self.arrays.learner.square[:] *= QUICKEN

    def rank_many(
        self,
        histories: HistoryArrays,
        users: NDArray[np.int32],
        rows: RowArrays,
        query: Query,
        hidden: NDArray[np.bool_],
        blob: NDArray[np.uint8],
        ends: NDArray[np.int64],
        desk: Desk,
        out: Lists,
        reasons: NDArray[np.uint8],
    ) -> None:
        """Rank lists for some users, as `rank_rows` does; `reasons` gets indices into `REASONS`, else `NO_REASON`.

        A score is the chance, in millionths, that the item is the next one, among the candidates of the list.
        """
        rank_blended(self.arrays, histories, users, rows, query, hidden, blob, ends, desk, out, reasons)

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copies of the state; ADWIN's window is not kept and fills again."""
        postings, tallies, learner, counts = self.arrays
        used = min(int(postings.allocated[0]), len(postings.block))
        return {
            "block": postings.block[:used].copy(),
            "blocks": np.array([len(postings.block)]),
            "newest": postings.newest.copy(),
            "allocated": postings.allocated.copy(),
            **{name: getattr(tallies, name).copy() for name in Tallies._fields},
            **{name: getattr(learner, name).copy() for name in Learner._fields},
            "counts": counts.copy(),
            "drifts": np.array([self.drifts]),
        }

    @classmethod
    def restore(
        cls, arrays: Mapping[str, NDArray[Any]], items: NDArray[np.int32] | None = None, rate: float = RATE, *,
        frozen: bool = False,
    ) -> Blend:
        """A blend from the arrays of `snapshot`.

        Parameters
        ----------
        arrays
            The arrays.
        items
            For each item index of the snapshot the index here; None = the same.
        rate, frozen
            As for `Blend`.
        """
        known = len(arrays["newest"])
        here = np.arange(known, dtype=np.int32) if items is None else items[:known]
        blend = cls(int(arrays["blocks"][0]), rate, frozen=frozen)
        blend.reserve(int(here.max(initial=-1)) + 1)
        postings, tallies, learner, counts = blend.arrays
        postings.block[: len(arrays["block"])] = arrays["block"]
        postings.newest[here] = arrays["newest"][: len(here)]
        postings.allocated[:] = arrays["allocated"]
        tallies.slow[here] = arrays["slow"][: len(here)]
        tallies.fast[here] = arrays["fast"][: len(here)]
        listed = arrays["popular"] >= 0
        tallies.popular[listed] = here[arrays["popular"][listed]]
        tallies.events[:] = arrays["events"]
        learner.weight[:] = arrays["weight"]
        learner.square[:] = arrays["square"]
        counts[:] = arrays["counts"]
        blend._told = counts.copy()
        blend.drifts = int(arrays["drifts"][0])
        return blend


@kernel
def weigh(
    arrays: BlendArrays, histories: HistoryArrays, user: int, rows: RowArrays, query: Query, desk: Desk
) -> int:
    """Gather and score a user's candidates; returns how many there are, the first being the item the user is on."""
    sources = Sources(histories, rows, arrays.postings, arrays.tallies)
    found = describe(sources, user, query, desk)
    if found > 0:
        mixed(arrays.learner, desk.group, desk.weight)
        score(desk.candidates.x, found, desk.weight, desk.score)
        desk.score[0] = -np.inf
    return found


@kernel
def learn_touches(
    arrays: BlendArrays,
    histories: HistoryArrays,
    rows: RowArrays,
    touches: Touches,
    kinds: NDArray[np.float32],
    query: Query,
    frozen: bool,
    rate: float,
    desk: Desk,
) -> None:
    """Test and learn each touch, in order."""
    for n in range(len(touches.user)):
        user, item = touches.user[n], touches.item[n]
        if kinds[touches.kind[n]] <= 0 or on_item(histories, user, item):
            continue
        if not frozen and is_lesson(arrays.counts, histories, user):
            found = weigh(arrays, histories, user, rows, query, desk)
            teach(arrays, desk, found, item, rate)
            clear(desk.candidates, found)
        remember(arrays, histories, user, item)


@kernel
def on_item(histories: HistoryArrays, user: int, item: int) -> bool:
    """Whether a user is on an item already: a repeat, which teaches nothing."""
    return bool(histories.count[user] > 0 and histories.item[user, histories.head[user]] == item)


@kernel
def is_lesson(counts: NDArray[np.int64], histories: HistoryArrays, user: int) -> bool:
    """Whether the next touch of a user is to teach the weights."""
    turn = counts[LESSONS] < ALL_TEACH or counts[TOUCHES] % EVERY == 0
    return bool(turn and histories.count[user] > 0)


@kernel
def remember(arrays: BlendArrays, histories: HistoryArrays, user: int, item: int) -> None:
    """Learn a touch in the models that belong to the partition."""
    arrays.counts[TOUCHES] += 1
    tally(arrays.tallies, item)
    learn_touch(arrays.postings, histories, user, item)


@kernel
def teach(arrays: BlendArrays, desk: Desk, found: int, item: int, rate: float) -> None:
    """Move the weights towards the item that was touched, if it was a candidate; count lesson and hit."""
    arrays.counts[LESSONS] += 1
    target = np.int64(desk.candidates.place[item]) - 1
    if target <= 0:
        return
    scores = desk.score[:found]
    better = 0
    for value in scores:
        better += value > scores[target]
    arrays.counts[HITS] += better < TOP
    softmax(scores, desk.chance[:found])
    learn(arrays.learner, desk.candidates.x, desk.chance[:found], target, desk.group, rate)


@kernel
def rank_blended(
    arrays: BlendArrays,
    histories: HistoryArrays,
    users: NDArray[np.int32],
    rows: RowArrays,
    query: Query,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    ends: NDArray[np.int64],
    desk: Desk,
    out: Lists,
    reasons: NDArray[np.uint8],
) -> None:
    """Rank and explain a list for each of some users."""
    for u in range(len(users)):
        found = weigh(arrays, histories, users[u], rows, query, desk)
        filled = choose(found, hidden, blob, ends, desk, out.item[u], out.micro[u])
        for i in range(filled):
            at = desk.candidates.place[out.item[u, i]] - 1
            reasons[u, i] = main_reason(desk.weight, desk.candidates.x[:, at])
            desk.clue[i] = desk.candidates.clue[at]
        clear(desk.candidates, found)
        explain(rows, desk.voters[0], desk.scratch, out.item[u], out.why[u])
        for i in range(filled):
            out.why[u, i] = origin(reasons[u, i], out.item[u, i], out.why[u, i], desk.scratch.seed[0], desk.clue[i])
        out.why[u, filled:] = -1
        reasons[u, filled:] = NO_REASON


@kernel
def origin(reason: int, item: int, voter: int, newest: int, clue: int) -> int:
    """The visitor's own item that led to a listed one, -1 for none."""
    if reason == COVISIT:
        return voter
    if reason in (NEXT, ONWARD):
        return newest
    if reason == ALIKE:
        return clue
    return item if reason == AGAIN else -1


@kernel
def choose(
    found: int,
    hidden: NDArray[np.bool_],
    blob: NDArray[np.uint8],
    ends: NDArray[np.int64],
    desk: Desk,
    items: NDArray[np.int32],
    micros: NDArray[np.int64],
) -> int:
    """Write the best candidates by rounded score, then id, with their chances; returns how many."""
    k = len(items)
    filled = 0
    floor = np.float32(-np.inf)
    softmax(desk.score[:found], desk.chance[:found])
    for c in range(1, found):
        if filled == k and desk.score[c] < floor:  # most candidates end here
            continue
        item = desk.candidates.item[c]
        if hidden[item]:
            continue
        key = np.int64(np.floor(desk.score[c] * GRID + 0.5))
        at = filled
        while at > 0 and (
            key > micros[at - 1] or (key == micros[at - 1] and id_less(blob, ends, item, items[at - 1]))
        ):
            if at < k:
                items[at] = items[at - 1]
                micros[at] = micros[at - 1]
            at -= 1
        if at < k:
            items[at] = item
            micros[at] = key
            filled = min(filled + 1, k)
        if filled == k:
            floor = np.float32((micros[k - 1] - 1) / GRID)
    for i in range(filled):
        chance = desk.chance[desk.candidates.place[items[i]] - 1]
        micros[i] = max(np.int64(chance * MICRO + 0.5), 1)
    items[filled:] = -1
    micros[filled:] = 0
    return filled


@kernel
def main_reason(weight: NDArray[np.float32], x: NDArray[np.float32]) -> int:
    """The model that adds most to a candidate's score; popularity where none adds anything."""
    best, reason = 0.0, TREND
    parts = (
        (COVISIT, NEWEST, STEP),
        (NEXT, STEP, SESSIONS),
        (ALIKE, SESSIONS, WALK),
        (ONWARD, WALK, SEEN),
        (AGAIN, SEEN, POPULAR),
    )
    for which, first, end in parts:
        part = 0.0
        for k in range(first, end):
            part += weight[k] * x[k]
        if part > best:
            best, reason = part, which
    return reason

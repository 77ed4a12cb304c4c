"""The blend: one list from several models, weighed by what visitors did next, with a reason for every item.

`models.blend_features` gathers candidates and what each model says of them, `models.listwise` weighs them. Before a
touch is learned, the list it would have been shown is ranked again and the weights move towards the item that was
touched (test, then learn). A drop of the hit rate that ADWIN finds significant makes the weights move faster again,
by longer steps and by as many lessons as at the start, for a while.

State is local to a partition of users, but for the rows of co-visitation, which belong to the items: with P partitions
each sees 1/P of the sessions, and the rows see all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from models.blend_constants import CONSTANTS, FIRST, VALUES
from models.blend_content import Catalogue, no_catalogue
from models.blend_features import GROUPS, NAMES, Desk
from models.blend_lists import ALERT, ALERTED, HITS, LESSONS, TOUCHES, BlendArrays, learn_touches, rank_blended
from models.covisitation import Deltas, Weighting
from models.histories import HistoryArrays, Touches
from models.listwise import Learner
from models.neighbour_rows import RowArrays
from models.nesting import prefixed
from models.postings import NONE, Postings, emptied, listed, remove_users
from models.race import CHANGES, LEADER, Races
from models.ranking import Lists, Query
from models.tallies import NEVER, Tallies, widened
from models.weight_averaging import Opinion, move

# where all learning of the weights starts: about what five public streams agreed on
PRIOR: Final = (1.3, 0.6, 0.5, 0.4, 0.2, 0.9, 0.0, 0.4, 0.2, 0.2, -0.9, 0.1, 1.2, 0.3, 0.0)
RATE: Final = 0.05
BLOCKS: Final = 1 << 17  # of postings: 8 MB
SAMPLE: Final = 25  # lessons whose mean hit rate is one value for ADWIN
LOOK: Final = 8  # values between two looks of ADWIN for a drift; its own 32 are 6,400 touches of an old blend
QUICKEN: Final = 0.25  # what a drift leaves of the squared gradients: the next steps are twice as long
WATCHED: Final = 512  # latest values that a snapshot keeps for ADWIN, whose window fills from them again
SPEAK: Final = 5_000  # touches between two opinions sent


class Blend:
    """The blend of one partition of users.

    Parameters
    ----------
    blocks
        Blocks of postings, > 0: sessions that can be found by their items. The oldest are dropped first.
    rate
        Learning rate of the weights, > 0. Higher adapts faster and is noisier.
    frozen
        Keep the weights and constants as they are; sessions and popularity are still learned.
    prior
        Weights to start from, one per feature.

    Attributes
    ----------
    drifts
        Lasting falls of the hit rate so far.
    heard
        Version of the mean that was taken over last, 0 for none.
    spoke_at
        Where the caller sent the latest opinion: partition and offset, kept for it.

    Notes
    -----
    A list costs 10-18 us (random visitors, cold caches), a third of it for similar sessions; a lesson as much again
    (one touch in eight once `MANY_TEACH` are past). Memory: 64 bytes per block and 40 per item.
    """

    def __init__(
        self,
        blocks: int = BLOCKS,
        rate: float = RATE,
        *,
        frozen: bool = False,
        prior: Sequence[float] = PRIOR,
    ) -> None:
        self.rate = rate
        self.frozen = frozen
        self.drifts = 0
        self.heard = 0
        self.arrays = BlendArrays(
            Postings.empty(blocks),
            Tallies.empty(),
            Learner.start(np.array(prior), GROUPS),
            Races.start(FIRST, VALUES.shape[1]),
            np.zeros(4, dtype=np.int64),
            no_catalogue(),
        )
        self._detector: Any = ADWIN(clock=LOOK)  # type: ignore[no-untyped-call]  # River's detectors are not annotated
        self._rates: deque[float] = deque(maxlen=WATCHED)
        self._told = np.zeros(4, dtype=np.int64)
        self._sent: Opinion | None = None
        self._spoke = 0
        self.spoke_at: tuple[int, ...] = (0, -1)

    @property
    def lessons(self) -> int:
        """Lessons learned."""
        return int(self.arrays.counts[LESSONS])

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
        shared: NDArray[np.float64] = self.arrays.learner.weight[0].copy()
        return shared

    @property
    def constants(self) -> dict[str, float]:
        """Of each constant that races the value that leads; see `models.blend_constants`."""
        leaders = self.arrays.races.lead[:, LEADER]
        return {name: float(values[at]) for name, values, at in zip(CONSTANTS, VALUES, leaders, strict=True)}

    @property
    def changes(self) -> dict[str, int]:
        """How often the lead of each of these races has changed."""
        return dict(zip(CONSTANTS, self.arrays.races.lead[:, CHANGES].tolist(), strict=True))

    def facts(self) -> dict[str, Any]:
        """What operators see of it: plain values."""
        return {
            "lessons": self.lessons,
            "hit_rate": round(self.hit_rate, 4),
            "drifts": self.drifts,
            "mean": self.heard,
            "constants": self.constants,
            "changes": self.changes,
            "weights": dict(zip(NAMES, np.round(self.weights, 4).tolist(), strict=True)),
        }

    def reserve(self, items: int) -> None:
        """Make room for item indices below `items`."""
        arrays = self.arrays
        self.arrays = arrays._replace(postings=arrays.postings.reserved(items), tallies=arrays.tallies.reserved(items))

    def consult(self, catalogue: Catalogue) -> None:
        """Use a catalogue, which others keep up to date; its arrays are replaced where it grows, so call it again."""
        self.arrays = self.arrays._replace(catalogue=catalogue)

    def drop_items(self, items: NDArray[np.int32]) -> None:
        """Forget some items: nothing refers to their indices any more, and they go to others."""
        postings, tallies = self.arrays.postings, self.arrays.tallies
        items = items[items < len(tallies.slow)]
        postings.newest[items] = NONE
        tallies.slow[items] = tallies.fast[items] = NEVER
        kept = tallies.popular[~np.isin(tallies.popular, items)]
        tallies.popular[:] = NONE
        tallies.popular[: len(kept)] = kept

    def forget_users(self, users: NDArray[np.int32], histories: HistoryArrays) -> None:
        """Remove some users' sessions, and what is known of items that nobody else had; 3-6 ms with all blocks in use.

        A user who is merely dropped needs no such call: a posting counts only as long as the user's ring has the item.
        What their touches added to the popularity of items that others had, too, stays until it has decayed, as do the
        steps that the weights took.

        Parameters
        ----------
        users
            Their indices.
        histories
            Their recent items, still there.
        """
        filled = np.arange(histories.item.shape[1]) < histories.count[users][:, None]
        items = np.unique(histories.item[users][filled])
        gone = np.zeros(int(users.max(initial=-1)) + 1, dtype=np.bool_)
        gone[users] = True
        postings = self.arrays.postings
        remove_users(postings, gone)
        known = items[items < len(postings.newest)]
        flags = np.zeros(len(postings.newest), dtype=np.bool_)
        emptied(postings, flags)  # also what their rings do not hold any more
        flags[known] = [not listed(postings, item) for item in known.tolist()]
        self.drop_items(np.flatnonzero(flags).astype(np.int32))

    def learn_many(
        self,
        histories: HistoryArrays,
        rows: RowArrays,
        touches: Touches,
        weighting: Weighting,
        query: Query,
        desk: Desk,
        *,
        test: bool = True,
    ) -> Deltas:
        """Test, learn and append a batch touch by touch: each is tested against all before it.

        Parameters
        ----------
        histories, rows
            The visitors' recent items, to which the touches are appended as `emit` does, and the rows at hand.
        touches
            The batch, in stream order.
        weighting, query
            How strongly a touch teaches (a kind of weight 0 teaches nothing), and how recent items vote.
        desk
            Working memory with room for every item index.
        test
            Whether the touches teach the weights: not if the rows have learned them already.

        Returns
        -------
        Deltas
            As of `models.covisitation.emit`.
        """
        out, everything = Deltas.room(len(touches.user), histories.item.shape[1]), slice(len(touches.user))
        visits = self.learn_some(histories, rows, touches, everything, weighting, query, desk, out, 0, test=test)
        self.watch()
        return out.first(visits)

    def learn_some(
        self,
        histories: HistoryArrays,
        rows: RowArrays,
        touches: Touches,
        span: slice,
        weighting: Weighting,
        query: Query,
        desk: Desk,
        out: Deltas,
        visits: int,
        *,
        test: bool = True,
    ) -> int:
        """As `learn_many` a span of a batch, behind what the batch has taught so far; `watch` at its end.

        Parameters
        ----------
        span
            Of the touches; spans follow each other.
        out, visits
            The batch's deltas, with room for all of them, and how many visits they hold.

        Returns
        -------
        int
            How many visits they hold now.
        """
        frozen, rate = self.frozen or not test, self.rate
        start, end, _ = span.indices(len(touches.user))
        return learn_touches(
            self.arrays, histories, rows, touches, start, end, weighting, query, frozen, rate, desk, out, visits
        )

    def watch(self) -> None:
        """Tell ADWIN the hit rate since the last time; quicken the learning if it has fallen for good."""
        counts = self.arrays.counts
        lessons = counts[LESSONS] - self._told[LESSONS]
        if lessons < SAMPLE:
            return
        before = self._detector.estimation
        self._rates.append(float((counts[HITS] - self._told[HITS]) / lessons))
        self._detector.update(self._rates[-1])
        self._told = counts.copy()
        if self._detector.drift_detected and self._detector.estimation < before:
            self.drifts += 1
            self.arrays.learner.square[:] *= QUICKEN
            counts[ALERT] = counts[LESSONS] + ALERTED

    def opinion(self) -> Opinion | None:
        """What it has learned, if it is time to tell the others; they answer with `hear`."""
        touches = int(self.arrays.counts[TOUCHES])
        if self.frozen or touches - self._spoke < SPEAK:
            return None
        self._spoke = touches
        self._sent = Opinion.of(self.arrays.learner, self.lessons)
        return self._sent

    def hear(self, mean: Opinion, version: int, *, included: bool = True) -> None:
        """Move towards the mean of all partitions, once for each opinion sent; at once if nothing was learned yet.

        A mean in which the opinion is not `included` yet is no answer to it: to move towards it would take back what
        was learned since the one before.
        """
        learner = self.arrays.learner
        if self.frozen or version == self.heard or mean.weight.shape != learner.weight.shape:
            return
        sent = self._sent if self.lessons else Opinion.of(learner, 0)
        if sent is not None and (included or not self.lessons):
            counts = self.arrays.counts
            # others may not have met the drift yet: their sums of squares would end the quickening
            move(learner, sent, mean, settle=bool(counts[LESSONS] >= counts[ALERT]))
            self._sent = None
            self.heard = version

    def rank_many(
        self,
        histories: HistoryArrays,
        users: NDArray[np.int32],
        rows: RowArrays,
        query: Query,
        hidden: NDArray[np.bool_],
        blob: NDArray[np.uint8],
        spans: NDArray[np.int64],
        desk: Desk,
        out: Lists,
    ) -> None:
        """Rank lists for some users, as `rank_rows` does, each item with its main reason.

        A score is the item's chance to be the next one, in millionths of the chance of the list's first.
        """
        rank_blended(self.arrays, histories, users, rows, query, hidden, blob, spans, desk, out)

    def items(self, part: slice = slice(None)) -> NDArray[np.int32]:
        """Items of which anything is known, rising; or those of them with an index in a part that has a start."""
        known = np.flatnonzero(self.arrays.tallies.slow[part] > NEVER)
        return (known + (part.start or 0)).astype(np.int32)

    def by_item(self) -> dict[str, NDArray[Any]]:
        """The arrays with an entry per item index, themselves."""
        postings, tallies = self.arrays.postings, self.arrays.tallies
        size = len(tallies.slow)
        return {"newest": postings.newest[:size], "slow": tallies.slow, "fast": tallies.fast}

    def state(self) -> dict[str, NDArray[Any]]:
        """All other arrays, themselves where they are large; `popular` holds item indices."""
        postings, tallies, learner, races, counts, _ = self.arrays
        sent = self._sent or Opinion.of(learner, -1)
        return {
            "block": postings.block[: min(int(postings.allocated[0]), len(postings.block))],
            "allocated": postings.allocated,
            "popular": tallies.popular,
            "events": tallies.events,
            **prefixed("race", races._asdict()),
            "weight": learner.weight,
            "square": learner.square,
            "counts": counts[:ALERT],  # a restart ends what a drift had begun
            "told": self._told[:ALERT],
            "rates": np.array(self._rates, dtype=np.float64),
            "sent_weight": sent.weight,
            "sent_square": sent.square,
            "facts": np.array(
                [len(postings.block), self.drifts, self.heard, self._spoke, sent.lessons, *self.spoke_at]
            ),
        }

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Copies of the state, as `restore` takes them."""
        items = self.items()
        columns = {name: column[items] for name, column in self.by_item().items()}
        return {"items": items, **columns, **{name: array.copy() for name, array in self.state().items()}}

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], rate: float = RATE, *, frozen: bool = False) -> Blend:
        """A blend from `items`, `by_item` of these items, and `state`; indices of items may be other ones by now.

        Weights of a version with other features are left out: learning starts from the prior again.

        Parameters
        ----------
        arrays
            The arrays.
        rate, frozen
            As for `Blend`.
        """
        blocks, blend_drifts, heard, spoke, lessons, *spoke_at = arrays["facts"].tolist()
        blend = cls(blocks, rate, frozen=frozen)
        items = arrays["items"]
        blend.reserve(int(items.max(initial=-1)) + 1)
        postings, tallies, learner, races, counts, _ = blend.arrays
        postings.block[: len(arrays["block"])] = arrays["block"]
        postings.allocated[:] = arrays["allocated"]
        for name, column in blend.by_item().items():
            kept = arrays[name]
            column[items] = widened(kept, int(arrays["events"][0])) if kept.ndim < column.ndim else kept
        tallies.popular[:] = arrays["popular"]
        tallies.events[:] = arrays["events"]
        for name, column in races._asdict().items():
            kept = np.atleast_2d(arrays.get(f"race.{name}", column))
            column[: len(kept)] = kept  # in earlier versions no race, or that of memory alone
        counts[:ALERT] = arrays["counts"]
        blend._told[:ALERT] = arrays["told"]
        blend.drifts, blend.heard, blend._spoke, blend.spoke_at = blend_drifts, heard, spoke, tuple(spoke_at)
        for value in arrays["rates"].tolist():
            blend._rates.append(value)
            blend._detector.update(value)
        if arrays["weight"].shape == learner.weight.shape:
            learner.weight[:] = arrays["weight"]
            learner.square[:] = arrays["square"]
            if lessons >= 0:
                blend._sent = Opinion(arrays["sent_weight"].copy(), arrays["sent_square"].copy(), lessons)
        return blend

"""The blend: one list from several models, weighed by what visitors did next, with a reason for every item.

`models.blend_features` gathers candidates and what each model says of them, `models.listwise` weighs them. Before a
touch is learned, the list it would have been shown is ranked again and the weights move towards the item that was
touched (test, then learn). A drop of the hit rate that ADWIN finds significant makes the weights move faster again.

State is local to a partition of users, but for the rows of co-visitation, which belong to the items: with P partitions
each sees 1/P of the sessions, and the rows see all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from models.blend_features import GROUPS, Desk
from models.blend_lists import HITS, LESSONS, BlendArrays, learn_touches, rank_blended
from models.histories import HistoryArrays, Touches
from models.listwise import Learner
from models.neighbour_rows import RowArrays
from models.postings import NONE, Postings
from models.ranking import Lists, Query
from models.tallies import NEVER, Tallies

# where all learning of the weights starts: about what five public streams agreed on
PRIOR: Final = (1.3, 0.6, 0.5, 0.4, 0.2, 0.9, 0.0, 0.4, 0.2, 0.2, -0.9, 0.1)
RATE: Final = 0.05
BLOCKS: Final = 1 << 17  # of postings: 8 MB
SAMPLE: Final = 25  # lessons whose mean hit rate is one value for ADWIN
QUICKEN: Final = 0.25  # what a drift leaves of the squared gradients: the next steps are twice as long


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
    prior
        Weights to start from, one per feature.

    Notes
    -----
    A list costs 10-18 us (random visitors, cold caches), a third of it for similar sessions; a lesson as much again
    (one touch in four once `ALL_TEACH` are past). Memory: 64 bytes per block and 24 per item.
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
        self.arrays = BlendArrays(
            Postings.empty(blocks),
            Tallies.empty(),
            Learner.start(np.array(prior), GROUPS),
            np.zeros(3, dtype=np.int64),
        )
        self._detector: Any = ADWIN()  # type: ignore[no-untyped-call]  # River's detectors are not annotated
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
        shared: NDArray[np.float64] = self.arrays.learner.weight[0].copy()
        return shared

    def reserve(self, items: int) -> None:
        """Make room for item indices below `items`."""
        arrays = self.arrays
        self.arrays = arrays._replace(postings=arrays.postings.reserved(items), tallies=arrays.tallies.reserved(items))

    def drop_items(self, items: NDArray[np.int32]) -> None:
        """Forget some items: nothing refers to their indices any more, and they go to others.

        A dropped user needs no such call: a posting counts only as long as the user's ring has the item.
        """
        postings, tallies = self.arrays.postings, self.arrays.tallies
        postings.newest[items] = NONE
        tallies.slow[items] = tallies.fast[items] = NEVER
        kept = tallies.popular[~np.isin(tallies.popular, items)]
        tallies.popular[:] = NONE
        tallies.popular[: len(kept)] = kept

    def learn_many(
        self,
        histories: HistoryArrays,
        rows: RowArrays,
        touches: Touches,
        kinds: NDArray[np.float32],
        query: Query,
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
        spans: NDArray[np.int64],
        desk: Desk,
        out: Lists,
        reasons: NDArray[np.uint8],
    ) -> None:
        """Rank lists for some users, as `rank_rows` does; `reasons` gets indices into `REASONS`, else `NO_REASON`.

        A score is the item's chance to be the next one, in millionths of the chance of the list's first.
        """
        rank_blended(self.arrays, histories, users, rows, query, hidden, blob, spans, desk, out, reasons)

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
        cls,
        arrays: Mapping[str, NDArray[Any]],
        items: NDArray[np.int32] | None = None,
        rate: float = RATE,
        *,
        frozen: bool = False,
    ) -> Blend:
        """A blend from the arrays of `snapshot`.

        Parameters
        ----------
        arrays
            The arrays.
        items
            For each item index of the snapshot the index here, -1 where there is none; None = the same.
        rate, frozen
            As for `Blend`.
        """
        known = len(arrays["newest"])
        here = np.arange(known, dtype=np.int32) if items is None else items[:known]
        there = np.flatnonzero(here >= 0)
        blend = cls(int(arrays["blocks"][0]), rate, frozen=frozen)
        blend.reserve(int(here.max(initial=-1)) + 1)
        postings, tallies, learner, counts = blend.arrays
        postings.block[: len(arrays["block"])] = arrays["block"]
        postings.newest[here[there]] = arrays["newest"][there]
        postings.allocated[:] = arrays["allocated"]
        tallies.slow[here[there]] = arrays["slow"][there]
        tallies.fast[here[there]] = arrays["fast"][there]
        listed = here[arrays["popular"][arrays["popular"] >= 0]]
        listed = listed[listed >= 0]
        tallies.popular[: len(listed)] = listed
        tallies.events[:] = arrays["events"]
        learner.weight[:] = arrays["weight"]
        learner.square[:] = arrays["square"]
        counts[:] = arrays["counts"]
        blend._told = counts.copy()
        blend.drifts = int(arrays["drifts"][0])
        return blend

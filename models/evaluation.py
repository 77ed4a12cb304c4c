"""How good are lists? Test, then learn: each event is predicted from what came before it, then learned.

The protocol, the same for every contender:

- The query is the visitor's own recent items: the session where the data has one, else the user.
- Events that teach nothing (returns, removals, unknown names) are left out: they are neither query, target nor lesson.
- Consecutive repeats of the same item by the same key are skipped; a key's first event is learned but not scored.
  What workers rank by, co-visitation and the blend, is taught them all the same, as a worker is (see `Lessons`).
- Before an event is learned, the whole catalogue is ranked, without the item the visitor is on.
- Equal rounded scores rank by item id as text.
- Events from a share of the recording on (the last 20 %) are scored, all are learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.decay import YEAR_2000_S
from models.histories import Touches
from models.list_metrics import miscalibration, repeats, surprise
from models.profiles import SESSION_GAP_S
from models.text_features import Facts


class Lessons(NamedTuple):
    """All that a worker would be taught: repeats, too (a stronger one counts there), kinds, and where visits start.

    `touches`, `learned`: as in `Stream`; `place`: where among them each event of the stream is; `weights`: by kind.
    """

    touches: Touches
    learned: NDArray[np.bool_]
    place: NDArray[np.int64]
    weights: NDArray[np.float32]

    def marked(self, events: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Flags of the stream's events as flags of touches, False for repeats."""
        flags = np.zeros(len(self.learned), dtype=np.bool_)
        flags[self.place] = events
        return flags

    def head(self, n: int) -> Lessons:
        """Those up to the stream's n-th event."""
        place = self.place[:n]
        end = int(place[-1]) + 1 if len(place) else 0
        return Lessons(Touches._make(c[:end] for c in self.touches), self.learned[:end], place, self.weights)


@dataclass(frozen=True, slots=True)
class Stream:
    """A recording as aligned columns, in order, ready for test-then-learn. Make one with `prepare`.

    Attributes
    ----------
    key
        Whose recent items are the query, as dense indices.
    item
        Indices into `item_ids`.
    ts
        Event time in whole seconds since 1970.
    weight
        Strength of the touch, > 0.
    previous
        Position of the key's event before, -1 for its first: following it gives the recent items, newest first.
    scored
        True where the event is a target. Never a key's first event.
    learned
        True where the models learn from the event; all of them, unless frozen.
    lessons
        What models are taught that workers rank by.
    item_ids
        The catalogue, by index.
    rank
        By item index, the place of its id among all ids sorted as text: kernels break ties with it.
    facts
        By item index, what the catalogue says of it; empty where there is no catalogue.
    rating
        Ratings > 0, 0 where the event is none; empty where no event is.
    """

    key: NDArray[np.int32]
    item: NDArray[np.int32]
    ts: NDArray[np.int64]
    weight: NDArray[np.float32]
    previous: NDArray[np.int32]
    scored: NDArray[np.bool_]
    learned: NDArray[np.bool_]
    lessons: Lessons
    item_ids: list[str]
    rank: NDArray[np.int32]
    facts: tuple[Facts, ...] = ()
    rating: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def __len__(self) -> int:
        return len(self.key)

    def touches(self, kind: NDArray[np.uint8] | None = None) -> Touches:
        """The events as histories take them, each of kind 0 unless told otherwise."""
        kind = np.zeros(len(self), dtype=np.uint8) if kind is None else kind
        return Touches(self.key, self.item, kind, _since_2000(self.ts), np.zeros(len(self), dtype=np.bool_))

    def head(self, n: int) -> Stream:
        """The first n events, the last of them scored if it can be: enough to compile a contender's kernels."""
        scored = self.scored[:n].copy()
        scored[-1:] = self.previous[:n][-1:] >= 0
        columns = (self.key[:n], self.item[:n], self.ts[:n], self.weight[:n], self.previous[:n])
        flags = (scored, self.learned[:n])
        return Stream(*columns, *flags, self.lessons.head(n), self.item_ids, self.rank, self.facts, self.rating[:n])


Contender = Callable[[Stream, int], NDArray[np.int32]]
"""Runs a whole stream: (stream, k) to int32[scored events, k], best first, -1 where a list is shorter."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Quality of lists of k items when exactly one item is right. Means over all predictions.

    Attributes
    ----------
    hr
        Hit rate: share of lists that contain the target.
    mrr
        1 / place of the target, 0 where it is missing.
    ndcg
        1 / log2(1 + place of the target), 0 where it is missing (the ideal is 1).
    precision
        Right items / k. With one target: hr / k.
    recall
        Right items found / right items. With one target: hr.
    f1
        Harmonic mean of precision and recall: 2 hr / (k + 1).
    coverage
        Different items recommended / items of the recording.
    popularity
        Events before the scored part per recommended item: lower is more surprising.
    popularity_bias
        `popularity` / the same mean over the targets: 1 = lists are as popular as what visitors choose, above = more.
    novelty
        Mean surprise of the recommended items in bits, ``-log2((events before the scored part + 1) / (all + items))``.
    calibration
        How far lists are from the visitors' own mix of categories, 0 = the same mix, see `models.list_metrics`; None
        without a catalogue.
    repeat_share
        Share of the recommended items that the visitor (session) had touched before.
    predictions
        Number of lists.
    """

    hr: float
    mrr: float
    ndcg: float
    precision: float
    recall: float
    f1: float
    coverage: float
    popularity: float
    popularity_bias: float
    novelty: float
    calibration: float | None
    repeat_share: float
    predictions: int


def prepare(
    key: NDArray[np.int32],
    item: NDArray[np.int32],
    ts: NDArray[np.int64],
    weight: NDArray[np.float32],
    item_ids: Sequence[str],
    start: float = 0.8,
    *,
    frozen: bool = False,
    facts: Sequence[Facts] = (),
    rating: NDArray[np.float32] | None = None,
    kind: NDArray[np.uint8] | None = None,
    named: NDArray[np.bool_] | None = None,
) -> Stream:
    """Columns of a recording to a stream, by the protocol above.

    Parameters
    ----------
    key, item, ts, weight
        One entry per event, in order: dense key index, index into `item_ids`, unix seconds, strength (0 = left out).
    item_ids
        The catalogue.
    start
        Share of the events before the first scored one, 0 to 1.
    frozen
        Models learn only from events before the scored part; visitors' histories still grow.
    facts
        What the catalogue says of each of `item_ids`; empty = no catalogue.
    rating
        Per event, 0 where it is none; None = no ratings.
    kind
        Per event, each kind with one weight, numbered by rising strength, < 128; None = the weights are the kinds.
    named
        Per event, whether its key is a session that the data names, which no pause ends; None = none is.

    Returns
    -------
    Stream
        Without what is left out or skipped.

    Raises
    ------
    ValueError
        If `start` is out of range, or the facts are not one per item.

    Examples
    --------
    >>> columns = [np.array(c) for c in ([0, 0, 0, 1], [1, 1, 0, 1], [5, 6, 7, 8], [1, 1, 2, 1])]
    >>> stream = prepare(*columns, ["tent", "mat"], start=0)
    >>> stream.item.tolist(), stream.previous.tolist(), stream.scored.tolist(), stream.rank.tolist()
    ([1, 0, 1], [-1, 0, -1], [False, True, False], [1, 0])
    """
    if not 0 <= start <= 1:
        raise ValueError(f"start must be 0 to 1, not {start}")
    if facts and len(facts) != len(item_ids):
        raise ValueError(f"{len(item_ids)} facts are needed, not {len(facts)}")
    learned = np.arange(len(key)) < start * len(key) if frozen else np.ones(len(key), dtype=np.bool_)
    if kind is None:
        kind = np.unique(weight, return_inverse=True)[1].astype(np.uint8)
    weights = np.zeros(int(kind.max(initial=0)) + 1, dtype=np.float32)
    weights[kind] = weight
    touching = np.flatnonzero(weight > 0)
    before = _previous(key[touching])
    visit = _visits(key, ts, named)[touching]
    starts = (before < 0) | (visit != visit[before])
    place = np.flatnonzero((before < 0) | (item[touching] != item[touching[before]]))
    kept = touching[place]
    previous = _previous(key[kept])
    rank = np.empty(len(item_ids), dtype=np.int32)
    rank[sorted(range(len(item_ids)), key=item_ids.__getitem__)] = np.arange(len(item_ids))
    return Stream(
        key=key[kept].astype(np.int32),
        item=item[kept].astype(np.int32),
        ts=ts[kept].astype(np.int64),
        weight=weight[kept].astype(np.float32),
        previous=previous,
        scored=(previous >= 0) & (kept >= start * len(key)),
        learned=learned[kept],
        lessons=Lessons(
            Touches(
                key[touching].astype(np.int32),
                item[touching].astype(np.int32),
                kind[touching],
                _since_2000(ts[touching]),
                starts,
            ),
            learned[touching],
            place,
            weights,
        ),
        item_ids=list(item_ids),
        rank=rank,
        facts=tuple(facts),
        rating=np.zeros(0, dtype=np.float32) if rating is None else rating[kept].astype(np.float32),
    )


def _previous(key: NDArray[np.int32]) -> NDArray[np.int32]:
    """Position of the previous entry with the same key, -1 for the first."""
    order = np.argsort(key, kind="stable")
    previous = np.full(len(key), -1, dtype=np.int32)
    same = key[order[1:]] == key[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    return previous


def _visits(key: NDArray[np.int32], ts: NDArray[np.int64], named: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """Number of each event's visit, by the rule of `models.profiles`: events of every weight belong to visits."""
    previous = _previous(key)
    pause = ts - ts[previous] > SESSION_GAP_S
    starts = (previous < 0) | (pause if named is None else pause & ~named)
    order = np.argsort(key, kind="stable")
    visit = np.empty(len(key), dtype=np.int64)
    visit[order] = np.cumsum(starts[order])
    return visit


def _since_2000(ts: NDArray[np.int64]) -> NDArray[np.uint32]:
    return np.clip(ts - YEAR_2000_S, 0, 2**32 - 1).astype(np.uint32)


def reciprocal_ranks(stream: Stream, lists: NDArray[np.int32]) -> NDArray[np.float64]:
    """1 / place of each target in its list, 0 where it is missing; parameters as for `measure`."""
    found = np.zeros(len(lists))
    hits, places = np.nonzero(lists == stream.item[np.flatnonzero(stream.scored), None])
    found[hits] = 1 / (places + 1)
    return found


def measure(stream: Stream, lists: NDArray[np.int32]) -> Metrics:
    """Compare a contender's lists with what the visitors did next.

    Parameters
    ----------
    stream
        The stream that was run.
    lists
        One row of item indices per scored event, best first, -1 where the list is shorter.

    Returns
    -------
    Metrics
        All 0 if nothing was scored.

    Raises
    ------
    ValueError
        If the lists do not fit the stream, or recommend the item the visitor is on.
    """
    targets = np.flatnonzero(stream.scored)
    if lists.ndim != 2 or len(lists) != len(targets):
        raise ValueError(f"{len(targets)} lists are needed, not an array of shape {lists.shape}")
    n, k = lists.shape
    if (lists == stream.item[stream.previous[targets], None]).any():
        raise ValueError("a list recommends the item the visitor is on")
    hits, places = np.nonzero(lists == stream.item[targets, None])
    if len(np.unique(hits)) < len(hits):
        raise ValueError("a list names an item twice")
    shown = lists[lists >= 0]
    past = stream.item[: targets[0]] if n else stream.item
    counts = np.bincount(past, minlength=len(stream.item_ids))
    hr = len(hits) / max(n, 1)
    popularity = float(counts[shown].mean()) if len(shown) else 0.0
    chosen = float(counts[stream.item[targets]].mean()) if n else 0.0
    return Metrics(
        hr=hr,
        mrr=float((1 / (places + 1)).sum() / max(n, 1)),
        ndcg=float((1 / np.log2(places + 2)).sum() / max(n, 1)),
        precision=hr / k,
        recall=hr,
        f1=2 * hr / (k + 1),
        coverage=len(np.unique(shown)) / max(len(stream.item_ids), 1),
        popularity=popularity,
        popularity_bias=popularity / chosen if chosen else 0.0,
        novelty=float(surprise(counts)[shown].mean()) if len(shown) else 0.0,
        calibration=miscalibration(stream.item, stream.previous, targets, lists, stream.facts),
        repeat_share=float(repeats(stream.key, stream.item, targets, lists).mean()) if len(shown) else 0.0,
        predictions=n,
    )

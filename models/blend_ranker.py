"""The blend in one process: histories, co-visitation rows and blended lists behind River's `Ranker`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.blend import BLOCKS, PRIOR, RATE, Blend
from models.blend_content import LISTED, Catalogue, Contents, empty_index, known_price
from models.blend_features import (
    BACK,
    CONTENT,
    EARLIER,
    NEAR,
    NEAR_POWER,
    NEWEST,
    PREVIOUS,
    SESSIONS,
    STEP,
    TIMES,
    WALK,
    Desk,
    desk,
    votes,
)
from models.blend_lists import BlendArrays, choose, is_lesson, on_item, remember, teach, weigh
from models.candidates import clear
from models.content import facts_of, records_of
from models.content_vectors import describe
from models.covisitation import Deltas, Weighting, emit_into, weighting
from models.evaluation import Stream
from models.histories import HISTORY, Histories, HistoryArrays, Touches, append, single
from models.history_ranker import HistoryRanker
from models.kernel import kernel, lean_kernel
from models.neighbour_rows import NeighbourRows, RowArrays, apply_deltas
from models.nesting import part, prefixed
from models.ranking import REASONS, Lists, Query, scratch
from models.text_features import Facts, Features
from models.vocabulary import Vocabulary

PARTS: Final = {
    "covisit": (NEWEST, PREVIOUS, EARLIER),
    "transition": (STEP,),
    "sessions": (SESSIONS,),
    "walk": (WALK,),
    "repeat": (BACK, NEAR, TIMES),
    "content": (CONTENT,),
}
HALF_LIFE_S: Final = 30 * 86_400.0
CHUNK: Final = 2_000  # events between two looks at the hit rate


class Records(NamedTuple):
    """A recording's catalogue: vectors by item, how many features each has, and prices (0 = not known)."""

    vectors: Features
    filled: NDArray[np.int32]
    price: NDArray[np.float32]


@kernel
def take_record(records: Records, catalogue: Catalogue, item: int) -> None:
    """Make an item's record known, if there is one and it is not yet."""
    size = records.filled[item]
    if size > 0 and catalogue.vectors.filled[item] == 0:
        place, weight = records.vectors.place[item, :size], records.vectors.weight[item, :size]
        describe(catalogue.vectors, item, place, weight, LISTED)
        catalogue.price[item] = records.price[item]


class BlendRanker(HistoryRanker):
    """Recommender that blends co-visitation, similar sessions, content, repeats and popularity, and learns how.

    The best single model differs from shop to shop and from visit to visit; the blend's weights follow what visitors do
    next. It is wrong for a visitor without history, to whom it shows nothing (use `Popularity` there).

    Parameters
    ----------
    half_life_s
        Event time in seconds in which co-visitation loses half of its weight, > 0.
    history
        Items remembered per user, 1 to 127.
    blocks
        Size of the pool of postings, > 0.
    rate
        Learning rate of the weights, > 0.
    frozen
        Keep the start weights.
    max_users, max_items
        Users and items known; those touched or described longest ago are forgotten first.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    Learn + rank of one event: about 10-20 us inside a kernel, about 100 us through these Python methods.
    Memory: as `ItemSimilarity`, plus 64 bytes per block and 40 per item.

    Examples
    --------
    >>> model = BlendRanker()
    >>> visits = [("ann", "tent"), ("ann", "mat"), ("bob", "tent"), ("bob", "mat"), ("cyd", "tent"), ("dan", "axe")]
    >>> for second, (user, item) in enumerate(visits):
    ...     model.learn_one(user, item, 1, {"ts": second})
    >>> [item for item, _ in model.recommend("cyd")]
    ['mat', 'axe']
    >>> model.explain("cyd")
    [('mat', 'covisit', 'tent'), ('axe', 'popular', None)]
    >>> model.describe_one("tent", {"title": "Family tent"})
    >>> model.describe_one("tarp", {"title": "Tarp for a tent"})
    >>> ("tarp", "content", "tent") in model.explain("cyd")
    True
    """

    def __init__(
        self,
        half_life_s: float = HALF_LIFE_S,
        history: int = HISTORY,
        blocks: int = BLOCKS,
        rate: float = RATE,
        frozen: bool = False,
        max_users: int = 100_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(history, NeighbourRows(half_life_s=half_life_s), max_users, max_items, seed)
        self.half_life_s = half_life_s
        self.blocks = blocks
        self.rate = rate
        self.frozen = frozen
        self._query = votes()
        self._contents = Contents()
        self.blend = Blend(blocks, rate, frozen=frozen)

    def describe_one(self, item: Hashable, x: Mapping[str, Any]) -> None:
        """Take an item's catalogue record: any of ``title text category tags price``; without any it is withdrawn."""
        self._contents.put(int(self._met_item(str(item))[0]), facts_of(x) or Facts())

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """As `HistoryRanker.learn_one`; where the context has fields of a catalogue record, they describe the item."""
        super().learn_one(user, item, y, x)
        if y > 0 and facts_of(x) is not None:
            self.describe_one(item, x or {})

    def arrays(self) -> dict[str, NDArray[Any]]:
        """As `HistoryRanker.arrays`, with the blend's state and the catalogue."""
        return {
            **super().arrays(),
            **prefixed("blend", self.blend.snapshot()),
            **prefixed("contents", self._contents.arrays()),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """As `HistoryRanker.restore`."""
        super().restore(arrays)
        self.blend = Blend.restore(part(arrays, "blend"), self.rate, frozen=self.frozen)
        self._contents = Contents.restore(part(arrays, "contents"))

    def explain(self, user: Hashable, k: int = 20) -> list[tuple[str, str, str | None]]:
        """The same list with each item's main reason: the model, and the user's own item that led to it, if any."""
        lists = self._ranked(user, k)
        size = int((lists.item[0] >= 0).sum())
        whys = [self._items.text(why) if why >= 0 else None for why in lists.why[0, :size].tolist()]
        names = [REASONS[reason] for reason in lists.reason[0, :size]]
        return list(zip(self._items.texts(lists.item[0, :size]), names, whys, strict=True))

    def _drop_items(self, items: NDArray[np.int32]) -> None:
        super()._drop_items(items)
        self.blend.drop_items(items)
        for item in items.tolist():
            self._contents.put(item, Facts())

    def _leave(self, users: NDArray[np.int32]) -> None:
        self.blend.forget_users(users, self._histories.arrays)

    def _emit(self, touch: Touches) -> Deltas:
        self.blend.reserve(self._items.size)
        self.blend.consult(self._contents.catalogue)
        histories, rows = self._histories.arrays, self._rows.arrays
        return self.blend.learn_many(histories, rows, touch, self._weighting, self._query, self._desk())

    def _fill(self, lists: Lists, user: NDArray[np.int32], hidden: NDArray[np.bool_]) -> None:
        items, work = self._items, self._desk()
        self.blend.consult(self._contents.catalogue)
        histories, rows = self._histories.arrays, self._rows.arrays
        self.blend.rank_many(histories, user, rows, self._query, hidden, items.blob, items.spans, work, lists)

    def _desk(self) -> Desk:
        return desk(scratch(self._items.size), self.history)


def run(
    stream: Stream,
    k: int,
    partitions: int = 1,
    part: str = "",
    half_life_s: float = HALF_LIFE_S,
    rate: float = RATE,
    near: float = NEAR_POWER,
    *,
    ahead: bool = False,
) -> NDArray[np.int32]:
    """Test, then learn a whole stream in kernels: the evaluator's blend contender.

    Parameters
    ----------
    stream
        The stream.
    k
        Length of the lists.
    partitions
        Parts the visitors are dealt to: each has weights, sessions and popularity of its own, and all share the rows,
        as in a running system.
    part
        One of `PARTS`, to rank by it alone, with its start weights for good; empty for the whole blend.
    half_life_s, rate
        As for `BlendRanker`.
    near
        Exponent of 1/i, the vote of the i-th latest item, > 0: higher listens to the newest more.
    ahead
        Whether all catalogue records are known from the start, as in a shop; else each with its item's first touch. See
        `models.content.run`.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    items = Vocabulary(len(stream.item_ids) + 1)
    items.encode(stream.item_ids)
    histories, contexts = Histories(HISTORY), Histories(HISTORY)
    for rings in (histories, contexts):
        rings.reserve(int(stream.key.max(initial=0)) + 1)
    rows = NeighbourRows(half_life_s=half_life_s)
    rows.reserve(len(items))
    rows.reserve_rows(len(items))
    prior = [weight if not part or feature in PARTS[part] else 0.0 for feature, weight in enumerate(PRIOR)]
    blends = [Blend(prior=prior) for _ in range(partitions)]
    index = empty_index()
    vectors, filled = records_of(stream, index)
    asked = [known_price(facts.price) for facts in stream.facts] or [0.0] * len(items)
    records = Records(vectors, filled, np.array(asked, dtype=np.float32))
    catalogue = Catalogue(index.arrays, np.zeros(len(items), dtype=np.float32))
    if ahead:
        for item in range(len(items)):
            take_record(records, catalogue, item)
    for blend in blends:
        blend.reserve(len(items))
        blend.consult(catalogue)
    lessons = stream.lessons
    scored, n = lessons.marked(stream.scored), len(lessons.learned)
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    work = desk(scratch(len(items)), HISTORY)
    arrays = tuple(blend.arrays for blend in blends)
    used = queries = 0
    for start in range(0, n, CHUNK):
        used, queries = _run(
            lessons.touches,
            scored,
            lessons.learned,
            bool(part),
            start,
            min(start + CHUNK, n),
            arrays,
            records,
            histories.arrays,
            contexts.arrays,
            rows.arrays,
            rows.half_life_s,
            weighting(lessons.weights),
            votes(lessons.weights, near),
            rate,
            items.blob,
            items.spans,
            work,
            used,
            queries,
            out,
        )
        for blend in blends:
            blend.watch()
    return out


def run_ahead(stream: Stream, k: int) -> NDArray[np.int32]:
    """As `run`, with the whole catalogue known from the start."""
    return run(stream, k, ahead=True)


@kernel
def _run(
    touches: Touches,
    scored: NDArray[np.bool_],
    learned: NDArray[np.bool_],
    alone: bool,
    start: int,
    end: int,
    blends: tuple[BlendArrays, ...],
    records: Records,
    histories: HistoryArrays,
    contexts: HistoryArrays,
    rows: RowArrays,
    half_life_s: float,
    weights: Weighting,
    query: Query,
    rate: float,
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
    work: Desk,
    used: int,
    queries: int,
    out: NDArray[np.int32],
) -> tuple[int, int]:
    """`histories` hold what is learned, and vote; `contexts` hold all, and only say what a visitor is on."""
    items = len(rows.row)
    micros = np.zeros(out.shape[1], dtype=np.int64)
    partition = np.zeros(items, dtype=np.int32)
    hidden = np.zeros(items, dtype=np.bool_)
    size = histories.item.shape[1]
    room = Deltas(  # as `Deltas.room` says, which no kernel can call
        np.empty(1, dtype=np.int32),
        np.empty(1, dtype=np.float32),
        np.empty(1, dtype=np.uint32),
        np.empty(1, dtype=np.int32),
        np.zeros(2, dtype=np.int32),
        np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.float32),
        np.empty(size, dtype=np.bool_),
    )
    for n in range(start, end):
        user, item = touches.user[n], touches.item[n]
        blend = blends[user % len(blends)]
        moved = not on_item(histories, user, item)
        lesson = learned[n] and moved and not alone and is_lesson(blend.counts, histories, user)
        if not learned[n]:  # the visitor goes on from all that is his; others see what was learned
            exchange(histories, contexts, user)
        if scored[n] or lesson:
            found = weigh(blend, histories, user, rows, query, work)
            if scored[n]:
                choose(found, 0.0 if alone else -np.inf, hidden, blob, spans, work, out[queries], micros)
                queries += 1
            if lesson:
                teach(blend, work, found, item, rate)
            clear(work.candidates, found)
        take_record(records, blends[0].catalogue, item)
        if not learned[n]:
            append(histories, user, item, touches.kind[n], touches.ts[n], touches.starts[n])
            exchange(histories, contexts, user)
            continue
        if moved:
            remember(blend, histories, user, item)
        append(contexts, user, item, touches.kind[n], touches.ts[n], touches.starts[n])
        if emit_into(histories, single(touches, n), weights, room):
            used = apply_deltas(rows, used, room, partition, 0, half_life_s, 1.0)
    return used, queries


@lean_kernel
def exchange(a: HistoryArrays, b: HistoryArrays, user: int) -> None:
    """Let the rings that a user has in two histories change places."""
    for slot in range(a.item.shape[1]):
        a.item[user, slot], b.item[user, slot] = b.item[user, slot], a.item[user, slot]
        a.ts[user, slot], b.ts[user, slot] = b.ts[user, slot], a.ts[user, slot]
        a.kind[user, slot], b.kind[user, slot] = b.kind[user, slot], a.kind[user, slot]
    a.head[user], b.head[user] = b.head[user], a.head[user]
    a.count[user], b.count[user] = b.count[user], a.count[user]

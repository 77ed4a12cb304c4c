"""Content-based recommendation: what resembles, by its catalogue record, the items a visitor was on lately."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.candidates import Candidates, clear
from models.content_index import POSTINGS, SIZE, ContentIndex
from models.content_search import SEARCHED, Workspace, vote_content
from models.content_vectors import ContentArrays, describe
from models.evaluation import Stream
from models.kernel import kernel
from models.nesting import part, prefixed
from models.text_features import DIMENSIONS, Facts, Features, features
from models.toplist import RecentItems, ScoreRanker, place, rounded
from models.vocabulary import Vocabulary, grown

LENGTH: Final = 10  # items of a visitor that make the profile
FADE: Final = 1.5  # the item i-th from the newest counts 1/i^FADE
FIELDS: Final = ("title", "text", "category", "tags", "price")


def facts_of(x: Mapping[str, Any] | None) -> Facts | None:
    """Facts from a record's or a context's fields ``title text category tags price``; None if it has none of them."""
    known = {field: x[field] for field in FIELDS if x and x.get(field) is not None}
    return Facts(**known | {"tags": tuple(known.get("tags", ()))}) if known else None


class ContentBased(ScoreRanker):
    """Recommends items whose text, categories, tags and price resemble those of the user's latest items.

    The user's profile is the mean of the latest items' tf-idf vectors, each of length 1, the newest counting most; an
    item's score is its cosine with the profile. Items nobody has touched yet are recommended as soon as their record is
    known. It is wrong where records say little, and shows more of the same: it never learns what goes *with* a tent.

    Parameters
    ----------
    length
        Latest items that make the profile, > 0. More is steadier and follows the visit less.
    fade
        Exponent of 1/i, the weight of the i-th item from the newest, >= 0. Higher listens to the newest more.
    size
        Features kept per item, > 0.
    postings
        Items listed per feature, > 0.
    searched
        Most items compared with the profile, 1 to 4,096. More finds more distant ones, and is slower.
    dimensions
        Places features are hashed to, a power of two.
    max_users
        Users remembered; the one silent for longest is forgotten first.
    max_items
        Items known; above it the tenth that was described or touched longest ago is dropped.
    seed
        Not used (there is no randomness); River's interface.

    Notes
    -----
    A list costs 20-100 us in the kernel (see `ContentIndex`), more through these methods. Memory: see `ContentIndex`,
    plus 8 bytes and the id per item; per user about 300 bytes plus 8 per remembered item. Forgetting a user leaves
    nothing: what is learned of users is their latest items.

    Examples
    --------
    >>> model = ContentBased()
    >>> model.describe_one("t1", {"title": "Family tent", "category": "camping.tents"})
    >>> model.describe_one("s1", {"title": "Garden chair", "category": "garden"})
    >>> model.learn_one("ann", "t1", 1)
    >>> model.describe_one("t2", {"title": "Trekking tent", "category": "camping.tents"})
    >>> [item for item, _ in model.recommend("ann")]
    ['t2']
    >>> model.forget_one("ann")
    >>> model.recommend("ann")
    []

    References
    ----------
    Lops, de Gemmis, Semeraro (2011), "Content-based recommender systems: state of the art and trends".
    """

    def __init__(
        self,
        length: int = LENGTH,
        fade: float = FADE,
        size: int = SIZE,
        postings: int = POSTINGS,
        searched: int = SEARCHED,
        dimensions: int = DIMENSIONS,
        max_users: int = 100_000,
        max_items: int = 100_000,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.length = length
        self.fade = fade
        self.size = size
        self.postings = postings
        self.searched = searched
        self.dimensions = dimensions
        self.max_users = max_users
        self.max_items = max_items
        self._ids = Vocabulary()
        self._index = ContentIndex(size, postings, dimensions)
        self._recent = RecentItems(max_users, length)
        self._latest = np.zeros(0, dtype=np.int64)  # by item: when it was described or touched last ...
        self._turn = 0  # ... in descriptions and touches

    def describe_one(self, item: Hashable, x: Mapping[str, Any]) -> None:
        """Take an item's catalogue record: any of ``title text category tags price``; without any it is withdrawn."""
        index = self._known(str(item))
        self._index.describe(index, facts_of(x) or Facts())

    def learn_one(self, user: Hashable, item: Hashable, y: Any = 1, x: dict[str, Any] | None = None) -> None:
        """Learn that a user touched an item.

        Parameters
        ----------
        user, item
            Ids; anything whose text identifies it.
        y
            Feedback; a touch counts if it is greater than 0 and does not repeat the one before.
        x
            Context; where it has fields of a catalogue record, they describe the item.
        """
        if not y > 0:
            return
        index, facts = self._known(str(item)), facts_of(x)
        if facts is not None:
            self._index.describe(index, facts)
        recent = self._recent.of(str(user))
        if not len(recent) or recent[0] != index:
            self._recent.append(str(user), index)

    def forget_one(self, user: Hashable) -> None:
        """Forget a user's latest items, all that is learned of him."""
        self._recent.forget(str(user))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of the whole state."""
        return {
            **prefixed("ids", self._ids.arrays()),
            **prefixed("index", self._index.copied()),
            **prefixed("recent", self._recent.arrays()),
            "latest": self._latest.copy(),
            "turn": np.array([self._turn]),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state that `arrays` described, in a model with the same parameters."""
        self._ids = Vocabulary.from_arrays(part(arrays, "ids"))
        self._index = ContentIndex.restore(part(arrays, "index"))
        self._recent.restore(part(arrays, "recent"))
        self._latest, self._turn = arrays["latest"], int(arrays["turn"][0])

    def scores(self, user: Hashable, x: dict[str, Any] | None = None) -> dict[str, float]:
        """Cosines with the user's profile, without the item the user is on."""
        recent = self._recent.of(str(user))
        items, cosines = self._index.similar(recent, nearness(len(recent), self.fade), self.searched)
        cells = zip(items.tolist(), self._ids.texts(items), cosines.tolist(), strict=True)
        return {text: score for item, text, score in cells if score > 0 and item != recent[0]}

    def similar(self, item: Hashable, k: int = 20) -> list[tuple[str, float]]:
        """At most k (item, cosine) pairs nearest to an item, best first, ties by id, without itself."""
        index = self._ids.lookup([str(item)])
        if index[0] < 0:
            return []
        items, cosines = self._index.similar(index, searched=self.searched)
        cells = zip(self._ids.texts(items), cosines.tolist(), strict=True)
        return sorted((c for c in cells if c[0] != str(item)), key=lambda c: (-rounded(c[1]), c[0]))[:k]

    def _known(self, item: str) -> int:
        """Index of an item, which is the latest now."""
        if self._ids.lookup([item])[0] < 0 and len(self._ids) >= self.max_items:
            self._drop()
        index = int(self._ids.encode([item])[0])
        self._index.reserve(self._ids.size)
        self._latest = grown(self._latest, self._ids.size)
        self._turn += 1
        self._latest[index] = self._turn
        return index

    def _drop(self) -> None:
        """Forget the tenth of the items that was described or touched longest ago, wherever they occur."""
        items = self._ids.indices()
        oldest = items[np.argsort(self._latest[items], kind="stable")[: max(len(items) // 10, 1)]]
        for item in oldest.tolist():
            self._index.describe(item, Facts())
        self._recent.discard(set(oldest.tolist()))
        self._ids.remove(oldest)


def nearness(length: int, fade: float = FADE) -> NDArray[np.float64]:
    """Weights of the latest items, newest first."""
    weights: NDArray[np.float64] = np.arange(1, length + 1, dtype=np.float64) ** -fade
    return weights


def run(
    stream: Stream, k: int, length: int = LENGTH, fade: float = FADE, searched: int = SEARCHED, *, ahead: bool = False
) -> NDArray[np.int32]:
    """Test, then learn a whole stream in one kernel: the evaluator's content contender.

    Parameters
    ----------
    stream
        The stream; without facts all lists are empty.
    k
        Length of the lists.
    length, fade, searched
        As for `ContentBased`.
    ahead
        Whether all records are known from the start, as in a shop, so that items nobody touched yet are shown; else an
        item's record becomes known with its first touch, as other contenders learn of it. A recording names only items
        that somebody touches sooner or later, which flatters the former.

    Returns
    -------
    NDArray[np.int32]
        One row of item indices per scored event, best first, -1 where the list is shorter.
    """
    out = np.full((int(stream.scored.sum()), k), -1, dtype=np.int32)
    index, items = ContentIndex(), len(stream.item_ids)
    vectors, filled = records_of(stream, index)
    arrays = index.arrays
    candidates, work = Candidates.empty(items, 1), index.workspace(length)
    near = nearness(length, fade)
    touched = (stream.item, stream.previous, stream.scored, stream.rank)
    _run(*touched, arrays, vectors, filled, ahead, near, searched, work, candidates, out)
    return out


def records_of(stream: Stream, index: ContentIndex) -> tuple[Features, NDArray[np.int32]]:
    """Vectors of all items of a stream by item, and how many features each has; the empty index gets room for them."""
    items = len(stream.item_ids)
    index.reserve(items)
    vectors = Features(np.zeros((items, index.size), np.int32), np.zeros((items, index.size), np.float32))
    filled = np.zeros(items, dtype=np.int32)
    for item, facts in enumerate(stream.facts):
        vector = features(facts, index.size, index.dimensions)
        filled[item] = len(vector.place)
        vectors.place[item, : filled[item]], vectors.weight[item, : filled[item]] = vector
    # every entry might need a block of its own, as long as it is the only one of its feature
    index.arrays = index.arrays._replace(lists=index.arrays.lists.reserved(int(filled.sum())))
    return vectors, filled


@kernel
def _run(
    item: NDArray[np.int32],
    previous: NDArray[np.int32],
    scored: NDArray[np.bool_],
    rank: NDArray[np.int32],
    index: ContentArrays,
    vectors: Features,
    filled: NDArray[np.int32],
    ahead: bool,
    near: NDArray[np.float64],
    searched: int,
    work: Workspace,
    candidates: Candidates,
    out: NDArray[np.int32],
) -> None:
    recent = np.empty(len(near), dtype=np.int32)
    best = np.empty(out.shape[1], dtype=np.int64)
    queries = 0
    first = -len(rank) if ahead else 0
    for n in range(first, len(item)):  # those below 0 are the catalogue, item by item
        if n >= 0 and scored[n]:
            length = 0
            back = previous[n]
            while back >= 0 and length < len(recent):
                recent[length] = item[back]
                length += 1
                back = previous[back]
            found = vote_content(index, recent[:length], near[:length], searched, work, candidates, 0, 0)
            shown = 0
            for c in range(found):
                if candidates.item[c] != recent[0] and candidates.x[0, c] > 0.0:
                    score = rounded(candidates.x[0, c])
                    shown = place(out[queries], best, shown, candidates.item[c], score, rank)
            clear(candidates, found)
            queries += 1
        described = item[n] if n >= 0 else -1 - n
        if filled[described] > 0 and index.filled[described] == 0:
            size = filled[described]
            describe(index, described, vectors.place[described, :size], vectors.weight[described, :size], POSTINGS)


def run_ahead(stream: Stream, k: int) -> NDArray[np.int32]:
    """As `run`, with the whole catalogue known from the start."""
    return run(stream, k, ahead=True)

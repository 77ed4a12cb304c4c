"""What the blend knows about each candidate, slowly: dictionaries and lists, from the docstrings and formulas."""

from __future__ import annotations

import math
from collections import defaultdict

from models.blend_constants import CONSTANTS, FIRST, MEMORY, RECENCY, VALUES
from models.blend_content import DIMENSIONS, LATEST
from models.blend_content import FEATURES as ITEM_FEATURES
from models.blend_features import EARLIER, EDGE, NEAR, NEAR_POWER, PREVIOUS, REACH, STEPS, VOTERS
from models.blend_ranker import HALF_LIFE_S
from models.covisitation import weighting
from models.decay import FAINT
from models.histories import HISTORY
from models.tallies import FADED, MEMORIES, POPULAR, SLOW
from models.text_features import Facts
from tests.plain import PlainHistories, PlainRows, Touch, plain_emit
from tests.plain_content import PlainContent

Cells = dict[int, float]


class PlainFeatures:
    """The slow reference of `models.blend_features` and of all that its features are made of.

    Users and items are numbers. Fewer items than lists of content hold, whose latest three have no more features than
    are looked up; fewer sessions than the pool of postings holds; touches of one kind, in one visit per user.
    """

    def __init__(self, history: int = HISTORY) -> None:
        self.histories = PlainHistories(history)
        self.rows = PlainRows(100, 20, HALF_LIFE_S, 1.0)
        self.latest: dict[int, int] = {}  # by item: time of what was last added to its row, in half-lives
        self.postings: dict[int, list[int]] = defaultdict(list)  # by item: users, newest first
        self.counts: dict[float, Cells] = {half_life: {} for half_life in (SLOW, *MEMORIES.tolist())}
        self.leading = [float(VALUES[constant, FIRST[constant]]) for constant in range(len(CONSTANTS))]
        self.content = PlainContent(ITEM_FEATURES, DIMENSIONS)
        self.price: dict[int, float] = {}

    def ring(self, user: int) -> list[int]:
        """A user's recent items, newest first."""
        return [touch.item for touch in self.histories.recent.get(user, [])]

    def describe(self, item: int, facts: Facts) -> None:
        self.content.describe(item, facts)
        self.price[item] = facts.price if facts.price and facts.price < 3e38 else 0.0  # as far as float32 goes

    def learn(self, user: int, item: int, ts: int) -> None:
        if self.ring(user)[:1] == [item]:
            return
        self.tally(item)
        if item not in self.ring(user):
            self.postings[item].insert(0, user)
        visits = plain_emit(self.histories, [Touch(user, item, 0, ts)], weighting())
        self.rows.learn(visits)
        for visit in visits:
            for touched in (item, *(other for other, _, _ in visit.pairs)):
                self.latest[touched] = max(self.latest.get(touched, 0), int(ts // HALF_LIFE_S))

    def tally(self, item: int) -> None:
        for half_life, counts in self.counts.items():
            for other in counts:
                counts[other] *= 0.5 ** (1 / half_life)
            counts[item] = counts.get(item, 0.0) + 1.0

    def row(self, item: int) -> Cells:
        """What an item's visitors looked at near it, as shares of its visits."""
        row = self.rows.rows[item]
        return {other: value / row.total for other, value in row.cells.items()}

    def steps(self, item: int) -> Cells:
        row = self.rows.rows[item]
        return {other: value / row.total for other, value in row.steps.items()}

    def earlier(self, ring: list[int]) -> Cells:
        found: Cells = defaultdict(float)
        for place, item in enumerate(ring[2:VOTERS], 3):
            for other, share in self.row(item).items():
                found[other] += share * place**-NEAR_POWER
        return found

    def walk(self, current: int) -> Cells:
        """Neighbours of the best neighbours, of equal ones of those that came first."""
        found: Cells = defaultdict(float)
        cells = self.rows.rows[current].cells
        for item in sorted(cells, key=lambda other: -cells[other])[:STEPS]:
            for onward, share in self.row(item).items():
                found[onward] += cells[item] * share
        return found

    def sessions(self, user: int) -> Cells:
        """Items of the sessions most like this one, as long as these still have what they were found by."""
        query = list(dict.fromkeys(self.ring(user)))[: REACH.length]
        similarity: Cells = {}
        first: dict[int, int] = {}
        for place, item in enumerate(query):
            listed = [other for other in self.postings[item] if other != user][: REACH.sample]
            for other in dict.fromkeys(listed):
                similarity[other] = similarity.get(other, 0.0) + 1 / (place + 1)
                first.setdefault(other, place)
        found: Cells = defaultdict(float)
        for other in sorted(similarity, key=lambda other: -similarity[other])[: REACH.neighbours]:
            theirs = set(self.ring(other))
            for item in theirs if query[first[other]] in theirs else ():
                found[item] += similarity[other] / (first[other] + 1)
        return found

    def votes(self, user: int) -> list[Cells]:
        ring = self.ring(user)
        previous = self.row(ring[1]) if len(ring) > 1 else {}
        near = [self.row(ring[0]), previous, self.earlier(ring), self.steps(ring[0])]
        return [_level(cells) for cells in (*near, self.sessions(user), self.walk(ring[0]))]

    def features(self, user: int) -> dict[int, list[float]]:
        """What is known of each candidate, the item the user is on among them."""
        return self.aged(user, self.ageless(user), self.leading[RECENCY])

    def aged(self, user: int, features: dict[int, list[float]], half_life_s: float) -> dict[int, list[float]]:
        """What the visitor did before the item in hand counts by its age when he came to that."""
        newest, *before = self.histories.recent[user]
        left = [0.5 ** min(max(newest.ts - touch.ts, 0) / half_life_s, FAINT) for touch in before]
        latest = {touch.item: kept for touch, kept in reversed(list(zip(before, left, strict=True)))}
        aged = {item: list(x) for item, x in features.items()}
        for item, x in aged.items():
            for feature, kept in zip((PREVIOUS, EARLIER), left, strict=False):
                x[feature] *= kept
            x[NEAR] *= latest.get(item, 1.0)
        return aged

    def ageless(self, user: int) -> dict[int, list[float]]:
        """The same, as if all had been done in one second."""
        said, alike, ring = self.votes(user), self.alike(user), self.ring(user)
        slow = self.counts[SLOW]
        popular = sorted(slow, key=lambda item: -slow[item])[:POPULAR]
        items = {item for cells in said for item in cells} | {*ring, *popular, *alike}
        return {
            item: [cells.get(item, 0.0) for cells in said]
            + _again(ring[1:], item)
            + self.popularity(item)
            + [alike.get(item, 0.0), self.price_fit(ring[0], item), float(item not in slow)]
            for item in items
        }

    def groups(self, user: int) -> tuple[int, int]:
        """The rows of weights: by the touches of this visit, and by the visits of the item in hand.

        These are decayed to the start of the half-life in which the item's row was last written, not to now.
        """
        ring = self.ring(user)
        row = self.rows.rows[ring[0]]
        visits = row.total / 2 ** self.latest[ring[0]]
        length = sum(len(ring) > most for most in (1, 2, 4, 9))
        return 1 + length, 6 + sum(visits >= least for least in (5, 20, 80, 320))

    def popularity(self, item: int) -> list[float]:
        """Over the long memory and the short one that leads; what nobody touched counts as touched once, just now."""
        return [self.height(half_life, item) for half_life in (SLOW, self.leading[MEMORY])]

    def height(self, half_life: float, item: int) -> float:
        return max(math.log2(self.counts[half_life].get(item, 1.0)) + FADED, 0.0) / 8

    def alike(self, user: int) -> Cells:
        items = list(dict.fromkeys(self.ring(user)))[:LATEST]
        return self.content.similar(items, [place**-1.5 for place in range(1, len(items) + 1)])

    def price_fit(self, current: int, item: int) -> float:
        paid, asked = self.price.get(current), self.price.get(item)
        return min(paid, asked) / max(paid, asked) if paid and asked else 0.0


def _again(seen: list[int], item: int) -> list[float]:
    """Whether it was seen before, just before, how long ago in touches, and how often."""
    places = [place for place, other in enumerate(seen, 1) if other == item]
    return [1.0, float(places[0] == 1), 1 / places[0], len(places)] if places else [0.0] * 4


def _level(cells: Cells) -> Cells:
    """Votes of any size brought to 0 .. 1."""
    edge = EDGE * sum(cells.values())
    return {item: vote / (vote + edge) for item, vote in cells.items()}

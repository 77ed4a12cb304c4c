"""The blend in plain Python, for the tests of its features, its lists and its learning."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from models.blend_content import LATEST
from models.blend_features import EDGE, REACH, STEPS, Desk, Sources, describe, votes
from models.blend_ranker import BlendRanker
from models.histories import Touches
from models.tallies import FADED, MEMORIES, MIDDLE, SLOW
from models.text_features import STRENGTH, Facts
from tests.streams import ITEM_IDS, Touch, stream_of

Cells = dict[str, float]


WORDS, PRICES = ("red", "tent", "mat"), (8.0, 16.0, None)
# a word and a price band each: what three items are asked for is less than what a query looks up
FACTS = {ITEM_IDS[n]: Facts(WORDS[n % 3], price=PRICES[n // 3]) for n in range(7)}


class PlainFeatures:
    """The slow reference: what the blend knows about each candidate, from dictionaries and lists.

    Fewer touches than a ring holds and than any bound drops; neighbours come from the model's own rows.
    """

    def __init__(self, model: BlendRanker, facts: Mapping[str, Facts]) -> None:
        self.model = model
        self.catalogue = facts
        self.rings: dict[str, list[str]] = {}
        self.postings: dict[str, list[str]] = {}
        self.order: list[str] = []

    def learn(self, user: str, item: str) -> None:
        ring = self.rings.setdefault(user, [])
        if ring and ring[0] == item:
            return
        self.order.append(item)
        if item not in ring:
            self.postings.setdefault(item, []).insert(0, user)
        ring.insert(0, item)

    def row(self, item: str) -> Cells:
        index = int(self.model._items.lookup([item])[0])
        return {self.model._items.text(other): share for other, share in self.model._rows.neighbours(index)}

    def steps(self, item: str) -> Cells:
        arrays = self.model._rows.arrays
        row = arrays.row[int(self.model._items.lookup([item])[0])]
        cells = zip(arrays.step_item[row, : arrays.steps[row]], arrays.step_value[row], strict=False)
        return {self.model._items.text(int(other)): value / arrays.total[row] for other, value in cells}

    def sessions(self, user: str) -> Cells:
        query = list(dict.fromkeys(self.rings[user]))[: REACH.length]
        kept: dict[str, tuple[float, int]] = {}
        for place, item in enumerate(query, 1):
            for other in [u for u in self.postings[item] if u != user][: REACH.sample]:
                similarity, first = kept.get(other, (0.0, place))
                kept[other] = (similarity + 1 / place, first)
        found: Cells = defaultdict(float)
        for other, (similarity, first) in kept.items():
            for item in set(self.rings[other]):
                found[item] += similarity / first
        return found

    def walk(self, user: str) -> Cells:
        current = self.rings[user][0]
        arrays, texts = self.model._rows.arrays, self.model._items
        row = arrays.row[int(texts.lookup([current])[0])]
        cells = [(arrays.value[row, c], -c, texts.text(int(arrays.item[row, c]))) for c in range(arrays.size[row])]
        found: Cells = defaultdict(float)
        for value, _, item in sorted(cells, reverse=True)[:STEPS]:
            for onward, share in self.row(item).items():
                found[onward] += value * share
        return found

    def votes(self, user: str) -> list[Cells]:
        ring = self.rings[user]
        earlier: Cells = defaultdict(float)
        for place, item in enumerate(ring[2:10], 3):
            for other, share in self.row(item).items():
                earlier[other] += share * place**-1.5
        previous = self.row(ring[1]) if len(ring) > 1 else {}
        return [self.row(ring[0]), previous, earlier, self.steps(ring[0]), self.sessions(user), self.walk(user)]

    def features(self, user: str) -> dict[str, list[float]]:
        said = self.votes(user)
        seen = self.rings[user][1:]
        near = self.cosines(user)
        names = set(self.order) | {item for cells in said for item in cells} | near.keys()
        current = self.rings[user][0]
        return {
            name: [_level(cells, name) for cells in said]
            + self.facts(seen, name)
            + [near.get(name, 0.0), self.price_fit(current, name), float(name not in self.order)]
            for name in names
        }

    def vectors(self) -> dict[str, Cells]:
        """Tf-idf vectors of length 1."""
        found = {item: (f"w:{facts.title}", f"p:{facts.price}") for item, facts in self.catalogue.items()}
        having = Counter(name for names in found.values() for name in names if name != "p:None")
        share = {"w": STRENGTH["w"], "p": STRENGTH["p"]}
        items = len(found)
        raw = {
            item: {name: share[name[0]] * math.log(1 + items / having[name]) for name in names if name in having}
            for item, names in found.items()
        }
        return {item: {n: v / math.hypot(*vector.values()) for n, v in vector.items()} for item, vector in raw.items()}

    def cosines(self, user: str) -> Cells:
        vectors = self.vectors()
        query: Cells = defaultdict(float)
        for place, item in enumerate(list(dict.fromkeys(self.rings[user]))[:LATEST], 1):
            for name, value in vectors.get(item, {}).items():
                query[name] += value * place**-1.5
        size = math.hypot(*query.values())
        dots = {item: sum(query[n] * v for n, v in vector.items() if n in query) for item, vector in vectors.items()}
        return {item: dot / size for item, dot in dots.items() if dot > 0}

    def price_fit(self, current: str, name: str) -> float:
        paid, asked = (self.catalogue[item].price if item in self.catalogue else None for item in (current, name))
        return min(paid, asked) / max(paid, asked) if paid and asked else 0.0

    def facts(self, seen: list[str], name: str) -> list[float]:
        again = [place for place, item in enumerate(seen, 1) if item == name]
        heights = []
        if name not in self.order:
            return [0.0] * 4 + [FADED / 8] * 2
        for half_life in (SLOW, MEMORIES[MIDDLE]):
            ages = [len(self.order) - n for n, item in enumerate(self.order, 1) if item == name]
            count = sum(0.5 ** (age / half_life) for age in ages)
            heights.append((math.log2(count) + FADED) / 8)
        near = [1.0, float(again[0] == 1), 1 / again[0], len(again)] if again else [0.0] * 4
        return near + heights


def _level(cells: Cells, name: str) -> float:
    edge = EDGE * sum(cells.values())
    vote = cells.get(name, 0.0)
    return vote / (vote + edge) if edge else 0.0


def teach(model: BlendRanker, touches: list[Touch], facts: Mapping[str, Facts] | None = None) -> PlainFeatures:
    """Describe items, then let visitors touch them."""
    plain = PlainFeatures(model, facts or {})
    for item, known in plain.catalogue.items():
        model.describe_one(item, {"title": known.title, "price": known.price})
    stream = stream_of(touches)
    for key, item, ts in zip(stream.key.tolist(), stream.item.tolist(), stream.ts.tolist(), strict=True):
        model.learn_one(str(key), ITEM_IDS[item], 1, {"ts": ts - 946_684_800})
        plain.learn(str(key), ITEM_IDS[item])
    return plain


def learn_all(model: BlendRanker, touches: Sequence[tuple[str, str]], batch: int = 100) -> None:
    """Let users touch items, all in the same second and in batches, much faster than one by one."""
    for start in range(0, len(touches), batch):
        _learn_batch(model, touches[start : start + batch])


def _learn_batch(model: BlendRanker, touches: Sequence[tuple[str, str]]) -> None:
    users, items = (list(column) for column in zip(*touches, strict=True))
    user, item = model._users.encode(users), model._items.encode(items)
    model._histories.reserve(len(model._users))
    model._rows.reserve(len(model._items))
    zeros = np.zeros(len(user), dtype=np.uint32)
    model._rows.learn(
        model._emit(Touches(user, item, zeros.astype(np.uint8), zeros, zeros.astype(np.bool_))),
        np.zeros(len(model._items), dtype=np.int32),
    )


def described(model: BlendRanker, user: str) -> tuple[dict[str, list[float]], Desk]:
    """What the blend knows of a user's candidates, and the desk it was gathered on."""
    model.blend.consult(model._contents.catalogue)
    work = model._desk()
    arrays = model.blend.arrays
    sources = Sources(model._histories.arrays, model._rows.arrays, arrays.postings, arrays.tallies, arrays.catalogue)
    found = describe(sources, int(model._users.lookup([user])[0]), votes(), work)
    texts = model._items.texts(work.candidates.item[:found])
    return dict(zip(texts, work.candidates.x[:, :found].T.tolist(), strict=True)), work

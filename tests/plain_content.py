"""The slow reference of `models.content_index`: dictionaries, written from its docstrings."""

from __future__ import annotations

import math

from models.text_features import Facts, features

DIMENSIONS = 64


class PlainContent:
    """By item a dictionary; idf is recomputed when an eighth has changed."""

    def __init__(self, size: int, dimensions: int = DIMENSIONS) -> None:
        self.size = size
        self.dimensions = dimensions
        self.vectors: dict[int, dict[int, float]] = {}
        self.changed = 0
        self.idf: dict[int, float] = {}
        self.rarest = 0.0

    def describe(self, item: int, facts: Facts) -> None:
        found = features(facts, self.size, self.dimensions)
        vector = dict(zip(found.place.tolist(), found.weight.tolist(), strict=True))
        if vector == self.vectors.get(item, {}):
            return
        self.vectors.pop(item, None)
        if vector:
            self.vectors[item] = vector
        self.changed += 1
        if self.changed * 8 >= len(self.vectors):
            having: dict[int, int] = {}
            for vector in self.vectors.values():
                for place in vector:
                    having[place] = having.get(place, 0) + 1
            items = len(self.vectors)
            self.rarest = math.log(1 + items)
            self.idf = {place: math.log(1 + items / n) for place, n in having.items()}
            self.changed = 0

    def vector(self, item: int) -> dict[int, float]:
        return {place: tf * self.idf.get(place, self.rarest) for place, tf in self.vectors.get(item, {}).items()}

    def similar(self, items: list[int], weights: list[float]) -> dict[int, float]:
        query: dict[int, float] = {}
        for item, weight in zip(items, weights, strict=True):
            vector = self.vector(item)
            for place, value in vector.items():
                query[place] = query.get(place, 0.0) + weight * value / length(vector)
        cosines = {}
        for item in self.vectors:
            vector = self.vector(item)
            dot = sum(query.get(place, 0.0) * value for place, value in vector.items())
            if query.keys() & vector.keys():
                cosines[item] = dot / (length(query) * length(vector))
        return cosines


def length(vector: dict[int, float]) -> float:
    return math.sqrt(sum(value * value for value in vector.values()))

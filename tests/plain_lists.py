"""How lists are to be chosen, slowly and in plain words: what kernels are compared with."""

from __future__ import annotations

from collections import Counter

from models.list_quality import NO_CATEGORY


def plain_select(
    scores: list[float], category: list[int], similar: list[list[float]], excluded: list[bool], d: float, n: int, k: int
) -> list[int]:
    """Maximal marginal relevance as it is defined, all over again for every place."""
    chosen: list[int] = []
    best = max((s for s, out in zip(scores, excluded, strict=True) if not out), default=1.0)
    while len(chosen) < k:
        counts = Counter(category[c] for c in chosen)
        free = [
            c
            for c in range(len(scores))
            if c not in chosen and not excluded[c] and (category[c] == NO_CATEGORY or counts[category[c]] < n)
        ]
        if not free:
            break

        def value(c: int) -> float:
            return (1 - d) * scores[c] / best - d * max((similar[c][other] for other in chosen), default=0.0)

        chosen.append(max(free, key=lambda c: (value(c), -c)))
    return chosen

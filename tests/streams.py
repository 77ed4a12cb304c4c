"""Small random streams for the models' tests."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from models.evaluation import Stream, prepare
from models.text_features import Facts

Touch = tuple[int, int, int]  # key, item, seconds since the touch before

TOUCHES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 9)), max_size=60)
ITEM_IDS = [f"i{(7 * n) % 10}" for n in range(10)]  # text order is not index order
SINCE = 1_000_000_000


def stream_of(touches: list[Touch], start: float = 0.0, facts: tuple[Facts, ...] = ()) -> Stream:
    key, item, gap = (np.array(column, dtype=np.int64) for column in zip(*touches, strict=True)) if touches else NONE
    ones = np.ones(len(key), dtype=np.float32)
    columns = (key.astype(np.int32), item.astype(np.int32), SINCE + np.cumsum(gap), ones, ITEM_IDS)
    return prepare(*columns, start, facts=facts)


NONE = (np.empty(0, dtype=np.int64),) * 3


def queries(stream: Stream) -> list[tuple[int, int, list[int]]]:
    """Position, key and recent items (newest first) of each scored event."""
    recent: dict[int, list[int]] = {}
    found = []
    for n, (key, item) in enumerate(zip(stream.key.tolist(), stream.item.tolist(), strict=True)):
        items = recent.setdefault(key, [])
        if stream.scored[n]:
            found.append((n, key, list(items)))
        items.insert(0, item)
    return found


def shown(row: np.ndarray[tuple[int], np.dtype[np.int32]]) -> list[str]:
    return [ITEM_IDS[i] for i in row.tolist() if i >= 0]

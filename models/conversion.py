"""State learned under other settings, brought to the present ones: rings and rows cut or widened, decay rescaled.

What is cut is what a smaller bound would have dropped: the oldest touches, the weakest cells. What was dropped before
does not come back when a bound grows. All functions return new arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.histories import HistoryArrays

SLICE: Final = 10_000  # rows ordered at a time

Arrays = dict[str, NDArray[Any]]


def resized_rings(arrays: Mapping[str, NDArray[Any]], size: int) -> Arrays:
    """Histories with rings of another size; each keeps its newest touches.

    Examples
    --------
    >>> ring = np.array([[4, 5, 3]], dtype=np.int32)
    >>> one = np.array([1], dtype=np.uint8)
    >>> cut = resized_rings({"item": ring, "ts": ring, "kind": ring, "head": one, "count": one + 2}, 2)
    >>> cut["item"].tolist(), cut["head"].tolist(), cut["count"].tolist()
    ([[4, 5]], [1], [2])
    """
    rings = HistoryArrays(**{name: arrays[name] for name in HistoryArrays._fields})
    users, before = rings.item.shape
    if before == size:
        return dict(arrays)
    count = np.minimum(rings.count, size).astype(np.uint8)
    out: Arrays = {"head": np.maximum(count.astype(np.int64) - 1, 0).astype(np.uint8), "count": count}
    kept = min(size, before)
    age = count[:, None].astype(np.int64) - 1 - np.arange(kept)  # of the touch in each new slot; below 0: none
    slot = (rings.head[:, None].astype(np.int64) - age) % before
    for name in ("item", "ts", "kind"):
        column = getattr(rings, name)
        out[name] = np.zeros((users, size), dtype=column.dtype)
        out[name][:, :kept] = np.where(age >= 0, np.take_along_axis(column, slot, axis=1), 0)
    return out


def resized_lists(lists: NDArray[np.int32], size: int) -> NDArray[np.int32]:
    """Lists of another length: the first entries, or -1 behind the last.

    Examples
    --------
    >>> lists = np.array([[7, 8, -1]], dtype=np.int32)
    >>> resized_lists(lists, 2).tolist(), resized_lists(lists, 4).tolist()
    ([[7, 8]], [[7, 8, -1, -1]])
    """
    if lists.shape[1] == size:
        return lists
    out = np.full((len(lists), size), -1, dtype=lists.dtype)
    kept = min(size, lists.shape[1])
    out[:, :kept] = lists[:, :kept]
    return out


def resized_rows(rows: Mapping[str, NDArray[Any]], neighbours: int, transitions: int) -> Arrays:
    """Neighbour rows of another width; each keeps its strongest cells, of equals the first."""
    out = dict(rows)
    for item, value, size, width in (
        ("item", "value", "size", neighbours),
        ("step_item", "step_value", "steps", transitions),
    ):
        if rows[item].shape[1] != width:
            out[item], out[value] = _resized_cells(rows[item], rows[value], rows[size], width)
            out[size] = np.minimum(rows[size], width).astype(rows[size].dtype)
    return out


def _resized_cells(
    items: NDArray[np.int32], values: NDArray[np.float64], sizes: NDArray[np.uint8], width: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    rows, before = items.shape
    new_items = np.zeros((rows, width), dtype=items.dtype)
    new_values = np.zeros((rows, width), dtype=values.dtype)
    kept = min(width, before)
    for start in range(0, rows, SLICE):
        some = slice(start, start + SLICE)
        order = np.broadcast_to(np.arange(kept), (len(items[some]), kept))
        if width < before:
            used = np.arange(before) < sizes[some, None]
            strongest = np.argsort(np.where(used, -values[some], np.inf), axis=1, kind="stable")[:, :width]
            order = np.sort(strongest, axis=1)  # as they stood: ties go by place
        new_items[some, :kept] = np.take_along_axis(items[some], order, axis=1)
        new_values[some, :kept] = np.take_along_axis(values[some], order, axis=1)
    return new_items, new_values


def redecayed_rows(rows: Mapping[str, NDArray[Any]], before_s: float, after_s: float, at_s: int) -> Arrays:
    """Neighbour rows whose cells decay by another half-life from a moment on, at which they weigh what they did before.

    A cell ``v`` of epoch e weighs ``v 2^(e - t/H)`` at the time t (see `models.decay`). How old its single terms are is
    not kept, so that no conversion can make it what it would be, had the new half-life always held.

    Parameters
    ----------
    rows
        Columns ``epoch total value step_value`` and others, which stay.
    before_s, after_s
        The half-lives H, seconds.
    at_s
        The moment, seconds since 2000; not before any row's newest term.

    Examples
    --------
    >>> cells = np.ones((1, 1))
    >>> rows = {"epoch": np.array([4]), "total": np.array([1.0]), "value": cells, "step_value": cells}
    >>> halved = redecayed_rows(rows, 10.0, 20.0, at_s=50)  # weighs 1/2 at 50, the epoch then is 2.5 half-lives
    >>> halved["epoch"].tolist(), bool(np.isclose(halved["total"][0] * 2 ** (2 - 2.5), 0.5))
    ([2], True)
    """
    if before_s == after_s:
        return dict(rows)
    epoch = int(np.floor(at_s / after_s))
    factor = np.exp2(rows["epoch"] - at_s / before_s) * 2.0 ** (at_s / after_s - epoch)
    out = dict(rows)
    out["epoch"] = np.full_like(rows["epoch"], epoch)
    out["total"] = rows["total"] * factor
    for name in ("value", "step_value"):
        out[name] = rows[name] * factor[:, None]
    return out

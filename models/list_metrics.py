"""What lists are like beside being right: surprising, true to a visitor's mix of categories, repeating."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.kernel import kernel
from models.text_features import Facts, categories
from models.vocabulary import Vocabulary

SMOOTHING: Final = 0.01
LOOKED_BACK: Final = 50  # events of a visitor that make the own mix


def surprise(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Self-information of each item in bits, from how often it occurred; one never met has it as if half met.

    Examples
    --------
    >>> surprise(np.array([6, 0])).tolist()
    [0.19264507794239588, 3.0]
    """
    bits: NDArray[np.float64] = -np.log2((counts + 1) / (counts.sum() + len(counts)))
    return bits


def repeats(
    key: NDArray[np.int32], item: NDArray[np.int32], targets: NDArray[np.int64], lists: NDArray[np.int32]
) -> NDArray[np.bool_]:
    """For each listed item, list by list, whether the list's visitor had touched it before.

    Parameters
    ----------
    key, item
        The stream.
    targets
        Positions in the stream that the lists predict.
    lists
        One row of item indices per target, -1 where it is shorter.

    Returns
    -------
    NDArray[np.bool_]
        One entry per listed item; about 100 ns each.

    Examples
    --------
    >>> key, item = np.zeros(3, dtype=np.int32), np.array([4, 5, 6], dtype=np.int32)
    >>> repeats(key, item, np.array([2]), np.array([[4, 6, -1]], dtype=np.int32)).tolist()
    [True, False]
    """
    pairs = key.astype(np.int64) << 32 | item
    known, first = np.unique(pairs, return_index=True)
    rows, places = np.nonzero(lists >= 0)
    wanted = key[targets[rows]].astype(np.int64) << 32 | lists[rows, places]
    at = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
    found: NDArray[np.bool_] = (known[at] == wanted) & (first[at] < targets[rows])
    return found


def miscalibration(
    item: NDArray[np.int32],
    previous: NDArray[np.int32],
    targets: NDArray[np.int64],
    lists: NDArray[np.int32],
    facts: Sequence[Facts],
) -> float | None:
    """Mean Kullback-Leibler divergence of a list's categories from those of the visitor's latest events.

    With p(c) the mix of the up to 50 latest events and q(c) that of the list, each item giving its categories equal
    parts of 1, it is ``sum_c p log2(p / ((1 - a) q + a p))`` with a = 0.01, so that a missing category costs at most
    6.6 bits. Lists without, or of visitors without, a known category do not count.

    Parameters
    ----------
    item, previous
        The stream; see `models.evaluation.Stream`.
    targets, lists
        As for `repeats`.
    facts
        By item index.

    Returns
    -------
    float | None
        In bits, >= 0; None if no item has a category, or no list counts.

    References
    ----------
    Steck (2018), "Calibrated recommendations". https://doi.org/10.1145/3240323.3240372
    """
    names = Vocabulary(64)
    coded = [names.encode(list(dict.fromkeys(categories(fact.category)))) for fact in facts]
    if not len(names):
        return None
    starts = np.zeros(len(coded) + 1, dtype=np.int64)
    starts[1:] = np.cumsum([len(codes) for codes in coded])
    total, counted = _divergences(item, previous, targets, lists, starts, np.concatenate(coded), len(names))
    return total / counted if counted else None


@kernel
def _divergences(
    item: NDArray[np.int32],
    previous: NDArray[np.int32],
    targets: NDArray[np.int64],
    lists: NDArray[np.int32],
    starts: NDArray[np.int64],
    codes: NDArray[np.int32],
    names: int,
) -> tuple[float, int]:
    """Sum over the lists that count, and how many do. Only categories of the visitor's own are ever touched."""
    own = np.zeros(names)
    shown = np.zeros(names)
    recent = np.empty(LOOKED_BACK, dtype=np.int32)
    total = 0.0
    counted = 0
    for t in range(len(targets)):
        length = 0
        back = np.int64(previous[targets[t]])
        while back >= 0 and length < LOOKED_BACK:
            recent[length] = item[back]
            length += 1
            back = np.int64(previous[back])
        events = _add_all(starts, codes, recent[:length], 1.0, own)
        listed = _add_all(starts, codes, lists[t], 1.0, shown)
        if events > 0 and listed > 0:
            counted += 1
            total += _divergence(starts, codes, recent[:length], own, shown, events, listed)
        _add_all(starts, codes, recent[:length], 0.0, own)
        _add_all(starts, codes, lists[t], 0.0, shown)
    return total, counted


@kernel
def _divergence(
    starts: NDArray[np.int64],
    codes: NDArray[np.int32],
    recent: NDArray[np.int32],
    own: NDArray[np.float64],
    shown: NDArray[np.float64],
    events: int,
    listed: int,
) -> float:
    """Divergence of the list's mix from the visitor's; each of the visitor's categories is 0 once it is counted."""
    total = 0.0
    for i in recent:
        for c in codes[starts[i] : starts[i + 1]]:
            p = own[c] / events
            if p > 0.0:
                total += p * math.log2(p / ((1.0 - SMOOTHING) * shown[c] / listed + SMOOTHING * p))
            own[c] = 0.0
    return total


@kernel
def _add_all(
    starts: NDArray[np.int64], codes: NDArray[np.int32], items: NDArray[np.int32], part: float, mix: NDArray[np.float64]
) -> int:
    """Give each category of some items its part of 1, or (part 0) set it to 0; returns how many items have any."""
    having = 0
    for item in items:
        if item < 0 or starts[item + 1] == starts[item]:
            continue
        having += 1
        for c in codes[starts[item] : starts[item + 1]]:
            mix[c] = mix[c] + part / (starts[item + 1] - starts[item]) if part > 0.0 else 0.0
    return having

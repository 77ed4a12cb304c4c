"""Counts and times of a worker: what the live line, the benchmarks and the exporter read."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.kernel import lean_kernel

BUCKETS_PER_OCTAVE: Final = 8
OCTAVES: Final = 30
BUCKETS: Final = OCTAVES * BUCKETS_PER_OCTAVE


class Histogram:
    """Logarithmic histogram of whole numbers from 1 to 2^30: 240 buckets, 9 % wide; 50 ns per value in batches.

    Attributes
    ----------
    counts
        Values per bucket.
    total
        Sum of all values.

    Examples
    --------
    >>> histogram = Histogram()
    >>> histogram.add(np.array([5, 5, 5]))
    >>> histogram.add_one(900)
    >>> histogram.quantile(0.5) < 6, histogram.quantile(0.99) > 800, histogram.total
    (True, True, 915)
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, dtype=np.int64)
        self.total = 0

    def add(self, values: NDArray[np.int64]) -> None:
        """Count values; those below 1 count as 1 (clocks differ)."""
        self.total += _count(values, self.counts)

    def add_one(self, value: int) -> None:
        """Count one value; half a microsecond."""
        clipped = max(value, 1)
        self.counts[min(int(math.log2(clipped) * BUCKETS_PER_OCTAVE), BUCKETS - 1)] += 1
        self.total += clipped

    def quantile(self, q: float) -> float:
        """Upper edge of the bucket that holds the quantile; 0 while empty."""
        total = int(self.counts.sum())
        if total == 0:
            return 0.0
        bucket = int(np.searchsorted(np.cumsum(self.counts), q * total))
        return float(2.0 ** ((bucket + 1) / BUCKETS_PER_OCTAVE))

    def cumulative(self) -> list[tuple[int, int]]:
        """(n, number of values <= n) for n = 1, 3, 7 ... 2^29 - 1, then the number of all; edges are exact."""
        octaves = self.counts.reshape(OCTAVES, BUCKETS_PER_OCTAVE).sum(axis=1).cumsum().tolist()
        return [(2 ** (octave + 1) - 1, count) for octave, count in enumerate(octaves)]


@lean_kernel
def _count(values: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
    """File values in their buckets; their sum."""
    total = 0
    for value in values:
        clipped = max(value, 1)
        counts[min(int(math.log2(clipped) * BUCKETS_PER_OCTAVE), BUCKETS - 1)] += 1
        total += clipped
    return total


class Timed:
    """Files in a histogram how long its block took, us, unless that raised. A generator would cost twice as much."""

    __slots__ = ("_began", "_histogram")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._began = time.perf_counter_ns()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._histogram.add_one((time.perf_counter_ns() - self._began) // 1000)


class Stats:
    """What a worker has done so far.

    Parameters
    ----------
    clock
        Seconds since 1970.

    Attributes
    ----------
    counts
        ``records`` and ``batches`` processed, ``lists`` ranked, ``keys`` written.
    freshness
        Redis' answer minus the event's timestamp, ms, per event.
    batches
        Records per batch, by stage.
    steps
        Microseconds per batch or slice of one, by (stage, step).
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.counts: Counter[str] = Counter()
        self.freshness = Histogram()
        self.batches: defaultdict[str, Histogram] = defaultdict(Histogram)
        self.steps: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)

    def now_ms(self) -> int:
        """Wall time in ms since 1970."""
        return int(self._clock() * 1000)

    def timed(self, stage: str, step: str) -> Timed:
        """Around one step of one batch; waits included. About 1 us."""
        return Timed(self.steps[stage, step])

    def events(self, ts_ms: NDArray[np.int64], records: int) -> None:
        """Note that a batch is done, written and acknowledged."""
        self.counts["records"] += records
        self.counts["batches"] += 1
        if len(ts_ms):
            self.freshness.add(self.now_ms() - ts_ms)

    def lists(self, ranked: int) -> None:
        """Note lists ranked."""
        self.counts["lists"] += ranked

    def keys(self, written: int) -> None:
        """Note keys written."""
        self.counts["keys"] += written

"""Segments of users: River's ``StandardScaler | cluster.KMeans``, the same in every process."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from river import base, compose, preprocessing
from scipy.optimize import linear_sum_assignment

from models.features import CATEGORY_PREFIX, emphasis
from models.kernel import kernel, lean_kernel
from models.steady_kmeans import Array, Features, SteadyKMeans, inertia, learn_point, lloyd, nearest, spread

MAX_FEATURES = 64
RESTARTS = 5
PASSES = 5
WINDOW = 512
BETTER = 0.97  # a fresh start replaces the centres only if it is clearly better, so that segments stay what they are
NOTABLE = 0.5  # standard deviations from the mean of all users


@kernel
def _assign(matrix: npt.NDArray[np.float32], centres: Array, means: Array, stds: Array) -> npt.NDArray[np.int16]:
    out = np.empty(len(matrix), np.int16)
    point = np.empty(len(means), np.float64)
    for i in range(len(matrix)):
        for j in range(len(means)):
            point[j] = (matrix[i, j] - means[j]) / stds[j] if stds[j] > 0.0 else 0.0
        out[i] = nearest(point, centres)[0]
    return out


def assign(matrix: npt.NDArray[np.float32], centres: Array, means: Array, stds: Array) -> npt.NDArray[np.int16]:
    """Give each row its segment: exactly what :meth:`Segments.predict_one` says about it.

    Parameters
    ----------
    matrix
        float32[n, at least d], columns in the order of :attr:`Segments.names`; what is behind them is ignored.
    centres, means, stds
        float64[k, d] in scaled units, float64[d], float64[d], from :meth:`Segments.model`; k = 0 before training.

    Returns
    -------
    numpy.ndarray
        int16[n], -1 where there is no model yet. About 0.2 µs per row.

    Examples
    --------
    >>> centres = np.array([[-1.0], [1.0]])
    >>> assign(np.array([[3.0], [30.0]], np.float32), centres, np.array([10.0]), np.array([5.0])).tolist()
    [0, 1]
    """
    if not len(centres):
        return np.full(len(matrix), -1, np.int16)
    return _assign(matrix, centres, means, stds)


class Scale(NamedTuple):
    """Running moments of each feature, and its emphasis; `point` is room for one scaled sample."""

    means: Array
    variances: Array
    emphasis: Array
    point: Array

    @classmethod
    def of(cls, names: Iterable[str], means: Array, variances: Array) -> Scale:
        """Moments of these features."""
        return cls(means, variances, np.array([emphasis(name) for name in names]), np.zeros(len(means)))


@lean_kernel
def _learn_scale(rows: Array, samples: int, scale: Scale) -> None:
    """River's ``StandardScaler.learn_one`` for each row, `samples` having been learned before."""
    for i in range(len(rows)):
        _update(rows[i], samples + i + 1, scale)


@lean_kernel
def _learn_all(
    rows: Array,
    samples: int,
    scale: Scale,
    centres: Array,
    weights: Array,
    errors: Array,
    step: float,
    keep: float,
    chosen: npt.NDArray[np.int64],
) -> None:
    """River's pipeline for each row: the scaler learns it, scales it, and the nearest centre moves."""
    for i in range(len(rows)):
        _update(rows[i], samples + i + 1, scale)
        for j in range(rows.shape[1]):
            spread_ = math.sqrt(scale.variances[j])
            scaled = (rows[i, j] - scale.means[j]) / spread_ if spread_ > 0.0 else 0.0
            scale.point[j] = scaled * scale.emphasis[j]
        chosen[i] = learn_point(scale.point, centres, weights, errors, step, keep)


@lean_kernel
def _update(row: Array, count: int, scale: Scale) -> None:
    for j in range(len(row)):
        gap = row[j] - scale.means[j]
        scale.means[j] += gap / count
        scale.variances[j] += (gap * (row[j] - scale.means[j]) - scale.variances[j]) / count


class Emphasis(base.Transformer):
    """Weighs scaled features by :func:`models.features.emphasis`; without state.

    Examples
    --------
    >>> Emphasis().transform_one({"spend": 3.0})
    {'spend': 1.5}
    """

    def transform_one(self, x: Features) -> dict[Any, float]:
        """Return the same features, weighed."""
        return {name: value * emphasis(name) for name, value in x.items()}


class Segments(base.Clusterer):
    """Clusters users online by named features, the same way in every process.

    The first `warm_up` samples train the scaler and are kept; k-means++ with a few restarts on them gives the starting
    centres. From then on every sample goes through River's ``StandardScaler | Emphasis | KMeans``. Early users are not
    typical, and online k-means cannot leave a poor start: whenever the number of samples has doubled, fresh centres are
    tried on up to 512 samples since the last time, and taken if clearly better, numbered so that they move least.
    Until the warm-up is over the segment is -1. Wrong where segments differ in shape rather than in place (k-means sees
    round clusters), and slow to follow a change of *scale*, because the scaler never forgets.

    Parameters
    ----------
    k
        Number of segments, 1 to 64. More are finer, and some will be near copies of each other.
    step
        Share of the way that a centre moves to a sample, 0 to 1.
    warm_up
        Samples before there are segments, at least k. Fewer answer sooner, with a worse start.
    seed
        Seeds the choice of fresh centres, the only use of chance.

    Raises
    ------
    ValueError
        If `k` or `warm_up` is out of range.

    Notes
    -----
    About 1 µs per sample with 27 features in :meth:`learn_rows`, 6 µs in :meth:`learn_one`, 3 ms whenever the number of
    samples has doubled. The pipeline's steps run as one kernel; :meth:`pipeline` makes River's own. Memory:
    ``2 k d`` floats and up to ``max(warm_up, 512) * d`` kept ones; d is at most 64, later names are ignored.

    References
    ----------
    D. Sculley, Web-scale k-means clustering, WWW 2010. D. Arthur and S. Vassilvitskii, k-means++, SODA 2007.

    Examples
    --------
    >>> segments = Segments(k=2, warm_up=4)
    >>> for value in (1.0, 1.1, 9.0, 9.1, 1.2, 9.2):
    ...     segments.learn_one({"category_share:tea": value})
    >>> low, high = (segments.predict_one({"category_share:tea": value}) for value in (1.0, 9.0))
    >>> low != high, segments.labels()[high]
    (True, 'tea')
    """

    def __init__(self, k: int = 8, step: float = 0.02, warm_up: int = 128, seed: int = 1) -> None:
        if not 1 <= k <= 64 or warm_up < k:
            raise ValueError(f"segments need 1 <= k <= 64 and warm_up >= k, got k={k}, warm_up={warm_up}")
        self.k, self.step, self.warm_up, self.seed = k, step, warm_up, seed
        self.scale = Scale.of([], np.zeros(0), np.zeros(0))
        self.kmeans = SteadyKMeans(k, step)
        self.names: list[str] = []
        self.samples = 0
        self._next, self._stride = warm_up, 1
        self._known: dict[str, None] = {}
        self._buffer: list[list[float]] = []

    @property
    def trained(self) -> bool:
        """Whether the warm-up is over."""
        return self.samples >= self.warm_up

    def learn_one(self, x: Features) -> None:
        """Learn a user's features; a name not met before counts as 0 in all earlier samples.

        Raises
        ------
        ValueError
            If a value is not finite.
        """
        self.meet(x)
        self.learn_rows(np.array([[x.get(name, 0.0) for name in self.names]], dtype=np.float64))

    def learn_many(self, samples: Iterable[Features]) -> None:
        """Learn several samples in order; the same as one by one."""
        for sample in samples:
            self.learn_one(sample)

    def learn_rows(self, rows: Array) -> npt.NDArray[np.int64]:
        """Learn several samples at once; the same as one by one.

        Parameters
        ----------
        rows
            float64[n, d], columns in the order of :attr:`names`.

        Returns
        -------
        numpy.ndarray
            Segment of each, -1 during the warm-up.

        Raises
        ------
        ValueError
            If a value is not finite; nothing is learned then.
        """
        if not np.isfinite(rows).all():
            raise ValueError(f"features must be finite: {rows[~np.isfinite(rows).all(axis=1)][0].tolist()}")
        chosen = np.full(len(rows), -1, dtype=np.int64)
        start = 0
        while start < len(rows):
            end = min(len(rows), start + self._next - self.samples)
            self._learn_part(rows[start:end], chosen[start:end])
            start = end
        return chosen

    def _learn_part(self, rows: Array, chosen: npt.NDArray[np.int64]) -> None:
        """Learn samples up to the next time that fresh centres are tried."""
        kmeans = self.kmeans
        if self.trained:
            state = (kmeans.rows, kmeans.weights, kmeans.errors, self.step, kmeans.keep)
            _learn_all(rows, self.samples, self.scale, *state, chosen)
        else:
            _learn_scale(rows, self.samples, self.scale)
        self._buffer += rows[-self.samples % self._stride :: self._stride].tolist()
        self.samples += len(rows)
        if self.samples == self._next:
            self._settle()

    def predict_one(self, x: Features) -> int:
        """Return the segment of these features, -1 during the warm-up; unknown names are ignored."""
        if not self.trained:
            return -1
        model = self.model()
        return int(_assign(np.array([[x.get(name, 0.0) for name in self.names]]), **model)[0])

    def pipeline(self) -> compose.Pipeline:
        """River's ``StandardScaler | Emphasis | KMeans`` as it stands, to go on by itself."""
        scaler = preprocessing.StandardScaler()
        for name, mean, variance in zip(
            self.names, self.scale.means.tolist(), self.scale.variances.tolist(), strict=True
        ):
            scaler.counts[name], scaler.means[name], scaler.vars[name] = self.samples, mean, variance
        kmeans = SteadyKMeans(self.k, self.step)
        kmeans.place(self.names, self.kmeans.rows, self.kmeans.weights, self.kmeans.errors)
        return scaler | Emphasis() | kmeans

    def model(self) -> dict[str, Array]:
        """Return what :func:`assign` needs, by :attr:`names`.

        Returns
        -------
        dict
            ``centres`` in scaled units (0 rows during the warm-up), ``means`` and ``stds``: standard deviations divided
            by the emphasis.
        """
        means, variances = self.scale.means.copy(), self.scale.variances
        centres = self.kmeans.rows.copy() if self.trained else np.zeros((0, len(self.names)))
        return {"centres": centres, "means": means, "stds": np.sqrt(variances) / self.scale.emphasis}

    def centroids(self) -> list[dict[str, float]]:
        """Return each segment's centre in the features' own units; empty during the warm-up."""
        model = self.model()
        units = model["centres"] * model["stds"] + model["means"]
        return [dict(zip(self.names, row, strict=True)) for row in units.tolist()]

    def labels(self) -> list[str]:
        """Describe each segment by what is above the average of all users.

        Returns
        -------
        list of str
            Up to two categories, ``"high spend"`` or ``"low spend"``, comma-separated; ``"mixed"`` if nothing stands
            out. Two segments may have the same label. Empty during the warm-up.
        """
        return [_label(dict(zip(self.names, row, strict=True))) for row in self.model()["centres"].tolist()]

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the whole state as arrays without Python objects, for a snapshot (no pickle)."""
        return {
            "settings": np.array([self.k, self.step, self.warm_up, self.seed, self.samples, self._next, self._stride]),
            "names": np.array(self.names, np.str_),
            "means": self.scale.means.copy(),
            "variances": self.scale.variances.copy(),
            "centres": self.kmeans.rows.copy(),
            "weights": self.kmeans.weights.copy(),
            "errors": self.kmeans.errors.copy(),
            "buffer": np.array(self._buffer).reshape(len(self._buffer), len(self.names)),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Segments:
        """Rebuild from :meth:`to_arrays`; continues exactly as the original would."""
        k, step, warm_up, seed, *progress = np.asarray(arrays["settings"], np.float64).tolist()
        made = cls(int(k), step, int(warm_up), int(seed))
        made.samples, made._next, made._stride = (int(number) for number in progress)
        made.names = [str(name) for name in arrays["names"].tolist()]
        made._known = dict.fromkeys(made.names)
        means, variances = (np.array(arrays[a], dtype=np.float64) for a in ("means", "variances"))
        made.scale = Scale.of(made.names, means, variances)
        centres, weights, errors = (np.asarray(arrays[a], np.float64) for a in ("centres", "weights", "errors"))
        made.kmeans.place(made.names, centres, weights, errors)
        made._buffer = np.asarray(arrays["buffer"], np.float64).tolist()
        return made

    def meet(self, names: Iterable[Any]) -> None:
        """Add unknown names, in their order, as features that were 0 until now."""
        fresh = [name for name in names if name not in self._known][: MAX_FEATURES - len(self.names)]
        for name in fresh:
            self.names.append(name)
            self._known[name] = None
            self.kmeans.widen(name)
            for row in self._buffer:
                row.append(0.0)
        if fresh:
            none = np.zeros(len(fresh))
            means, variances = np.append(self.scale.means, none), np.append(self.scale.variances, none)
            self.scale = Scale.of(self.names, means, variances)

    def _settle(self) -> None:
        """Compare the centres with fresh ones on samples since the last time; take the better, keep the numbers."""
        model = self.model()
        points = (np.array(self._buffer) - model["means"]) / np.where(model["stds"] > 0, model["stds"], 1.0)
        first = self.samples == self.warm_up
        draws = np.random.default_rng([self.seed, self.samples]).random((RESTARTS, self.k))
        fresh = [lloyd(points, spread(points, draw), PASSES) for draw in draws]
        best = min(fresh, key=lambda centres: inertia(points, centres))
        current = lloyd(points, self.kmeans.rows, PASSES)
        if first or inertia(points, best) < BETTER * inertia(points, current):
            if not first:
                gaps = ((self.kmeans.rows[:, None, :] - best[None, :, :]) ** 2).sum(axis=2)
                best = best[linear_sum_assignment(gaps)[1]]
            self._place(points, best)
        self._buffer = []
        self._next, self._stride = 2 * self.samples, -(-self.samples // WINDOW)

    def _place(self, points: Array, centres: Array) -> None:
        found = [nearest(point, centres) for point in points]
        chosen, errors = np.array([c for c, _ in found]), np.array([error for _, error in found])
        weights, summed = np.bincount(chosen, minlength=self.k), np.bincount(chosen, errors, self.k)
        self.kmeans.place(self.names, centres, weights.astype(np.float64), summed.astype(np.float64))


def _label(scores: Mapping[str, float]) -> str:
    """Describe a centre given in weighed standard deviations from the mean of all users."""
    scores = {name: score / emphasis(name) for name, score in scores.items()}
    shares = {n.removeprefix(CATEGORY_PREFIX): z for n, z in scores.items() if n.startswith(CATEGORY_PREFIX)}
    best = sorted(shares, key=lambda name: (-shares[name], name))
    words = [name for name in best[:2] if shares[name] >= NOTABLE]
    spend = scores.get("spend", 0.0)
    if abs(spend) >= NOTABLE:
        words.append("high spend" if spend > 0 else "low spend")
    return ", ".join(words) or "mixed"

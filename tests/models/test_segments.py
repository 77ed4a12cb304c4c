import os
import pickle
import subprocess
import sys
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import cluster, metrics, preprocessing

from models.features import Vectoriser, emphasis
from models.segments import MAX_FEATURES, WINDOW, Segments, assign
from models.steady_kmeans import SteadyKMeans
from stream.demo.shop import Shop
from tests.shop_profiles import Visitor, accumulate

NAMES = ["a", "b", "category_share:tea", "spend"]


def blobs(n: int, seed: int = 0, centres: int = 4) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    middles = rng.normal(0, 10, (centres, len(NAMES)))
    points = middles[rng.integers(0, centres, n)] + rng.normal(0, 1, (n, len(NAMES)))
    return [dict(zip(NAMES, row, strict=True)) for row in points.tolist()]


def trained(n: int = 400, **settings: int) -> Segments:
    segments = Segments(**{"k": 4, "warm_up": 50, **settings})
    segments.learn_many(blobs(n))
    return segments


def rows(points: list[dict[str, float]]) -> npt.NDArray[np.float32]:
    return np.array([[*point.values()] for point in points], np.float32)


def same(a: Segments, b: Segments) -> bool:
    left, right = a.to_arrays(), b.to_arrays()
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


def test_before_the_warm_up_there_are_no_segments() -> None:
    segments = Segments(k=4, warm_up=50)
    segments.learn_many(blobs(49))
    assert segments.predict_one(blobs(1)[0]) == -1
    assert assign(rows(blobs(3)), **segments.model()).tolist() == [-1, -1, -1]
    assert segments.centroids() == []
    assert segments.labels() == []
    segments.learn_one(blobs(50)[-1])
    assert segments.predict_one(blobs(1)[0]) >= 0


@settings(deadline=None)  # a kernel's first call compiles
@given(st.lists(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), min_size=1, max_size=20))
def test_assign_equals_predict_one(values: list[list[float]]) -> None:
    points = [dict(zip(NAMES, row, strict=True)) for row in values]
    assert assign(rows(points), **MODEL.model()).tolist() == [MODEL.predict_one(point) for point in points]


MODEL = trained()


def test_clusters_that_are_far_apart_are_found() -> None:
    segments, middles = Segments(k=4, warm_up=50), np.random.default_rng(0).normal(0, 10, (4, len(NAMES)))
    segments.learn_many(blobs(1_000))
    centroids = np.array([[*centroid.values()] for centroid in segments.centroids()])
    for middle in middles:
        assert np.abs(centroids - middle).max(axis=1).min() < 1.0


def test_the_step_is_rivers_step() -> None:
    points, k = blobs(300, seed=3), 3
    ours, theirs = SteadyKMeans(k, 0.1), cluster.KMeans(k, halflife=0.1)
    starts = rows(points[:k]).astype(np.float64)
    ours.place(NAMES, starts, np.full(k, 100.0), np.full(k, 100.0))
    for c in range(k):
        theirs.centers[c].update(zip(NAMES, starts[c].tolist(), strict=True))
    for point in points:
        assert ours.learn_predict_one(point) == theirs.learn_predict_one(point)  # type: ignore[no-untyped-call]  # river
        for c in range(k):
            assert ours.centers[c] == pytest.approx(theirs.centers[c], rel=1e-12)
            assert ours.rows[c].tolist() == [*ours.centers[c].values()]


def test_the_scaler_is_rivers_scaler() -> None:
    scaler = preprocessing.StandardScaler()
    for point in blobs(400):
        scaler.learn_one(point)  # type: ignore[no-untyped-call]  # river
    model = trained(400).model()
    assert model["means"].tolist() == [scaler.means[name] for name in NAMES]
    assert model["stds"].tolist() == [scaler.vars[name] ** 0.5 / emphasis(name) for name in NAMES]


def test_the_kernel_is_rivers_pipeline() -> None:
    points, segments = blobs(900), trained(300)  # fresh centres are tried at 200, 400 and 800
    pipeline, steps = segments.pipeline(), points[300:399]
    for point in steps:
        segments.learn_one(point)
        pipeline.learn_one(point)
    ours, theirs = segments.pipeline(), pipeline
    for name in NAMES:
        for moments in ("counts", "means", "vars"):
            assert getattr(ours["StandardScaler"], moments)[name] == getattr(theirs["StandardScaler"], moments)[name]
    for c in range(4):
        assert ours["SteadyKMeans"].centers[c] == pytest.approx(theirs["SteadyKMeans"].centers[c], rel=1e-12)
    assert [segments.predict_one(point) for point in points] == [theirs.predict_one(point) for point in points]


@given(st.lists(st.integers(0, 60), max_size=6))
@settings(deadline=None, max_examples=20)
def test_rows_at_once_are_the_same_as_one_by_one(cuts: list[int]) -> None:
    points = blobs(300)
    single, many = trained(300), Segments(k=4, warm_up=50)
    many.meet(NAMES)
    matrix, start = np.array([[*point.values()] for point in points]), 0
    for cut in [*cuts, len(points)]:
        many.learn_rows(matrix[start : start + cut])
        start += cut
    assert same(single, many)


def test_a_dead_cluster_takes_half_of_the_worst_one() -> None:
    kmeans = SteadyKMeans(2, 0.02, memory=10)
    kmeans.place(["x"], np.array([[0.0], [1_000.0]]), np.array([10.0, 10.0]), np.array([10.0, 0.0]))
    rng = np.random.default_rng(1)
    points = [{"x": float(side * 10 + rng.normal())} for side in rng.choice([-1, 1], 400)]
    for point in points:
        kmeans.learn_one(point)
    assert sorted(kmeans.rows[:, 0].tolist()) == pytest.approx([-10, 10], abs=1.5)


def test_a_name_met_late_counts_as_zero_before() -> None:
    early, late = trained(200), Segments(k=4, warm_up=50)
    late.learn_many({name: value for name, value in point.items() if name != "spend"} for point in blobs(200))
    late.learn_one({**blobs(1)[0], "spend": 201.0})
    assert late.names == [*(name for name in NAMES if name != "spend"), "spend"]
    assert late.model()["means"][-1] == pytest.approx(1.0)
    assert len(early.centroids()[0]) == len(late.centroids()[0])


def test_names_are_bounded_and_reading_adds_none() -> None:
    segments = trained()
    before = segments.to_arrays()
    segments.predict_one({f"other{i}": 1.0 for i in range(100)})
    segments.centroids(), segments.labels(), segments.model()
    assert all(np.array_equal(before[name], value) for name, value in segments.to_arrays().items())
    segments.learn_one({f"other{i}": 1.0 for i in range(100)})
    assert len(segments.names) == MAX_FEATURES == len(segments.centroids()[0])


def test_kept_samples_are_bounded() -> None:
    segments, most = Segments(k=4, warm_up=50), 0
    for point in blobs(3_000):
        segments.learn_one(point)
        most = max(most, len(segments.to_arrays()["buffer"]))
    assert most <= WINDOW


@pytest.mark.parametrize("cut", [0, 20, 50, 333, 999])
def test_a_restored_model_goes_on_as_if_nothing_had_happened(cut: int) -> None:
    points, through = blobs(1_000), Segments(k=4, warm_up=50)
    through.learn_many(points)
    first = Segments(k=4, warm_up=50)
    first.learn_many(points[:cut])
    second = Segments.from_arrays(first.to_arrays())
    second.learn_many(points[cut:])
    assert same(second, through)
    assert same(pickle.loads(pickle.dumps(through)), through)


def test_numbers_stay_with_their_segments() -> None:
    segments, probe = trained(1_000), blobs(200, seed=0)
    before = [segments.predict_one(point) for point in probe]
    segments.learn_many(blobs(4_000)[1_000:])
    after = [segments.predict_one(point) for point in probe]
    assert np.mean(np.array(before) == np.array(after)) > 0.97


@pytest.mark.parametrize("hash_seed", ["0", "5"])
def test_same_centres_in_every_process(hash_seed: str) -> None:
    code = (
        "import zlib; from tests.models.test_segments import trained;"
        "print(zlib.crc32(trained(300).model()['centres'].tobytes()))"
    )
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(run.stdout) == zlib.crc32(trained(300).model()["centres"].tobytes())


def test_labels_name_what_stands_out() -> None:
    segments = Segments(k=2, warm_up=10)
    for i in range(40):
        segments.learn_one({"category_share:tea": i % 2, "category_share:cups": i % 2 * 0.9, "spend": i % 2 * 3.0})
    tea = segments.predict_one({"category_share:tea": 1.0, "category_share:cups": 0.9, "spend": 3.0})
    assert set(segments.labels()[tea].split(", ")) == {"cups", "tea", "high spend"}
    assert segments.labels()[1 - tea] == "low spend"


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        trained().learn_one(dict.fromkeys(NAMES, float("nan")))
    for bad in ({"k": 0}, {"k": 65}, {"k": 8, "warm_up": 7}):
        with pytest.raises(ValueError, match="segments need"):
            Segments(**bad)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 7.0]), min_size=2, max_size=2), min_size=8, max_size=60))
def test_few_distinct_points_are_no_trouble(values: list[list[float]]) -> None:
    segments = Segments(k=8, warm_up=8)
    segments.learn_many({"a": a, "b": b} for a, b in values)
    assert all(0 <= segments.predict_one({"a": a, "b": b}) < 8 for a, b in values)
    assert np.isfinite(segments.model()["centres"]).all()


def test_segments_of_the_shop_are_its_personas() -> None:
    shop, segments, vectoriser = Shop(seed=1), Segments(), Vectoriser()

    def sample(user: str, visitor: Visitor) -> None:
        nonlocal vectoriser
        if zlib.crc32(f"{user}.{visitor.events}".encode()) % 16 == 0:
            profile = visitor.profile()
            vectoriser = vectoriser.extended(profile.categories)
            segments.learn_one(vectoriser.vector(profile))

    visitors = accumulate(shop.events(100_000), sample)
    assert vectoriser.names == tuple(segments.names)
    agreement = metrics.AdjustedRand()  # type: ignore[no-untyped-call]  # river
    for user, visitor in visitors.items():
        if visitor.events >= 5:
            agreement.update(shop.personas[user], segments.predict_one(vectoriser.vector(visitor.profile())))
    assert agreement.get() >= 0.6  # type: ignore[no-untyped-call]  # river

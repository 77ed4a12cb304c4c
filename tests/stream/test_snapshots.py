from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stream.snapshots import SnapshotStore

KINDS = hnp.scalar_dtypes().filter(lambda dtype: not dtype.hasobject)


def state(value: int, size: int = 1000) -> dict[str, NDArray[Any]]:
    return {"a": np.full(size, value, np.int64), "b": np.arange(6, dtype=np.float32).reshape(2, 3)}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, min_side=0)), compress=st.booleans())
def test_arrays_come_back_as_they_were(tmp_path: Path, array: NDArray[Any], compress: bool) -> None:
    name = f"x{len(list(tmp_path.iterdir()))}"
    store = SnapshotStore(tmp_path, compress=compress)
    store.write(name, 7, {"one": array, "none": np.empty(0), "turned": np.arange(6).reshape(2, 3).T})
    snapshot = store.latest(name)
    assert snapshot is not None
    assert snapshot.offset == 7
    one = snapshot.arrays["one"]
    assert (one.dtype, one.shape, one.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert snapshot.arrays["none"].shape == (0,)
    assert snapshot.arrays["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert one.flags.writeable


def test_highest_offset_wins_whenever_it_was_written(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    assert store.latest("events-0") is None
    store.write("events-0", 100_000, state(2))
    store.write("events-0", 99_999, state(1))  # a worker that was evicted and does not know it
    store.write("events-00", 200_000, state(3))
    snapshot = store.latest("events-0")
    assert snapshot is not None
    assert (snapshot.offset, snapshot.arrays["a"][0]) == (100_000, 2)


def test_three_are_kept_and_only_older_ones_deleted(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for offset in (10, 20, 30, 40, 35, 5):
        store.write("events-0", offset, state(offset))
    kept = sorted(int(path.name.split("@")[1].split(".")[0]) for path in tmp_path.iterdir())
    assert kept == [5, 20, 30, 35, 40]
    store.write("events-0", 50, state(50))
    assert len(list(tmp_path.iterdir())) == 3


def test_same_offset_is_not_written_again(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    path = store.write("events-0", 10, state(1))
    before = path.stat().st_mtime_ns, path.stat().st_ino
    store.write("events-0", 10, state(1))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_one_is_refused_once_and_the_previous_used(tmp_path: Path, damage: str, compress: bool) -> None:
    store = SnapshotStore(tmp_path, compress=compress)
    store.write("events-0", 10, state(1))
    path = store.write("events-0", 20, state(2))
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.write_bytes({"cut": bytes(content[:-5]), "flip": bytes(content), "empty": b""}[damage])
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            snapshot = store.latest("events-0")
            assert snapshot is not None
            assert snapshot.offset == 10
    assert [(line["event"], line["file"]) for line in logs] == [("snapshot_refused", path.name)]


def test_damaged_ones_do_not_push_out_good_ones_and_are_replaced(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for offset in (100, 200, 300):
        store.write("events-0", offset, state(1)).write_bytes(b"x")
    assert store.latest("events-0") is None
    store.write("events-0", 50, state(5))
    store.write("events-0", 100, state(6))
    snapshot = store.latest("events-0")
    assert snapshot is not None
    assert (snapshot.offset, snapshot.arrays["a"][0]) == (100, 6)


def test_other_schema_and_renamed_file_are_refused(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    path = store.write("events-0", 10, state(1))
    assert SnapshotStore(tmp_path, schema=2).latest("events-0") is None
    path.rename(tmp_path / "events-0@00000000000000000099.snap")
    assert store.latest("events-0") is None


def test_python_objects_are_refused(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    with pytest.raises(TypeError, match="Python objects cannot be kept: a"):
        store.write("events-0", 1, {"a": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SnapshotStore(tmp_path)
    store.write("events-0", 1, state(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write("events-0", 2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["events-0@00000000000000000001.snap"]


def test_name_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be a file name"):
        SnapshotStore(tmp_path).write("../events-0", 1, state(1))

from __future__ import annotations

import ast
import errno
import os
import uuid
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import structlog
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.snapshot_file import DIGEST, Encoder, Header, SnapshotError, check, read_arrays
from stream.snapshots import ATTEMPTS, SnapshotStore

ROOT = Path(__file__).parents[2]
KINDS = hnp.scalar_dtypes().filter(lambda dtype: not dtype.hasobject)


def state(value: int, size: int = 1000) -> dict[str, NDArray[Any]]:
    return {"a": np.full(size, value, np.int64), "b": np.arange(6, dtype=np.float32).reshape(2, 3)}


def newest(store: SnapshotStore, name: str = "events-0") -> tuple[int, int]:
    """Offset and value of the newest readable one."""
    snapshot = store.latest(name)
    assert snapshot is not None
    return snapshot.offset, int(snapshot.arrays["a"][0])


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}/snapshots"


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, min_side=0)), cut=st.integers(0, 5))
def test_arrays_come_back_as_they_were(tmp_path: Path, array: NDArray[Any], cut: int) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        encoder = Encoder(file)
        encoder.put("none", np.empty(0))
        for piece in (array[:cut], array[cut:]) if array.ndim else (array,):
            encoder.put("one", piece)
        encoder.put("turned", np.arange(6).reshape(2, 3).T)
        encoder.finish("events-0", 7, 3)
    header = check(path)
    arrays = read_arrays(path, header)
    assert (header.name, header.offset, header.schema) == ("events-0", 7, 3)
    assert {"rivulet", "numpy", "python"} <= header.versions.keys()
    one = arrays["one"]
    assert (one.dtype, one.shape, one.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert arrays["none"].shape == (0,)
    assert arrays["turned"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert one.flags.writeable


def test_pieces_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        encoder = Encoder(file)
        encoder.put("a", np.zeros((2, 3)))
        for name, piece in (("a", np.zeros((2, 4))), ("a", np.zeros((2, 3), np.float32))):
            with pytest.raises(ValueError, match="a piece of a does not follow its others"):
                encoder.put(name, piece)
        encoder.put("b", np.zeros(1))
        with pytest.raises(ValueError, match="a piece of a does not follow its others"):
            encoder.put("a", np.zeros((2, 3)))


def test_highest_offset_wins_whenever_it_was_written(url: str) -> None:
    store = SnapshotStore(url)
    assert store.latest("events-0") is None
    store.write("events-0", 100_000, state(2))
    store.write("events-0", 99_999, state(1))  # a worker that was evicted and does not know it
    store.write("events-00", 200_000, state(3))
    assert newest(store) == (100_000, 2)


def test_so_many_are_kept_and_only_older_ones_deleted(url: str) -> None:
    store = SnapshotStore(url, keep=3)
    for offset in (10, 20, 30, 40, 35, 5):
        store.write("events-0", offset, state(offset))
    assert [found.offset for found in store.generations("events-0")] == [40, 35, 30, 20, 5]
    store.write("events-0", 50, state(50))
    assert len(store.generations()) == 3
    SnapshotStore(url, keep=2).write("events-0", 60, state(60))
    assert [found.offset for found in store.generations()] == [60, 50]


def test_same_offset_is_not_written_again(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    path = tmp_path / store.write("events-0", 10, state(1))
    before = path.stat().st_mtime_ns, path.stat().st_ino
    store.write("events-0", 10, state(1))
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_is_seen_before_it_is_finished(url: str) -> None:
    store = SnapshotStore(url)
    writer = store.begin("events-0")
    writer.put("a", np.ones(1_000_000))
    assert store.generations() == []
    writer.finish(10)
    assert [found.offset for found in store.generations()] == [10]
    writer.close()


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "empty", "short", "other"])
def test_damaged_one_is_refused_once_and_the_previous_used(tmp_path: Path, damage: str) -> None:
    store = SnapshotStore(tmp_path)
    store.write("events-0", 10, state(1))
    path = tmp_path / store.write("events-0", 20, state(2))
    content = path.read_bytes()
    middle, header = len(content) // 2, len(content) - 2 * DIGEST - 10
    path.write_bytes(
        {
            "cut": content[:-5],
            "flip": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "header": content[:header] + bytes([content[header] ^ 1]) + content[header + 1 :],
            "empty": b"",
            "short": content[:20],
            "other": b"PK" + content[2:],
        }[damage]
    )
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            assert newest(store) == (10, 1)
    assert [(line["event"], line["file"]) for line in logs] == [("snapshot_refused", path.name)]
    assert "\n" not in logs[0]["reason"]


def unreadable(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, *offsets: int, error: OSError) -> list[str]:
    """Have some files fail when they are read; the names of those that were tried, which goes on growing."""
    local, tried = store.folder.local, list[str]()

    def fail(name: str) -> Any:
        tried.append(name)
        if any(f"@{offset:020d}" in name for offset in offsets):
            raise error
        return local(name)

    monkeypatch.setattr(store.folder, "local", fail)
    return tried


def two_generations(folder: Path) -> SnapshotStore:
    """With snapshots at offsets 10 and 20."""
    store = SnapshotStore(folder)
    for offset in (10, 20):
        store.write("events-0", offset, state(offset))
    return store


def test_a_file_that_cannot_be_read_for_long_is_refused_and_the_previous_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = two_generations(tmp_path)
    with monkeypatch.context() as patched, structlog.testing.capture_logs() as logs:
        unreadable(store, patched, 20, error=OSError(errno.EIO, "Input/output error"))
        for _ in range(ATTEMPTS - 1):
            with pytest.raises(OSError, match="Input/output"):
                store.latest("events-0")
        for _ in range(2):
            assert newest(store) == (10, 10)
    assert [line["event"] for line in logs] == ["snapshot_refused"]
    assert newest(store) == (20, 20), "it was only the cable"


def test_a_store_whose_files_cannot_be_read_at_all_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = two_generations(tmp_path)
    with monkeypatch.context() as patched:
        unreadable(store, patched, 10, 20, error=OSError(errno.EIO, "Input/output error"))
        for _ in range(3 * ATTEMPTS):
            with pytest.raises(OSError, match="Input/output"):
                store.latest("events-0")
    assert newest(store) == (20, 20)
    for offset in (30, 40, 50):
        store.write("events-0", offset, state(offset))
    assert [found.offset for found in store.generations()] == [50, 40, 30], "what was not read for a while is pruned"


def test_what_is_listed_and_not_there_is_not_asked_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SnapshotStore(tmp_path)
    for offset in (10, 20):
        store.write("events-0", offset, state(offset))
    tried = unreadable(store, monkeypatch, 20, error=FileNotFoundError())
    for _ in range(ATTEMPTS - 1):
        with pytest.raises(FileNotFoundError):
            store.latest("events-0")
    assert newest(store) == (10, 10)
    assert len(tried) == 2 * ATTEMPTS + 1


def test_damaged_ones_do_not_push_out_good_ones_and_are_replaced(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    for offset in (100, 200, 300):
        (tmp_path / store.write("events-0", offset, state(1))).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=r"none of the 3 snapshots of events-0 can be read .*not a snapshot"):
        store.latest("events-0")
    store.write("events-0", 50, state(5))
    store.write("events-0", 100, state(6))
    assert newest(store) == (100, 6)


def test_other_schema_and_renamed_file_are_refused(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path, schema=2)
    path = tmp_path / store.write("events-0", 10, state(1))
    with pytest.raises(ConfigurationError, match=r"schema 2 of rivulet [\d.]+, this version reads 3"):
        SnapshotStore(tmp_path, schema=3).latest("events-0")
    path.rename(tmp_path / "events-0@00000000000000000099.snap")
    with pytest.raises(ConfigurationError, match="renamed from events-0 at offset 10"):
        store.latest("events-0")


def test_signed_snapshots_need_their_key(url: str) -> None:
    signing, plain, other = (SnapshotStore(url, key=key) for key in (b"secret", b"", b"another"))
    plain.write("events-0", 10, state(1))
    with pytest.raises(ConfigurationError, match="it is not signed, see RIVULET_SNAPSHOT_KEY"):
        signing.latest("events-0")
    signing.write("events-0", 20, state(2))
    assert newest(signing) == newest(plain) == (20, 2)
    with pytest.raises(ConfigurationError, match="its signature is not by this key"):
        other.latest("events-0")


def test_changed_content_with_a_right_checksum_is_refused_with_a_key(tmp_path: Path) -> None:
    """Whoever can write files cannot sign them."""
    store = SnapshotStore(tmp_path, key=b"secret")
    store.write("events-0", 10, state(1))
    signed = (tmp_path / store.write("events-0", 20, state(2))).read_bytes()
    forged = tmp_path / SnapshotStore(tmp_path / "elsewhere").write("events-0", 20, state(3))
    content = (tmp_path / "elsewhere" / forged.name).read_bytes()
    forged.write_bytes(content[:-DIGEST] + signed[-DIGEST:])
    assert newest(store) == (10, 1)


def write_by_hand(path: Path, body: bytes, header: bytes) -> None:
    """A file with a right checksum, whatever it holds."""

    class Fixed:
        def compress(self, _: bytes) -> bytes:
            return b""

        def flush(self) -> bytes:
            return body

    with path.open("wb") as file:
        encoder = Encoder(file)
        encoder._zstd = Fixed()  # type: ignore[assignment]
        encoder._write(body + header + len(header).to_bytes(4, "little"))
        digest = encoder._check.digest()
        file.write(digest + bytes(DIGEST))


@pytest.mark.parametrize(
    ("dtype", "shape", "why"),
    [
        ("|O", [1], "holds Python objects"),
        ("<i8", [3], "foreign"),
        ("<i8", [1 << 60], "foreign"),
        ("<i8", [-1], "foreign"),
        ("nonsense", [1], "foreign"),
    ],
)
def test_foreign_file_with_a_right_checksum_is_refused(tmp_path: Path, dtype: str, shape: list[int], why: str) -> None:
    body = zstandard.ZstdCompressor().compress(bytes(16))
    array = {"name": "a", "dtype": dtype, "shape": shape}
    header = {"name": "x", "offset": 1, "schema": 2, "versions": {}, "arrays": [array]}
    write_by_hand(tmp_path / "file", body, msgspec.msgpack.encode(header))
    with pytest.raises(SnapshotError, match=why):
        read_arrays(tmp_path / "file", check(tmp_path / "file"))


def test_foreign_header_is_refused(tmp_path: Path) -> None:
    write_by_hand(tmp_path / "file", b"", msgspec.msgpack.encode({"name": 1}))
    with pytest.raises(SnapshotError, match="foreign"):
        check(tmp_path / "file")
    assert set(Header.__struct_fields__) == {"name", "offset", "schema", "versions", "arrays"}


def test_format_before_this_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"RVSNAP\x00" + bytes(200))
    with pytest.raises(SnapshotError, match="format 0, this version reads 2"):
        check(tmp_path / "file")


def test_python_objects_are_refused(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    with pytest.raises(TypeError, match="Python objects cannot be kept: a"):
        store.write("events-0", 1, {"a": np.array([object()])})
    assert list(tmp_path.iterdir()) == []


def test_no_module_knows_pickle() -> None:
    """Reading state must never run code; nothing of the project may even load the means to."""
    forbidden = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    for path in [*ROOT.glob("models/**/*.py"), *ROOT.glob("stream/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.keyword):
                names = {node.arg} & {"allow_pickle"}  # type: ignore[assignment]  # of numpy's loaders
                assert not names, path
                continue
            else:
                continue
            assert not names & forbidden, path


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SnapshotStore(tmp_path)
    store.write("events-0", 1, state(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.write("events-0", 2, state(2))
    assert [path.name for path in tmp_path.iterdir()] == ["events-0@00000000000000000001.snap"]


def test_what_killed_writers_left_goes_with_the_next_snapshot(tmp_path: Path) -> None:
    store = SnapshotStore(tmp_path)
    killed, other = store.begin("events-0"), store.begin("events-0.1")
    killed.put("a", np.ones(10))
    store.write("events-0", 1, state(1))
    assert sorted(path.name.partition("@")[0] for path in tmp_path.iterdir()) == [".events-0.1", "events-0"]
    with pytest.raises(OSError, match="No such file"):
        killed.finish(2)
    killed.close()
    other.close()


def test_name_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be a file name"):
        SnapshotStore(tmp_path).write("../events-0", 1, state(1))


@pytest.mark.parametrize(
    ("address", "why"),
    [("nonsense://x", "Protocol not known: nonsense"), ("/proc/x", "RIVULET_SNAPSHOT_FOLDER=/proc/x: ")],
)
def test_place_that_cannot_be_used_is_told(address: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        SnapshotStore.of(Settings(snapshot_folder=address))


class _Broken:
    """A remote file system whose library has errors of its own."""

    protocol = "broken"

    def invalidate_cache(self) -> None:
        raise RuntimeError("no route")


def test_errors_of_remote_libraries_are_those_of_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda _: (_Broken(), "bucket"))
    with pytest.raises(OSError, match=r"bucket: RuntimeError\('no route'\)"):
        SnapshotStore("broken://bucket").generations()

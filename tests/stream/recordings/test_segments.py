"""The files of ``rivulet record``: cut off anywhere and continued, they are what an undisturbed recorder leaves."""

from __future__ import annotations

import errno
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.errors import BadInputError, ConfigurationError, UnavailableError
from stream.recordings.files import opened
from stream.recordings.frames import Mark, recover
from stream.recordings.reading import read
from stream.recordings.records import Raw, encode_line
from stream.recordings.segments import Segments

LOG = [Raw(n, 1_000 + n, b"k%d" % (n % 5), b'{"n":%d}' % n, (("h", b"\xff"),) if n % 3 else ()) for n in range(40)]
FRAME = 4  # records


def record(folder: Path, log: Sequence[Raw] = LOG, max_bytes: int | None = None, most: int | None = None) -> int:
    """Write what of a log is not yet recorded, as a recorder does; at most so many frames. Returns the total."""
    with Segments(folder, "events", max_bytes) as segments:
        mark = segments.mark or Mark(topic="events", next={0: 0})
        segments.append(mark, b"")
        frames = range(mark.next[0], len(log), FRAME)
        for start in frames[:most]:
            part = log[start : start + FRAME]
            mark.lines = len(part)
            mark.records += len(part)
            mark.next = {0: part[-1].offset + 1}
            segments.append(mark, b"".join(encode_line("events", 0, each) for each in part))
        return mark.records


def contents(folder: Path) -> list[Raw]:
    found = []
    for path in sorted(folder.iterdir()):
        for _, each in read(path):
            assert isinstance(each, tuple)
            found.append(each[1])
    return found


@pytest.fixture(autouse=True, scope="module")
def _quick_disk() -> Iterator[None]:
    """Without waiting for the disk: a process that is killed loses nothing that was written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


def test_every_byte_at_which_a_file_can_be_cut_is_continued_without_gap_or_repeat(tmp_path: Path) -> None:
    log = LOG[:10]
    whole = tmp_path / "whole"
    record(whole, log)
    (file,) = whole.iterdir()
    data = file.read_bytes()
    assert contents(whole) == log
    folder = tmp_path / "cut"
    folder.mkdir()
    for size in range(len(data)):
        (folder / file.name).write_bytes(data[:size])
        assert record(folder, log) == len(log), size
        assert contents(folder) == log, size


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), max_size=6),
    st.sampled_from([None, 1, 300, 1_000]),
)
def test_kills_at_any_moment_of_rotated_recordings(kills: list[tuple[int, float]], max_bytes: int | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for frames, share in kills:
            record(folder, max_bytes=max_bytes, most=frames)
            newest = max(folder.iterdir())
            before = recover(newest)[1]
            # the next write was under way: some of its bytes are there
            with newest.open("ab") as file:
                file.write(b"\x50\x2a\x4d\x18\xff\x00\x00\x00{"[: round(share * 9)])
            assert recover(newest)[1] == before
        assert record(folder, max_bytes=max_bytes) == len(LOG)
        assert contents(folder) == LOG


def test_a_frame_that_was_not_written_through_is_recorded_again(tmp_path: Path) -> None:
    record(tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-6] ^= 1  # the last frame's checksum or content
    file.write_bytes(bytes(data))
    assert record(tmp_path) == len(LOG)
    assert contents(tmp_path) == LOG


def test_damage_before_the_end_is_never_cut_off(tmp_path: Path) -> None:
    record(tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    second = data.index(b'{"recording":', 20)
    data[second + 3] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BadInputError, match="is damaged at byte"):
        record(tmp_path)
    assert file.read_bytes() == bytes(data)


def test_a_damaged_frame_is_named_and_others_are_read_if_it_may_be_skipped(tmp_path: Path) -> None:
    record(tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    third = [at for at in range(len(data)) if data[at:].startswith(b'{"recording":')][3]
    data[data.index(b"}", data.index(b"}", third) + 1) + 12] ^= 255
    file.write_bytes(bytes(data))
    with pytest.raises(BadInputError, match=rf"{file.name}, line 9, frame at byte \d+: is damaged: its 4 records"):
        list(read(file))
    told: list[BadInputError] = []
    left = [each[1] for _, each in read(file, told.append) if isinstance(each, tuple)]
    assert len(told) == 1
    assert left == LOG[:8] + LOG[12:]
    file.write_bytes(bytes(data[:-3]))
    told.clear()
    assert len(list(read(file, told.append))) == len(LOG) - 8
    assert "is torn" in str(told[1])


def test_a_damaged_last_frame_is_not_told_as_torn(tmp_path: Path) -> None:
    record(tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-6] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(BadInputError, match=r"line 37, frame at byte \d+: is damaged: its 4 records cannot be read"):
        list(read(file))


def test_the_files_are_plain_zstd_json_lines(tmp_path: Path) -> None:
    record(tmp_path)
    (file,) = tmp_path.iterdir()
    with file.open("rb") as packed:
        unpacked = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True).read()
    first, *rest = unpacked.splitlines()
    assert len(rest) == len(LOG) - 1
    assert first.startswith(b'{"topic":"events","partition":0,"offset":0,"timestamp":1000,"key":"k0"')
    if (
        done := subprocess.run(["sh", "-c", f"command -v zstd && zstd -dc '{file}'"], capture_output=True)
    ).returncode == 0:
        assert done.stdout.count(b'"offset"') == len(LOG)


def test_foreign_zstd_files_are_read_and_a_torn_end_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    packed = zstandard.ZstdCompressor(write_checksum=True)
    data = packed.compress(b"one\ntwo\n") + packed.compress(b"three\nfour")
    path.write_bytes(data)
    with opened(str(path)) as lines:
        assert list(lines) == [b"one\n", b"two\n", b"three\n", b"four"]
    path.write_bytes(data[:-2])
    with pytest.raises(BadInputError, match="ended before"), opened(str(path)) as lines:
        list(lines)


def test_one_writer_a_folder_and_nothing_foreign_is_touched(tmp_path: Path) -> None:
    with Segments(tmp_path / "a", "events"), pytest.raises(ConfigurationError, match="another process records here"):
        Segments(tmp_path / "a", "events")
    other = tmp_path / "b" / "events-000000.jsonl.zst"
    other.parent.mkdir()
    other.write_bytes(zstandard.compress(b"mine"))
    with pytest.raises(BadInputError, match="is no recording of a topic"):
        Segments(tmp_path / "b", "events")
    assert other.read_bytes() == zstandard.compress(b"mine")


def test_a_full_disk_ends_it_and_leaves_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(file: FileIO, data: memoryview) -> int:
        if file.tell() > 1_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return FileIO.write(file, data[:100])

    monkeypatch.setattr("stream.recordings.segments.FileIO", type("Full", (FileIO,), {"write": half}))
    with pytest.raises(UnavailableError, match=r"No space left on device: start again when there is room"):
        record(tmp_path)
    (file,) = tmp_path.iterdir()
    assert recover(file)[1] == file.stat().st_size > 0
    monkeypatch.undo()
    assert record(tmp_path) == len(LOG)
    assert contents(tmp_path) == LOG
    assert file.stat().st_mode & 0o777 == 0o600


def test_files_are_rotated_by_age(tmp_path: Path) -> None:
    now = [0.0]
    with Segments(tmp_path, "events", max_s=60, clock=lambda: now[0]) as segments:
        for now[0] in (0.0, 59.0, 61.0, 100.0, 122.0):
            segments.append(Mark(topic="events", next={0: 0}), b"x\n")
    assert segments.files == [f"events-{n:06d}.jsonl.zst" for n in range(3)]

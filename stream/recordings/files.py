"""Opens what recordings are kept in: plain, ``.gz`` or ``.zst`` files, folders of them, and standard input."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import zstandard

from stream.errors import BadInputError
from stream.recordings.frames import is_recording, read_frames

PACKED: Final = (".gz", ".zst")
KINDS: Final = (".csv", ".jsonl", ".ndjson", ".parquet")
CHUNK: Final = 262_144  # bytes

OnBad = Callable[[BadInputError], None]  # told of damaged input: raises, or returns to skip it


def stop(error: BadInputError) -> None:
    """The rule without ``--skip-bad``: the first damaged line ends the run."""
    raise error


def bad(name: str, line: int, field: str, problem: str) -> BadInputError:
    """One line that says where input is damaged."""
    return BadInputError(f"{name}, line {line}, {field}: {problem}")


class Meter:
    """How many bytes of its files, as they lie on disk, a reader has passed."""

    def __init__(self) -> None:
        self._before = 0
        self._file: IO[bytes] | None = None

    def follow(self, file: IO[bytes]) -> None:
        """Count another file."""
        self._before = self.bytes
        self._file = file

    def leave(self) -> None:
        """Note that the file is about to be closed."""
        self._before, self._file = self.bytes, None

    @property
    def bytes(self) -> int:
        """Bytes passed of all files."""
        return self._before + (0 if self._file is None else self._file.tell())


def kind_of(name: str) -> str:
    """The kind of a file by its name: ``csv``, ``jsonl`` or ``parquet``.

    Raises
    ------
    BadInputError
        If it is none of these, or a folder.
    """
    if name == "-":
        return "jsonl"
    bare = name
    for ending in PACKED:
        bare = bare.removesuffix(ending)
    for kind in KINDS:
        if bare.endswith(kind) and (kind != ".parquet" or bare == name):
            return {".ndjson": "jsonl"}.get(kind, kind[1:])
    if Path(name).is_dir():
        raise BadInputError(f"{name}: is a folder: name a file in it (`rivulet replay` takes folders)")
    raise BadInputError(f"{name}: not .csv or .jsonl (also .gz and .zst), .parquet or -")


def expand(names: Sequence[str]) -> list[str]:
    """Files that are meant: themselves, and of a folder all recordings by name.

    Raises
    ------
    BadInputError
        If one does not exist, a folder holds none, or standard input is not the only one.
    """
    files: list[str] = []
    for name in names:
        if name == "-" and len(names) > 1:
            raise BadInputError("-: standard input is read alone")
        if not Path(name).is_dir():
            if name != "-" and not Path(name).exists():
                raise BadInputError(f"{name}: No such file or directory")
            kind_of(name)
            files.append(name)
            continue
        endings = tuple(kind + packed for kind in KINDS for packed in ("", *PACKED))
        found = sorted(str(path) for path in Path(name).iterdir() if path.name.endswith(endings))
        if not found:
            raise BadInputError(f"{name}: a folder without recordings")
        files += found
    return files


@contextmanager
def opened(name: str, meter: Meter | None = None, on_bad: OnBad = stop) -> Iterator[Iterable[bytes]]:
    """Lines of a text file.

    Parameters
    ----------
    name
        A file, or ``-``.
    meter
        Told of bytes passed.
    on_bad
        Told of a damaged frame of a recording, before the frames after it are read.

    Raises
    ------
    BadInputError
        If the file cannot be read or is damaged, also while its lines are read.
    """
    kind_of(name)
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(name, "rb") as file:
            if meter:
                meter.follow(file)
            try:
                yield _lines(name, file, on_bad)
            finally:
                if meter:
                    meter.leave()
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise BadInputError(f"{name}: {getattr(error, 'strerror', None) or error}") from error


def _lines(name: str, file: IO[bytes], on_bad: OnBad) -> Iterable[bytes]:
    if name.endswith(".gz"):
        return gzip.GzipFile(fileobj=file)
    if not name.endswith(".zst"):
        return file
    if is_recording(file):
        return (line for text in read_frames(name, file, on_bad) for line in io.BytesIO(text))
    return _unpacked(file)


def _unpacked(file: IO[bytes]) -> Iterator[bytes]:
    """Lines of zstd frames; zstandard's own reader takes a torn end for the end."""
    unpacker, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    begun = False
    while chunk := file.read(CHUNK):
        while chunk:
            begun = True
            *whole, rest = (rest + unpacker.decompress(chunk)).split(b"\n")
            for line in whole:
                yield line + b"\n"
            chunk = unpacker.unused_data if unpacker.eof else b""
            if unpacker.eof:
                unpacker, begun = zstandard.ZstdDecompressor().decompressobj(), False
    if rest:
        yield rest
    if begun:
        raise EOFError("Compressed file ended before the end of its last frame")

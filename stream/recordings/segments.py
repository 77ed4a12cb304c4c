"""The folder that ``rivulet record`` writes: numbered files, one writer, resumed where the last whole frame ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final, Self

from stream.errors import BadInputError, ConfigurationError, UnavailableError
from stream.recordings.frames import HEAD_BYTES, Mark, may_become, pack, recover

ENDING: Final = ".jsonl.zst"


class Segments:
    """Appends frames to the newest file of a folder, and begins the next when that is large or old enough.

    Each frame is written behind its mark in one go and flushed to disk before `append` returns.

    Parameters
    ----------
    folder
        Made if it is not there.
    stem
        What file names begin with.
    max_bytes, max_s
        A file that is at least so large or old is the last's predecessor; None = never.
    clock
        Seconds, for the age of a file.

    Attributes
    ----------
    mark
        Where the recording stood when the folder was opened; None if it is new.
    files
        Files begun by this writer, and the one it went on with.
    bytes
        Bytes written.

    Raises
    ------
    ConfigurationError
        If another process writes there.
    BadInputError
        If the newest file is damaged before its end.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        max_bytes: int | None = None,
        max_s: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self._stem = folder, stem
        self._max_bytes, self._max_s, self._clock = max_bytes, max_s, clock
        self.files: list[str] = []
        self.bytes = 0
        self._file: FileIO | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # recordings hold personal data
            self._lock = os.open(folder, os.O_RDONLY)
        except OSError as error:
            raise ConfigurationError(f"{folder}: {error.strerror}: a folder is needed") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.mark = self._recovered()
        except BlockingIOError:
            os.close(self._lock)
            raise ConfigurationError(f"{folder}: another process records here") from None
        except BaseException:
            os.close(self._lock)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
        os.close(self._lock)

    def append(self, mark: Mark, lines: bytes) -> None:
        """Write some lines with the mark that holds after them.

        Raises
        ------
        UnavailableError
            If the disk takes no more; what was half written is cut off again.
        """
        data = pack(mark, lines)
        try:
            file = self._file if self._file and not self._is_done() else self._begin()
            start = file.tell()
            try:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), start)
                raise
        except OSError as error:
            raise UnavailableError(f"{self.folder}: {error.strerror}: start again when there is room") from error
        self.bytes += len(data)

    def _recovered(self) -> Mark | None:
        """Cut off what is not whole, and go on in the newest file that has a mark."""
        for path in sorted(self.folder.glob(f"*{ENDING}"), reverse=True):
            mark, whole = recover(path)
            if mark is None:
                with path.open("rb") as file:
                    if not may_become(file.read(HEAD_BYTES)):
                        raise BadInputError(f"{path}: is no recording of a topic: record into another folder")
                path.unlink()  # begun by a writer that was killed before it said anything
                continue
            self._open(path, whole)
            return mark
        return None

    def _number(self, path: Path) -> int | None:
        digits = path.name.removesuffix(ENDING).rpartition("-")[2]
        return int(digits) if len(digits) == 6 and digits.isdecimal() else None

    def _open(self, path: Path, size: int) -> None:
        self._file = FileIO(path, "r+")  # unbuffered: what a write returns from is with the system
        self._file.truncate(size)
        self._file.seek(size)
        self._began = self._clock()
        self.files.append(path.name)

    def _is_done(self) -> bool:
        assert self._file
        large = self._max_bytes is not None and self._file.tell() >= self._max_bytes
        return large or (self._max_s is not None and self._clock() - self._began >= self._max_s)

    def _begin(self) -> FileIO:
        if self._file:
            self._file.close()
        numbers = (self._number(path) for path in self.folder.glob(f"*{ENDING}"))
        number = max((n for n in numbers if n is not None), default=-1) + 1
        path = self.folder / f"{self._stem}-{number:06d}{ENDING}"
        path.touch(mode=0o600, exist_ok=False)
        self._open(path, 0)
        os.fsync(self._lock)
        assert self._file
        return self._file

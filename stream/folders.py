"""Where files of snapshots lie: a folder of this machine, or any other place that fsspec has a protocol for."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import fsspec  # type: ignore[import-untyped]  # no py.typed


class Found(NamedTuple):
    """A file of a folder."""

    name: str
    nbytes: int


class Folder(ABC):
    """A flat folder of immutable files.

    Attributes
    ----------
    scratch
        Where files are written before they are stored; on this machine.
    """

    scratch: Path

    @abstractmethod
    def check(self) -> None:
        """OSError unless it can be used; local ones are tried with a file."""

    @abstractmethod
    def files(self) -> list[Found]:
        """All files, in any order."""

    @abstractmethod
    def store(self, scratch: Path, name: str) -> None:
        """Take over a complete file under a name; nobody ever sees half of it. Durable when it returns."""

    @abstractmethod
    def local(self, name: str) -> Any:
        """Context manager that gives the path of a file on this machine; FileNotFoundError if it is gone."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Delete a file; harmless if it is gone."""


class LocalFolder(Folder):
    """A folder of a local or mounted file system, created when missing."""

    def __init__(self, path: Path) -> None:
        self.scratch = path
        path.mkdir(parents=True, exist_ok=True)

    def check(self) -> None:
        """See `Folder`."""
        with tempfile.TemporaryFile(dir=self.scratch):
            pass

    def files(self) -> list[Found]:
        """See `Folder`."""
        found = []
        for entry in os.scandir(self.scratch):
            with suppress(FileNotFoundError):  # another worker prunes
                found.append(Found(entry.name, entry.stat().st_size))
        return found

    def store(self, scratch: Path, name: str) -> None:
        """See `Folder`."""
        scratch.replace(self.scratch / name)
        handle = os.open(self.scratch, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        yield self.scratch / name

    def remove(self, name: str) -> None:
        """See `Folder`."""
        (self.scratch / name).unlink(missing_ok=True)


class RemoteFolder(Folder):
    """A folder behind an fsspec protocol (``s3://bucket/path``, ``memory://path`` ...): one put per file."""

    def __init__(self, files: Any, path: str) -> None:
        self._files, self._path = files, path
        self.scratch = Path(tempfile.gettempdir())

    def check(self) -> None:
        """See `Folder`."""
        self.files()

    def files(self) -> list[Found]:
        """See `Folder`."""
        with _os_errors(self._path):
            self._files.invalidate_cache()
            try:
                entries = self._files.ls(self._path, detail=True)
            except FileNotFoundError:  # object stores have no empty folders
                return []
        return [Found(entry["name"].rpartition("/")[2], entry["size"]) for entry in entries if entry["type"] == "file"]

    def store(self, scratch: Path, name: str) -> None:
        """See `Folder`."""
        with _os_errors(self._path):
            self._files.makedirs(self._path, exist_ok=True)
            self._files.put_file(str(scratch), f"{self._path}/{name}")

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """See `Folder`."""
        with tempfile.TemporaryDirectory(prefix="rivulet-") as folder:
            copy = Path(folder) / name
            with _os_errors(self._path):
                self._files.get_file(f"{self._path}/{name}", str(copy))
            yield copy

    def remove(self, name: str) -> None:
        """See `Folder`."""
        with suppress(FileNotFoundError), _os_errors(self._path):
            self._files.rm_file(f"{self._path}/{name}")


@contextmanager
def _os_errors(where: str) -> Iterator[None]:
    """Every library behind fsspec has errors of its own; to us they are all a disk that does not work."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{where}: {error!r}") from error


def folder(url: Path | str) -> Folder:
    """The folder behind a path or URL.

    Raises
    ------
    OSError
        A local one cannot be created.
    ValueError, ImportError
        The protocol is unknown, or its package is not installed.
    """
    if "://" not in str(url):
        return LocalFolder(Path(url))
    files, path = fsspec.core.url_to_fs(str(url))
    local = "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol)
    return LocalFolder(Path(path)) if local else RemoteFolder(files, path.rstrip("/"))

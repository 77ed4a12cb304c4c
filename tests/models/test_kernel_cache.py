"""Numba unpickles and runs what lies in the cache of kernels: it must be a folder of this user alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from models.kernel_cache import KernelCacheError, cache_folder, private_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home beside an empty temporary folder, in the eyes of this process."""
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "home"


@pytest.fixture
def shared(home: Path) -> Path:
    """The folder that is left without a home."""
    home.rmdir()
    home.touch()
    return home.with_name("tmp") / f"rivulet-kernels-{os.getuid()}"


def mode(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def test_it_is_where_it_is_set_else_beside_sources_that_can_be_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIVULET_KERNEL_CACHE", str(home / "mine"))
    said = cache_folder()
    assert said.parent == home / "mine"
    monkeypatch.delenv("RIVULET_KERNEL_CACHE")
    monkeypatch.setattr(os, "access", lambda path, how: True)
    assert cache_folder().parts[-4:] == ("models", "__pycache__", "kernels", said.name)
    monkeypatch.setattr(os, "access", lambda path, how: False)
    assert cache_folder() == home / ".cache" / "rivulet" / "kernels" / said.name


@pytest.mark.parametrize("given", [None, "", "relative"])
def test_a_private_one_is_in_the_users_cache(home: Path, given: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if given is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert private_folder() == home / ".cache" / "rivulet" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    folder = private_folder()
    assert (folder, mode(folder)) == (home / "cache" / "rivulet" / "kernels", 0o700)


def test_without_a_home_it_is_in_the_temporary_folder_and_found_again(shared: Path) -> None:
    assert private_folder() == shared
    assert mode(shared) == 0o700
    assert private_folder() == shared


def others_may_write(shared: Path) -> None:
    shared.mkdir()
    shared.chmod(0o777)


def a_link(shared: Path) -> None:
    elsewhere = shared.with_name("elsewhere")
    elsewhere.mkdir(mode=0o700)
    shared.symlink_to(elsewhere)


@pytest.mark.parametrize("prepare", [others_may_write, a_link, Path.touch])
def test_one_that_may_be_anothers_is_refused(shared: Path, prepare: Callable[[Path], None]) -> None:
    prepare(shared)
    with pytest.raises(KernelCacheError, match=rf"^no safe folder .*{shared.name}.*; set RIVULET_KERNEL_CACHE$"):
        private_folder()


def test_one_of_another_user_is_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = os.getuid() + 1
    shared.with_name(f"rivulet-kernels-{other}").mkdir(mode=0o700)
    monkeypatch.setattr(os, "getuid", lambda: other)
    with pytest.raises(KernelCacheError, match="is not this user's alone"):
        private_folder()

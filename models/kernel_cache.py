"""Where compiled kernels are kept. Numba unpickles and runs what lies there, so nobody else may write to it.

It does not notice when a helper in *another* file was edited: the stale code keeps running. The folder is therefore
named by a hash of all sources that can hold kernels.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


class KernelCacheError(Exception):
    """There is no folder that nobody else can write to; the message is one line that says what to do."""


def cache_folder() -> Path:
    """Folder for the kernels of these sources: where it is set, else beside them if writable, else a private one."""
    root = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=8)
    for source in sorted([*root.glob("*.py"), *root.parent.glob("stream/**/*.py")]):
        text = source.read_bytes()
        if b"models.kernel import" in text or root in source.parents:  # kernels take over constants of other modules
            digest.update(text)
    base = os.environ.get("RIVULET_KERNEL_CACHE")
    if base:
        folder = Path(base)
    elif os.access(root, os.W_OK):
        folder = root / "__pycache__" / "kernels"
    else:
        folder = private_folder()
    return folder / digest.hexdigest()


def private_folder() -> Path:
    """Make the user's cache folder, or find it; without a home that can be written, one in the temporary folder.

    Raises
    ------
    KernelCacheError
        If there is neither, or the latter is not this user's alone: its name can be guessed and taken by others.
    """
    with suppress(OSError, RuntimeError):
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # counts only if absolute, says its specification
        return _own((given if given.is_absolute() else Path.home() / ".cache") / "rivulet" / "kernels")
    try:
        return _own(Path(tempfile.gettempdir()) / f"rivulet-kernels-{os.getuid()}")
    except OSError as error:
        raise KernelCacheError(f"no safe folder for compiled kernels: {error}; set RIVULET_KERNEL_CACHE") from error


def _own(folder: Path) -> Path:
    """Make a folder of this user alone, or see that it is one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder

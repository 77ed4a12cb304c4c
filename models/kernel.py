"""The one place where Numba is configured: every hot loop of the project is compiled by :func:`kernel`.

Numba caches machine code per function and does not notice when a helper in *another* file was edited: the stale code
keeps running. The cache folder is therefore keyed by a hash of all sources that can hold kernels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

F = TypeVar("F", bound=Callable[..., object])


def _cache_folder() -> Path:
    """Folder for compiled kernels: beside the sources if writable, else a private one of this user."""
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
        folder = Path(tempfile.gettempdir()) / f"rivulet-kernels-{os.getuid()}"
    return folder / digest.hexdigest()


CACHE_FOLDER = _cache_folder()
os.environ.setdefault("NUMBA_CACHE_DIR", str(CACHE_FOLDER))

import numba  # noqa: E402  (the cache folder must be known before numba reads its configuration)

numba.config.CACHE_DIR = os.environ["NUMBA_CACHE_DIR"]  # type: ignore[attr-defined]  # set at import by numba


def kernel(function: F) -> F:
    """Compile a hot loop: cached on disk, GIL released, strict IEEE arithmetic (sums must be exact), inlined.

    Kernels are made of small kernels. Each array handed to one that is not inlined costs some 10 ns (its fields are
    copied, its references counted), more than the work of most: learning and ranking were a quarter slower so.

    Parameters
    ----------
    function
        A function over NumPy arrays and scalars, without Python objects.

    Returns
    -------
    F
        The compiled function with the same signature. The first call compiles (seconds), later processes read the
        cache (milliseconds).
    """
    return _compiled(function)


def lean_kernel(function: F) -> F:
    """Compile a `kernel` that makes no array (nor do the kernels it calls): without counting references.

    Numba counts a reference whenever an array is taken out of a tuple, in the innermost loop too, with an atomic
    instruction; what it does not prove superfluous stays. Ranking a list was a third slower so. A kernel that makes
    an array after all does not compile.
    """
    return _compiled(function, _nrt=False)


def _compiled(function: F, **more: bool) -> F:
    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "forceinline": True, **more}
    return cast(F, numba.njit(**options)(function))

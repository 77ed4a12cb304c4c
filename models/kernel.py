"""The one place where Numba is configured: every hot loop of the project is compiled by :func:`kernel`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from models.kernel_cache import cache_folder

F = TypeVar("F", bound=Callable[..., object])

if "NUMBA_CACHE_DIR" not in os.environ:
    os.environ["NUMBA_CACHE_DIR"] = str(cache_folder())

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

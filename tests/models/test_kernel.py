"""Every hot loop of the project is compiled by `models.kernel`, and lets other threads run meanwhile."""

from __future__ import annotations

import importlib
import pkgutil

from numba.core.dispatcher import Dispatcher

import models
import stream


def kernels() -> dict[str, Dispatcher]:
    """All compiled functions by name."""
    found = {}
    for package in (models, stream):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "faust_app")):  # which do something when imported
                for value in vars(importlib.import_module(module.name)).values():
                    if isinstance(value, Dispatcher):
                        found[f"{value.py_func.__module__}.{value.py_func.__name__}"] = value
    return found


def test_kernels_release_the_lock_of_the_interpreter() -> None:
    """With it held for 9 s a worker sent no heartbeat and was evicted."""
    compiled = kernels()
    assert len(compiled) > 50
    assert [name for name, kernel in compiled.items() if not kernel.targetoptions.get("nogil")] == []

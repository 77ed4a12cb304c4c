"""``rivulet compile``: compile the kernels ahead, so that the first event does not wait for them."""

from __future__ import annotations

from rich.progress import BarColumn, TextColumn

from stream.cli.showing import showing
from stream.compilation import STEPS, compile_kernels


def compile_() -> None:
    """Compile every kernel into the cache (about a minute once after each update).

    Example: rivulet compile
    """
    compile_with_progress()


def compile_with_progress(what: str = "compiling kernels") -> None:
    """Compile every kernel, or load it from the cache, and show how far that is to who watches."""
    with showing(BarColumn(), TextColumn("{task.description}")) as progress:
        task = progress.add_task(what, total=len(STEPS))
        compile_kernels(lambda step: progress.update(task, advance=1, description=f"compiled: {step}"))

"""``rivulet compile``: compile the kernels ahead, so that the first event does not wait for them."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from stream.compilation import STEPS, compile_kernels


def compile_() -> None:
    """Compile every kernel into the cache (about half a minute once after each update).

    Example: rivulet compile
    """
    compile_with_progress()


def compile_with_progress() -> None:
    """Compile every kernel, or load it from the cache, and show how far that is to who watches."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("compiling kernels", total=len(STEPS))
        compile_kernels(lambda step: progress.update(task, advance=1, description=f"compiled: {step}"))

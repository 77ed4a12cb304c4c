"""How verbs show that they get on: on stderr, to who watches. stdout is for results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn


def showing(*columns: ProgressColumn, keep: bool = False) -> Progress:
    """A line, or a bar, with the time it takes; nothing where stderr is no terminal, with or without ``--json``.

    Parameters
    ----------
    columns
        What it says between spinner and time.
    keep
        Whether its last state stays on the screen.
    """
    console = Console(stderr=True)
    row = (SpinnerColumn(finished_text="✓"), *columns, TimeElapsedColumn())
    return Progress(*row, console=console, transient=not keep, disable=not console.is_terminal)


@contextmanager
def waiting(what: str) -> Iterator[Callable[[str], None]]:
    """Show what is waited for, where nobody knows how long; gives a function that says something else."""
    with showing(TextColumn("{task.description}")) as progress:
        task = progress.add_task(what, total=None)
        yield lambda text: progress.update(task, description=text)

"""``--skip-bad``: what verbs that read files do about damaged input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Console

from stream.errors import BadInputError
from stream.recordings.files import stop

SHOWN: Final = 20  # damaged lines told one by one


@dataclass(slots=True)
class Skipped:
    """Damaged input: the first of it ends the run, or all of it is told and counted."""

    skip: bool
    console: Console
    count: int = 0

    def __call__(self, error: BadInputError) -> None:
        """Tell of damage, or end the run."""
        if not self.skip:
            stop(error)
        self.count += 1
        if self.count <= SHOWN:
            self.console.print(f"skipped: {error}", markup=False, highlight=False, soft_wrap=True)

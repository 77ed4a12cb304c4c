"""Work in steps: a generator that yields where others may run in between, and returns what it has made."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")
Stepwise = Generator[None, None, T]


def at_once(work: Stepwise[T]) -> T:
    """Do it without a pause.

    Examples
    --------
    >>> def count() -> Stepwise[int]:
    ...     yield
    ...     return 2
    >>> at_once(count())
    2
    """
    while True:
        try:
            next(work)
        except StopIteration as end:
            made: T = end.value
            return made

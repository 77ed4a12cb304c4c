"""Keeps the log readable while a broker is away: aiokafka repeats itself 75 times a second then."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

NAMES: Final = ("aiokafka", "faust", "mode")


class QuietRepeats(logging.Filter):
    """Lets the same message of a chatty library through once in a while, with the number of those left out.

    Messages are the same if logger and format string are; addresses and errors in them may differ. Attach it to a
    handler: filters of a logger do not see what its children log. Memory: one entry per format string of the libraries.

    Parameters
    ----------
    every_s
        Seconds between two of the same.
    names
        Loggers, children included, that are quietened; all others pass.
    clock
        Monotonic seconds.

    Examples
    --------
    >>> handler = logging.StreamHandler()
    >>> handler.addFilter(QuietRepeats())
    """

    def __init__(
        self, every_s: float = 10.0, names: tuple[str, ...] = NAMES, clock: Callable[[], float] = monotonic
    ) -> None:
        super().__init__()
        self._every_s, self._names, self._clock = every_s, names, clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is written."""
        if record.levelno < logging.WARNING or record.name.split(".")[0] not in self._names:
            return True
        key, now = (record.name, str(record.msg)), self._clock()
        written_at, left_out = self._seen.get(key, (-self._every_s, 0))
        if now - written_at < self._every_s:
            self._seen[key] = (written_at, left_out + 1)
            return False
        self._seen[key] = (now, 0)
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out} more like this in {now - written_at:.0f} s)"
            record.args = None
        return True

"""The pace of a replay: event time against the clock, at a speed that may be changed at any moment."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from stream.errors import BadInputError

PAUSE: Final = 0.0


def parse_speed(text: str) -> float | None:
    """Times faster than recorded; None for ``max``, 0 for ``pause``.

    Raises
    ------
    BadInputError
        If the text is neither of these nor a number above 0.

    Examples
    --------
    >>> parse_speed("2.5"), parse_speed("max"), parse_speed("pause")
    (2.5, None, 0.0)
    """
    if text in ("max", "pause"):
        return None if text == "max" else PAUSE
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise BadInputError(f"--speed takes a number above 0, max or pause, not {text!r}")
    return value


class Pacer:
    """Makes each event wait for its time.

    Parameters
    ----------
    speed
        Times faster than recorded; None = no waiting, 0 = standing still.
    clock
        Seconds, never backwards.
    """

    def __init__(self, speed: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.speed = speed
        self._clock = clock
        self._began: float | None = None
        self._from_us = 0
        self._last_us = 0
        self._changed = asyncio.Event()

    def set(self, speed: float | None) -> None:
        """Go on at another speed from where the replay stands now."""
        if self._began is not None:
            passed_us = (self._clock() - self._began) * 1e6 * (self.speed or 0)
            self._from_us = self._last_us if self.speed is None else self._from_us + round(passed_us)
            self._began = self._clock()
        self.speed = speed
        self._changed.set()

    def wait_s(self, ts_us: int) -> float | None:
        """Seconds until an event's time has come at the present speed, at most 0 if it has; None = not while paused."""
        if self._began is None:
            self._began, self._from_us = self._clock(), ts_us
        if self.speed is None:
            return 0.0
        if self.speed == PAUSE:
            return None
        return (ts_us - self._from_us) / 1e6 / self.speed - (self._clock() - self._began)

    async def until(self, ts_us: int) -> None:
        """Wait for an event's time."""
        while (wait := self.wait_s(ts_us)) is None or wait > 0:
            self._changed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)
        self._last_us = ts_us


def steer(pacer: Pacer, told: Callable[[str], None], fd: int = 0) -> None:
    """Take a new speed from each line of a descriptor, in a thread, until it ends.

    Parameters
    ----------
    pacer
        What is steered; call this in its event loop.
    told
        Told in words what became of a line.
    fd
        Read without Python's buffers, whose lock would hold up the end of the process.
    """
    loop = asyncio.get_running_loop()

    def take(line: str) -> None:
        try:
            pacer.set(parse_speed(line))
        except BadInputError as error:
            told(str(error))
        else:
            told(f"speed {line}")

    def listen() -> None:
        rest = b""
        while chunk := os.read(fd, 4096):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if line.strip():
                    try:
                        loop.call_soon_threadsafe(take, line.strip().decode(errors="replace"))
                    except RuntimeError:  # the replay is over
                        return

    threading.Thread(target=listen, name="speeds", daemon=True).start()

"""A server as a child process that never outlives its parent, however the parent ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

STOP_S: Final = 20.0
LOG_NAME: Final = "log.txt"


class Child:
    """A running server with its folder, and a guard that kills it and deletes the folder once this process is gone.

    Both run in sessions of their own: Ctrl-C in a terminal reaches this process only, which then ends the server when
    everything is flushed. The guard's input is a pipe from this process; the kernel closes it at any end, SIGKILL
    included.

    Parameters
    ----------
    command
        The program and its arguments.
    folder
        Existing folder: working directory, and place of the log.
    env
        Variables on top of this process's own.
    """

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        with (folder / LOG_NAME).open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                env=None if env is None else os.environ | env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard = subprocess.Popen(
            ["sh", "-c", 'cat >/dev/null; kill -9 "$1"; rm -rf "$2"', "sh", str(self._process.pid), str(folder)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        return self._process.poll() is None

    def log_end(self) -> str:
        """Last 2,000 characters of what the server printed."""
        return (self.folder / LOG_NAME).read_text(errors="replace")[-2000:]

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Return when ``ready``.

        Raises
        ------
        RuntimeError
            If the server ended, or ``timeout`` seconds passed; with the end of its log.
        """
        end = time.monotonic() + timeout
        while not ready():
            if not self.running or time.monotonic() > end:
                what = f"gave no answer in {timeout:g} s" if self.running else "ended while starting"
                raise RuntimeError(f"{Path(str(self._process.args[0])).name} {what}: {self.log_end()}")  # type: ignore[index]  # args is the list given above
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process still exists."""
        if self.running:
            os.kill(self._process.pid, number)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End the server and its guard and wait for both; SIGKILL follows after 20 s."""
        self._guard.kill()
        self._guard.communicate()
        self.send(number)
        self.send(signal.SIGCONT)  # a paused server would not see SIGTERM
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

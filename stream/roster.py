"""The workers' own fields in `rv:meta`: kept alive, taken out on the way out, and expired for those who could not."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from stream.errors import RivuletError
from stream.resp import WriteBatch

if TYPE_CHECKING:
    from stream.app import Worker

BEAT_S: Final = 60.0  # a worker with nothing to tell says at least that it runs
EXPIRE_S: Final = 300.0  # a field that has not changed for so long is of a worker that ended without a word
LEAVE_S: Final = 1.0
PREFIX: Final = b"worker-"

log = structlog.get_logger(__name__)


def worker_name(pid: int) -> str:
    """What a process of this machine is called: in two containers pids may be the same."""
    return f"{pid}@{socket.gethostname()}"


class Roster:
    """Looks after the fields ``worker-<pid>@<host>`` of `rv:meta`.

    A dead worker's field is told by its standing still, not by a time in it: clocks of machines differ.

    Parameters
    ----------
    worker
        Whose field is told, and whose store is used.
    clock
        Monotonic seconds.
    """

    def __init__(self, worker: Worker, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._began = clock()
        self._beat_at = self._look_at = self._began
        self._seen: dict[bytes, tuple[bytes, float]] = {}
        self._left = False
        self.name: Final = worker_name(os.getpid())
        self.field: Final = PREFIX + self.name.encode()

    @property
    def up_s(self) -> int:
        """Seconds since this worker began: what changes in its field with each beat."""
        return round(self._clock() - self._began)

    def due(self, *, moved: bool) -> bool:
        """Whether this worker's field is to be told; never once it has left."""
        return not self._left and (moved or self._clock() >= self._beat_at)

    def told(self) -> None:
        """It was."""
        self._beat_at = self._clock() + BEAT_S

    async def sweep(self) -> None:
        """Once a minute, if this worker is the one to do it, take out the fields that have long stood still."""
        worker, now = self._worker, self._clock()
        if now < self._look_at or not (worker.globe.owned and worker.host.may_write()):
            return
        self._look_at = now + BEAT_S
        found = await worker.store.hgetall(worker.keys.meta)
        fields = {name: value for name, value in found.items() if name.startswith(PREFIX) and name != self.field}
        known = self._seen
        self._seen = {
            name: known[name] if name in known and known[name][0] == value else (value, now)
            for name, value in fields.items()
        }
        gone = [name for name, (_, since) in self._seen.items() if now - since >= EXPIRE_S]
        if gone:
            await self._drop(*gone)
            log.info("dead_workers_dropped", workers=[name.decode() for name in gone])

    async def leave(self) -> None:
        """Take out this worker's field, if Redis answers at once; else a successor will."""
        self._left = True
        with suppress(TimeoutError, RivuletError):
            async with asyncio.timeout(LEAVE_S):
                await self._drop(self.field)

    async def _drop(self, *fields: bytes) -> None:
        batch = WriteBatch()
        batch.hdel(self._worker.keys.meta, fields)
        await self._worker.store.flush(batch)

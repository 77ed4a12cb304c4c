from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from structlog.testing import capture_logs

from stream.background import Background
from stream.errors import ConfigurationError, UnavailableError
from stream.settings import Settings
from tests.patience import PATIENCE_S


class Worker:
    """What background work touches of a worker."""

    def __init__(self) -> None:
        self.crashed: list[BaseException] = []
        self.settings = Settings()
        self.broadcast = self.item_writer = SimpleNamespace(run=None)
        self.tasks: list[Any] = []
        self.app = SimpleNamespace(task=self.tasks.append, crash=self.crash, should_stop=False)

    async def crash(self, error: BaseException) -> None:
        self.crashed.append(error)


async def test_what_is_refused_for_good_ends_the_worker_and_what_passes_does_not() -> None:
    worker = Worker()
    background = Background(cast(Any, worker))

    async def failing(error: Exception) -> None:
        raise error

    async def passing() -> None:
        pass

    await background._carefully("publish", failing(UnavailableError("Kafka did not acknowledge")))
    assert worker.crashed == []
    with capture_logs() as lines:
        await background._carefully("publish", failing(UnavailableError("Kafka did not acknowledge")))
        await background._carefully("publish", passing())
        await background._carefully("publish", passing())
    assert [line["event"] for line in lines] == ["background_work_goes_on"]
    refused = ConfigurationError("Kafka refuses records for global")
    await background._carefully("publish", failing(refused))
    assert worker.crashed == [refused]


async def test_work_that_is_cancelled_from_within_begins_again_until_the_worker_stops() -> None:
    worker = Worker()
    begun, third = 0, asyncio.Event()

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun == 3:
            third.set()
            await asyncio.Event().wait()
        stray = asyncio.get_running_loop().create_future()
        stray.cancel()
        await stray

    worker.item_writer = SimpleNamespace(run=run)
    Background(cast(Any, worker))
    async with asyncio.timeout(PATIENCE_S):
        with capture_logs() as lines:
            task = asyncio.create_task(worker.tasks[1]())
            await third.wait()
        worker.app.should_stop = True
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert [line["event"] for line in lines] == 2 * ["background_work_failed", "background_work_goes_on"]
    assert lines[0]["reason"] == "cancelled, and nobody asked for it"

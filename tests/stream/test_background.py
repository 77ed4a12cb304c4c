from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from structlog.testing import capture_logs

from stream.background import Background
from stream.errors import ConfigurationError, UnavailableError
from stream.settings import Settings


class Worker:
    """What background work touches of a worker."""

    def __init__(self) -> None:
        self.crashed: list[BaseException] = []
        self.settings = Settings()
        self.broadcast = self.item_writer = SimpleNamespace(run=None)
        self.app = SimpleNamespace(task=lambda _: None, crash=self.crash)

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

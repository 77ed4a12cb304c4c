"""A worker whose user stage waits for ever, as a lost answer would make it: ``python -m tests.stalled_worker``."""

from __future__ import annotations

import asyncio
from typing import Any

from stream import logs
from stream.app import Worker, serve
from stream.settings import Settings


async def hang(*_: Any) -> None:
    await asyncio.Event().wait()


def main() -> None:
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    worker = Worker(settings)
    worker.user_agent.process = hang  # type: ignore[assignment,method-assign]  # the fault
    serve(worker)


if __name__ == "__main__":
    main()

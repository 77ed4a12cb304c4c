"""A worker that applies no `covisits` until a file is there: ``python -m tests.held_worker FILE``.

Whenever its gate finds them too far behind, it says so in its log.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from stream import logs
from stream.app import Worker, serve
from stream.fetches import ConsumerRecord
from stream.settings import Settings
from stream.shard import Shard

BEHIND = "covisits_behind"


def hold(worker: Worker, file: Path) -> None:
    """Put a wait before the item stage, and an ear at the gate."""
    agent, gate, log = worker.item_agent, worker.gate, structlog.get_logger(__name__)
    process, lag = agent.process, gate.lag

    async def held(shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        closed = True
        while closed:
            closed = not await asyncio.to_thread(file.exists)  # the test makes it, in another process
            agent.moved.set()  # so that the gate looks again
            await asyncio.sleep(0.05)
        await process(shard, records)

    def overheard() -> int:
        found = lag()
        if found > worker.settings.skew_records:
            log.info(BEHIND, records=found)
        return found

    agent.process, gate.lag = held, overheard  # type: ignore[method-assign]  # the fault


def main() -> None:
    file = Path(sys.argv.pop())
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    worker = Worker(settings)
    hold(worker, file)
    serve(worker)


if __name__ == "__main__":
    main()

from __future__ import annotations

import asyncio
import threading
import time

from stream.watchdog import EXIT_CODE, Watchdog


async def exits_within(seconds: float, watchdog: Watchdog, exits: list[int]) -> bool:
    watchdog.start()
    end = time.monotonic() + seconds
    while not exits and time.monotonic() < end:  # noqa: ASYNC110  # a thread appends
        await asyncio.sleep(0.01)
    return bool(exits)


async def test_reason_that_lasts_ends_the_process() -> None:
    exits: list[int] = []
    watchdog = Watchdog(asyncio.get_running_loop(), lambda: "no flow", 0.2, exits.append)
    assert await exits_within(5, watchdog, exits)
    assert exits == [EXIT_CODE]


def test_loop_that_stands_still_ends_the_process() -> None:
    exited = threading.Event()

    async def block() -> None:
        Watchdog(asyncio.get_running_loop(), lambda: None, 0.2, lambda _: exited.set()).start()
        assert exited.wait(5)

    asyncio.run(block())


async def test_reason_that_comes_and_goes_does_not() -> None:
    exits: list[int] = []
    turns = iter(range(10_000))
    watchdog = Watchdog(asyncio.get_running_loop(), lambda: "no flow" if next(turns) % 2 else None, 0.2, exits.append)
    assert not await exits_within(1, watchdog, exits)


def test_thread_ends_with_its_loop() -> None:
    async def start() -> Watchdog:
        watchdog = Watchdog(asyncio.get_running_loop(), lambda: None, 1.0, lambda _: None)
        watchdog.start()
        return watchdog

    watchdog = asyncio.run(start())
    watchdog.join(5)
    assert not watchdog.is_alive()

from __future__ import annotations

import asyncio
import threading
import time

from stream.watchdog import EXIT_CODE, Standstill, Watchdog


def nothing(_: float) -> None:
    """All is well."""


async def exits_within(seconds: float, watchdog: Watchdog, exits: list[int]) -> bool:
    watchdog.start()
    end = time.monotonic() + seconds
    while not exits and time.monotonic() < end:  # noqa: ASYNC110  # a thread appends
        await asyncio.sleep(0.01)
    return bool(exits)


async def test_what_stands_still_for_too_long_ends_the_process() -> None:
    exits: list[int] = []
    ages = iter([0.1, 0.2, 0.3])
    watchdog = Watchdog(asyncio.get_running_loop(), lambda _: Standstill("x", next(ages)), 0.2, exits.append)
    assert await exits_within(5, watchdog, exits)
    assert exits == [EXIT_CODE]
    assert next(ages, None) is None


async def test_what_stands_still_for_less_does_not() -> None:
    exits: list[int] = []
    watchdog = Watchdog(asyncio.get_running_loop(), lambda _: Standstill("x", 0.2), 0.2, exits.append)
    assert not await exits_within(1, watchdog, exits)


def test_loop_that_stands_still_ends_the_process() -> None:
    exited = threading.Event()

    async def block() -> None:
        Watchdog(asyncio.get_running_loop(), nothing, 0.2, lambda _: exited.set()).start()
        assert exited.wait(5)

    asyncio.run(block())


def test_a_loop_that_was_held_up_is_felt_once_not_once_per_missed_beat() -> None:
    beats: list[float] = []

    async def hold_up() -> None:
        Watchdog(asyncio.get_running_loop(), beats.append, 2.0, lambda _: None).start()
        time.sleep(1.2)  # noqa: ASYNC251  # the loop stands still, for less than the patience
        await asyncio.sleep(0.1)

    asyncio.run(hold_up())
    assert len(beats) == 1
    assert beats[0] >= 1.0


def test_thread_ends_with_its_loop() -> None:
    async def start() -> Watchdog:
        watchdog = Watchdog(asyncio.get_running_loop(), nothing, 1.0, lambda _: None)
        watchdog.start()
        return watchdog

    watchdog = asyncio.run(start())
    watchdog.join(5)
    assert not watchdog.is_alive()

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from stream.watchdog import EXIT_CODE, Standstill, Watchdog
from tests.patience import PATIENCE_S


def nothing(_: float) -> None:
    """All is well."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats without a pause to speak of; the patience stays that of a loop which is held up by a busy machine."""
    init = Watchdog.__init__

    def instead(self: Watchdog, *arguments: Any) -> None:
        init(self, *arguments)
        self._pause_s = 0.01

    monkeypatch.setattr(Watchdog, "__init__", instead)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # a thread appends
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("quick")
async def test_what_stands_still_for_too_long_ends_the_process_and_for_less_it_does_not() -> None:
    exits: list[int] = []
    ages = iter([0.1, PATIENCE_S / 2, *[PATIENCE_S] * 20, 1.01 * PATIENCE_S])
    Watchdog(asyncio.get_running_loop(), lambda _: Standstill("x", next(ages)), PATIENCE_S, exits.append).start()
    await until(lambda: bool(exits))
    assert exits == [EXIT_CODE]
    assert next(ages, None) is None


def test_loop_that_stands_still_ends_the_process() -> None:
    exited = threading.Event()

    async def block() -> None:
        Watchdog(asyncio.get_running_loop(), nothing, 0.2, lambda _: exited.set()).start()
        assert exited.wait(PATIENCE_S)

    asyncio.run(block())


@pytest.mark.usefixtures("quick")
def test_a_loop_that_was_held_up_is_felt_once_not_once_per_missed_beat() -> None:
    beats: list[float] = []
    exits: list[int] = []

    async def hold_up() -> list[float]:
        watchdog = Watchdog(asyncio.get_running_loop(), beats.append, PATIENCE_S, exits.append)
        watchdog.start()
        while watchdog._silent_s < 0.3:  # the loop stands still, for less than the patience
            time.sleep(0.001)  # noqa: ASYNC251
        await asyncio.sleep(0)
        return list(beats)

    (beat,) = asyncio.run(hold_up())
    assert 0.3 <= beat < 1
    assert exits == []


def test_thread_ends_with_its_loop() -> None:
    async def start() -> Watchdog:
        watchdog = Watchdog(asyncio.get_running_loop(), nothing, 1.0, lambda _: None)
        watchdog.start()
        return watchdog

    watchdog = asyncio.run(start())
    watchdog.join(PATIENCE_S)
    assert not watchdog.is_alive()

"""Replays recorded streams through Kafka, at the recorded pace or as fast as the workers keep up; and republishes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stream.events import timestamp_us
from stream.kafka import careful_producer, client_options
from stream.producer import EventProducer
from stream.progress import Progress
from stream.settings import Settings
from stream.wire import FLUSH

MAX_LAG = 20_000  # records published ahead of the workers; the demo's broker keeps about 5 MB per partition
LOOK_EVERY = 500  # records between two looks at the lag
RANK_ALL = b'{"control":"rank_all"}'
PUBLICATIONS = (("covisits", FLUSH, "neighbours"), ("events", RANK_ALL, "lists of all users"))


@dataclass(slots=True)
class Pace:
    """Where a replay stands.

    Attributes
    ----------
    sent
        Events published.
    lag
        Published events that no worker has included yet.
    """

    sent: int = 0
    lag: int = 0


Report = Callable[[Pace], None]


async def replay(
    settings: Settings,
    events: Iterable[Mapping[str, Any]],
    speed: float | None,
    report: Report = lambda _: None,
) -> Pace:
    """Publish recorded events in order, throttled by lag, and wait until the workers have drained them.

    Parameters
    ----------
    settings
        Addresses and names.
    events
        Events in our schema, by rising time.
    speed
        Times faster than recorded; None = as fast as the workers keep up.
    report
        Called now and then with the state.

    Returns
    -------
    Pace
        The final state.
    """
    pace = Pace()
    began = time.monotonic()
    first_us: int | None = None
    async with (
        Progress(settings) as progress,
        EventProducer(settings.kafka, settings.topic("events"), **client_options(settings)) as producer,
    ):
        before = sum((await progress.ends("events")).values())
        for event in events:
            if speed is not None:
                ts = timestamp_us(event["event_timestamp"])
                first_us = ts if first_us is None else first_us
                wait = (ts - first_us) / 1e6 / speed - (time.monotonic() - began)
                if wait > 0:
                    await asyncio.sleep(wait)
            await producer.send_soon(event)
            pace.sent += 1
            if pace.sent % LOOK_EVERY == 0:
                await _throttle(progress, pace, before, report)
        await producer.flush()

        def note(missing: int) -> None:
            pace.lag = missing
            report(pace)

        await progress.drained(note)
    return pace


async def _throttle(progress: Progress, pace: Pace, before: int, report: Report) -> None:
    """Wait while the workers are too far behind."""
    while True:
        pace.lag = before + pace.sent - sum((await progress.included("events")).values())
        report(pace)
        if pace.lag < MAX_LAG:
            return
        await asyncio.sleep(0.05)


async def republish(settings: Settings, report: Callable[[str], None] = lambda _: None) -> None:
    """Publish every neighbour list and rank every user again, so that Redis holds what the whole stream says.

    When shards change hands meanwhile, users may have been ranked without what their worker does not own: it is all
    done again then.

    Parameters
    ----------
    settings
        Addresses and names.
    report
        Called with what is waited for.
    """
    async with Progress(settings) as progress:
        report("waiting until all events are learned")
        await progress.drained()
        async with careful_producer(settings) as producer:
            before = None
            while (owners := await progress.owners()) != before:
                before = owners
                for role, value, what in PUBLICATIONS:
                    report(f"publishing {what}")
                    for partition in await progress.ends(role):
                        await producer.send_and_wait(settings.topic(role), value, partition=partition)
                    await progress.until(role, await progress.ends(role))

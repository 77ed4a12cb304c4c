"""Replays recorded streams through Kafka, at the recorded pace or as fast as the workers keep up; and republishes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

from stream.errors import BadInputError
from stream.kafka import careful_producer, client_options
from stream.pacing import Pacer
from stream.producer import EventProducer
from stream.progress import Progress
from stream.recordings.files import OnBad, stop
from stream.recordings.records import Parcel
from stream.rounds import Item, time_us
from stream.settings import Settings
from stream.wire import FLUSH

MAX_LAG = 20_000  # records published ahead of the workers; the demo's broker keeps about 5 MB per partition
LOOK_EVERY = 500  # records between two looks at the lag
REPORT_S = 0.5  # ... when few are sent
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
    books
        What has been added to the workers' books from the beginning to the end of the replay, by whomever.
    """

    sent: int = 0
    lag: int = 0
    books: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Republished:
    """What a republication wrote: partitions of neighbours, and users with lists."""

    neighbours: int
    lists: int


Report = Callable[[Pace], None]


async def replay(
    settings: Settings,
    events: Iterable[Item],
    speed: float | Pacer | None,
    report: Report = lambda _: None,
    on_bad: OnBad = stop,
) -> Pace:
    """Publish recorded events in order, throttled by lag, and wait until the workers have drained them.

    Parameters
    ----------
    settings
        Addresses and names.
    events
        Events in our schema, by rising time, or records, which go as they are.
    speed
        Times faster than recorded, or a pacer that may be steered; None = as fast as the workers keep up.
    report
        Called now and then with the state.
    on_bad
        Told of an event that a worker would refuse; if it returns, the event is not sent. Records are not judged.

    Returns
    -------
    Pace
        The final state.
    """
    pace = Pace()
    pacer = speed if isinstance(speed, Pacer) else Pacer(speed)
    reported = time.monotonic()
    async with (
        Progress(settings) as progress,
        EventProducer(settings.kafka, settings.topic("events"), **client_options(settings)) as producer,
    ):
        before = sum((await progress.ends("events")).values())
        books = await progress.books()
        for event in events:
            ts = time_us(event)
            if ts is not None:
                await pacer.until(ts)
            try:
                await _send(producer, event)
            except BadInputError as error:
                on_bad(error)
                continue
            pace.sent += 1
            if pace.sent % LOOK_EVERY == 0 or time.monotonic() - reported > REPORT_S:
                await _throttle(progress, pace, before, report)
                reported = time.monotonic()
        await producer.flush()

        def note(missing: int) -> None:
            pace.lag = missing
            report(pace)

        await progress.drained(note)
        pace.books = await progress.books() - books
    return pace


async def _send(producer: EventProducer, event: Item) -> None:
    if isinstance(event, Parcel):
        await producer.forward(event.value or b"", event.key, event.headers, event.recorded_ms)
    else:
        await producer.send_soon(event)


async def _throttle(progress: Progress, pace: Pace, before: int, report: Report) -> None:
    """Wait while the workers are too far behind."""
    while True:
        pace.lag = before + pace.sent - sum((await progress.included("events")).values())
        report(pace)
        if pace.lag < MAX_LAG:
            return
        await asyncio.sleep(0.05)


async def republish(settings: Settings, report: Callable[[str, int], None] = lambda *_: None) -> Republished:
    """Publish every neighbour list and rank every user again, so that Redis holds what the whole stream says.

    When shards change hands meanwhile, users may have been ranked without what their worker does not own: it is all
    done again then.

    Parameters
    ----------
    settings
        Addresses and names.
    report
        Called with what is waited for, and how many records the workers have still to include.

    Returns
    -------
    Republished
        What was written.
    """
    async with Progress(settings) as progress:
        await progress.drained(partial(report, "waiting until all events are learned"))
        async with careful_producer(settings) as producer:
            before = None
            while (owners := await progress.owners()) != before:
                before = owners
                for role, value, what in PUBLICATIONS:
                    for partition in await progress.ends(role):
                        await producer.send_and_wait(settings.topic(role), value, partition=partition)
                    await progress.until(role, await progress.ends(role), partial(report, f"publishing {what}"))
        lists = sum(facts.get("with_recs", 0) for facts in (await progress.facts()).values())
        return Republished(len(await progress.ends("covisits")), lists)

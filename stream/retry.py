"""Sends dead letters again, under the identity they had, so that nothing counts twice however often it is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from stream.decoding import DeadLetter, decode, decode_request, json_of
from stream.events import Disowned, Move
from stream.identity import completed, derived_id
from stream.kafka import client_options
from stream.letters import Filter, Letter, Letters, Number
from stream.producer import EventProducer
from stream.recordings.records import Raw
from stream.settings import Settings

CHUNK: Final = 200  # letters between two markers
SHOWN: Final = 20

Sending = tuple[bytes | None, bytes, tuple[tuple[str, bytes], ...]]  # key, value, headers


class Outcome(msgspec.Struct):
    """What a retry did.

    Attributes
    ----------
    letters, records
        Letters sent again, and the records they made: one each, unless a letter holds a batch.
    refused
        Letters that would be refused again, by reason; they stay open.
    first
        Number, reason and detail of the first few of these.
    """

    letters: int = 0
    records: int = 0
    refused: Counter[str] = msgspec.field(default_factory=Counter)
    first: list[tuple[str, str, str]] = []


async def retry(
    settings: Settings,
    letters: Letters,
    wanted: Filter,
    *,
    again: bool = False,
    dry_run: bool = False,
    report: Callable[[int], None] = lambda _: None,
) -> Outcome:
    """Send letters to the topic they came from and mark them as retried.

    Each is judged first as a worker would judge it now; what would be refused again is not sent. If it is killed
    between sending and marking, the next retry sends the same once more, and the ids keep it single.

    Parameters
    ----------
    settings
        Addresses and names.
    letters
        Where they are.
    wanted
        Which.
    again
        Those that are settled, too.
    dry_run
        Judge only.
    report
        Called with the number of letters judged so far.
    """
    outcome = Outcome()
    done: list[Number] = []
    async with AsyncExitStack() as stack:
        producers: dict[str, EventProducer] = {}
        async for letter in letters.select(wanted, settled=again):
            now_ms = time.time_ns() // 1_000_000
            verdict = sendings(letter, now_ms, settings)
            report(outcome.letters + outcome.refused.total())
            if isinstance(verdict, DeadLetter):
                outcome.refused[verdict.reason] += 1
                if len(outcome.first) < SHOWN:
                    outcome.first.append((str(letter.number), verdict.reason, verdict.detail))
                continue
            outcome.letters += 1
            outcome.records += len(verdict)
            if dry_run:
                continue
            if letter.topic not in producers:
                producer = EventProducer(settings.kafka, letter.topic, linger_ms=5, **client_options(settings))
                producers[letter.topic] = await stack.enter_async_context(producer)
            for key, value, headers in verdict:
                await producers[letter.topic].forward(value, key, headers)
            done.append(letter.number)
            if len(done) >= CHUNK:
                await _settle(letters, producers, done)
        if done:
            await _settle(letters, producers, done)
    return outcome


def sendings(letter: Letter, now_ms: int, settings: Settings) -> list[Sending] | DeadLetter:
    """Records that a letter becomes, or why it would be refused again.

    The bytes are the original ones; events without an id get the one that a worker derives from their place, events
    without a time that of their record.
    """
    raw = Raw(letter.offset, now_ms, letter.key, letter.value, letter.headers)
    if letter.topic == settings.topic("privacy"):
        request = decode_request(raw)
        return request if isinstance(request, DeadLetter) else [(letter.key, letter.value, letter.headers)]
    if letter.topic != settings.topic("events") or letter.partition < 0 or letter.offset < 0:
        return DeadLetter("no_origin", f"not from a topic of ours: {letter.origin}", 0, 0, letter.key, letter.value)
    batch = decode([raw])
    if batch.dead:
        return batch.dead[0]
    if any(isinstance(control, Move | Disowned) for _, control in batch.controls):
        return DeadLetter("no_retry", "links and moved histories count only in their place", 0, 0, letter.key, b"")
    if batch.controls:
        return [(letter.key, letter.value, letter.headers)]
    mapped = [json_of(each) for each in batch.raw]
    named = [
        completed(each, derived_id(letter.partition, letter.offset, letter.index + n), letter.recorded_ms * 1000)
        for n, each in enumerate(mapped)
    ]
    if all(new is old for new, old in zip(named, mapped, strict=True)):
        return [(batch.user[0].encode(), letter.value, letter.headers)]
    return [(user.encode(), value, ()) for user, value in zip(batch.user, named, strict=True)]


async def _settle(letters: Letters, producers: dict[str, EventProducer], done: list[Number]) -> None:
    for producer in producers.values():
        await producer.flush()
    await letters.settle(done, "retried")
    done.clear()

"""Asks the workers to forget a user or to tell what is kept of one, and waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec

from stream.answers import Exported, Forgotten, parse_answer
from stream.decoding import DeadLetter, decode_request
from stream.drafts import Draft
from stream.errors import BadInputError, UnavailableError
from stream.events import MAX_ID_BYTES, Request
from stream.kafka import careful_producer
from stream.keys import Keys, parse_profile
from stream.progress import Progress
from stream.redis_address import redis_address
from stream.resp import WriteBatch
from stream.settings import Settings
from stream.store import RedisStore

POLL_S: Final = 0.05


async def ask(settings: Settings, request: Request, timeout_s: float) -> Forgotten | Exported:
    """Publish a request to topic ``privacy``; read its answer in Redis and delete it there.

    Parameters
    ----------
    settings
        Addresses and names.
    request
        With a unique `request`; of two requests about one user at the same time, one's answer may replace the other's.
    timeout_s
        How long to wait.

    Raises
    ------
    BadInputError
        If no worker would take the request.
    UnavailableError
        If Kafka or Redis does not answer, or no worker does in time.
    ConfigurationError
        If there is no such topic.
    """
    value = msgspec.json.encode(request)
    verdict = decode_request(Draft(0, 0, None, value))
    if isinstance(verdict, DeadLetter):
        raise BadInputError(f"not a user id: it has 1 to {MAX_ID_BYTES} bytes and no control characters")
    try:
        async with asyncio.timeout(timeout_s), Progress(settings) as progress:
            await progress.ends("privacy")
            async with careful_producer(settings) as producer:
                await producer.send_and_wait(settings.topic("privacy"), value, key=request.user.encode())
            return await _answer(progress.store, Keys(settings.prefix).privacy(request.user), request.request)
    except TimeoutError:
        raise UnavailableError(
            f"no answer within {timeout_s:g} s: is a worker running? What was published is carried out when one runs"
        ) from None


async def _answer(store: RedisStore, key: bytes, request: str) -> Forgotten | Exported:
    while True:
        (value,) = await store.get([key])
        if value is not None and (answer := parse_answer(value)).request == request:
            done = WriteBatch()
            done.delete(key)
            await store.flush(done)
            return answer
        await asyncio.sleep(POLL_S)


async def kept_in_redis(
    settings: Settings, user: str, placements: Iterable[str] = ()
) -> dict[str, msgspec.Raw | dict[str, str]]:
    """A user's keys in Redis, by their last part, as they stand there."""
    keys = Keys(settings.prefix)
    names = {"recs": keys.recs(user), "offers": keys.offers(user)}
    names |= {f"recs:{placement}": keys.recs(user, placement) for placement in placements}
    store = await RedisStore.connect(redis_address(settings))
    try:
        values = await store.get(list(names.values()))
        profile = await store.hgetall(keys.profile(user))
    finally:
        await store.close()
    found: dict[str, msgspec.Raw | dict[str, str]] = {
        name: msgspec.Raw(value) for name, value in zip(names, values, strict=True) if value is not None
    }
    return found | ({"profile": parse_profile(profile)} if profile else {})

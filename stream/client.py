"""Reading what Rivulet wrote: the documented fall-back order, as plans without I/O and an async client that runs them.

A *plan* is a generator: it yields the Redis commands it needs next, is sent their replies, and returns the answer. The
order of keys and the merging of lists are thereby written once, for any way of talking to Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Generator, Iterable, Sequence
from typing import Any, Self, TypeAlias, TypeVar

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from stream.errors import BadInputError, ConfigurationError, UnavailableError
from stream.keys import Keys, Offer, Reason, Recommendations, parse_list, parse_offers, parse_profile
from stream.nodes import split_url

__all__ = ["Client", "Plan", "plan_list", "plan_offers", "plan_profile", "plan_recommendations", "top_up"]

T = TypeVar("T")
Command: TypeAlias = tuple[str | bytes, ...]
# A reply's type depends on its command; the parse functions check what they are given.
Plan: TypeAlias = Generator[list[Command], list[Any], T]


def top_up(found: Iterable[tuple[str, Recommendations]], k: int, exclude: Collection[str] = ()) -> Recommendations:
    """Merge lists in order of preference into one of at most k items, none twice and none excluded.

    ``source``, ``ts``, ``model`` and ``exp`` are those of the first list that gave an item; every item keeps its own
    score and reason, so scores need not descend across lists.

    Examples
    --------
    >>> own = Recommendations(items=["a", "b"], scores=[2.0, 1.0], why=[("z", "covisit"), ("z", "covisit")])
    >>> all_ = Recommendations(items=["b", "c"], scores=[9.0, 8.0], model="trending")
    >>> merged = top_up([("recs", own), ("trending:all", all_)], k=3, exclude={"a"})
    >>> merged.items, merged.why, merged.source
    (['b', 'c'], [('z', 'covisit'), (None, 'trending')], 'recs')
    """
    if k < 1:
        raise BadInputError(f"k is at least 1, not {k}")
    rows: dict[str, tuple[float, Reason]] = {}
    first: tuple[str, Recommendations] | None = None
    for source, part in found:
        reasons = part.why or [(None, part.model)] * len(part.items)
        for item, score, reason in zip(part.items, part.scores, reasons, strict=True):
            if len(rows) < k and item not in rows and item not in exclude:
                rows[item] = score, reason
                first = first or (source, part)
    source, head = first or ("", Recommendations(items=[], scores=[]))
    return Recommendations(
        items=list(rows),
        scores=[score for score, _ in rows.values()],
        why=[reason for _, reason in rows.values()],
        ts=head.ts,
        model=head.model,
        exp=head.exp,
        source=source,
    )


def plan_recommendations(
    keys: Keys, user: str, placement: str | None = None, k: int = 20, exclude: Collection[str] = ()
) -> Plan[Recommendations]:
    """Plan a user's list: ``recs:<placement>``, ``recs``, ``trending:segment:<n>``, ``trending:all``, until k items."""
    own = {"recs": keys.recs(user)}
    if placement is not None:
        own = {f"recs:{placement}": keys.recs(user, placement)} | own
    values, segment = yield [("MGET", *own.values()), ("HGET", keys.profile(user), "segment")]
    found = _parsed(own, values)
    merged = top_up(found, k, exclude)
    if len(merged.items) == k:
        return merged
    common = {"trending:all": keys.trending()}
    if segment:
        number = segment.decode()
        common = {f"trending:segment:{number}": keys.trending(segment=number)} | common
    values = yield [("GET", key) for key in common.values()]  # two slots: no MGET
    return top_up(found + _parsed(common, values), k, exclude)


def _parsed(sources: Iterable[str], values: Sequence[bytes | None]) -> list[tuple[str, Recommendations]]:
    return [(source, parse_list(value)) for source, value in zip(sources, values, strict=True) if value is not None]


def _permitted(command: Command, reply: Any) -> Any:
    """A reply, None for the segment of a login that may not read profiles; the other errors are raised."""
    if isinstance(reply, NoPermissionError) and command[0] == "HGET":
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply


def plan_list(source: str, key: bytes, k: int) -> Plan[Recommendations]:
    """Plan one list under one key, without any fall-back; empty if there is none."""
    return top_up(_parsed([source], (yield [("GET", key)])), k)


def plan_offers(keys: Keys, user: str, now_ms: int) -> Plan[list[Offer]]:
    """Plan a user's offers that have not ended by ``now_ms`` (ms UTC), best first."""
    (value,) = yield [("GET", keys.offers(user))]
    return parse_offers(value).live(now_ms) if value is not None else []


def plan_profile(keys: Keys, user: str) -> Plan[dict[str, str]]:
    """Plan a user's profile; empty for an unknown user."""
    (fields,) = yield [("HGETALL", keys.profile(user))]
    return parse_profile(fields)


class Client:
    """Async reader for a frontend: at most two round trips per call, one for a user with a full list.

    Parameters
    ----------
    url
        As for :meth:`stream.store.RedisStore.connect`: server, TLS, unix socket or cluster.
    prefix
        The writer's prefix.
    timeout
        Seconds a round trip may take, connecting included.

    Notes
    -----
    Every method raises ``UnavailableError`` when Redis does not answer in time, ``ConfigurationError`` when it refuses
    the login or the command, ``BadInputError`` when a value is not of this contract version.

    Examples
    --------
    >>> async def page(user: str) -> list[str]:
    ...     async with Client("redis://127.0.0.1:6379/0") as client:
    ...         return (await client.recommendations(user, placement="home", k=8)).items
    """

    def __init__(self, url: str = "redis://127.0.0.1:6379/0", *, prefix: str = "rv", timeout: float = 1.0) -> None:
        self.keys = Keys(prefix)
        self._timeout = timeout
        plain, cluster = split_url(url)
        kind: type[Redis] | type[RedisCluster] = RedisCluster if cluster else Redis
        try:
            # one more try: a pooled connection may have died since it was last used
            self._redis = kind.from_url(plain, protocol=2, retry=Retry(NoBackoff(), 1))
        except (ValueError, TypeError, RedisError) as error:
            raise ConfigurationError(f"bad Redis address: {error}") from error

    async def recommendations(
        self, user: str, placement: str | None = None, k: int = 20, exclude: Collection[str] = ()
    ) -> Recommendations:
        """Read the list for a user, known or not: at most k items, best first, without the excluded ones.

        A list shorter than k is topped up from the next of ``recs:<placement>``, ``recs``, ``trending:segment:<n>``,
        ``trending:all``; ``source`` says where it began. A login that may not read profiles is given no segment's.
        """
        return await self._run(plan_recommendations(self.keys, user, placement, k, exclude))

    async def offers(self, user: str, now: int | None = None) -> list[Offer]:
        """Read the offers of a user that have not ended by ``now`` (ms UTC, default the wall clock), best first."""
        return await self._run(plan_offers(self.keys, user, time.time_ns() // 1_000_000 if now is None else now))

    async def profile(self, user: str) -> dict[str, str]:
        """Read what is known of a user, as text by field; empty for an unknown user."""
        return await self._run(plan_profile(self.keys, user))

    async def similar(self, item: str, k: int = 20) -> Recommendations:
        """Read at most k neighbours of an item, best first; empty for an unknown item."""
        return await self._run(plan_list("similar", self.keys.similar(item), k))

    async def trending(
        self, category: str | None = None, segment: int | str | None = None, k: int = 20
    ) -> Recommendations:
        """Read at most k popular items, best first: of everybody, of a category, or of a segment."""
        return await self._run(plan_list("trending", self.keys.trending(category=category, segment=segment), k))

    async def close(self) -> None:
        """Close the connections; harmless when done already."""
        await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, plan: Plan[T]) -> T:
        commands = next(plan)
        while True:
            replies = await self._ask(commands)
            try:
                commands = plan.send(replies)
            except StopIteration as done:
                answer: T = done.value
                return answer

    async def _ask(self, commands: list[Command]) -> list[Any]:
        try:
            async with asyncio.timeout(self._timeout):
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    replies = await pipeline.execute(raise_on_error=False)
            return [_permitted(command, reply) for command, reply in zip(commands, replies, strict=True)]
        except (AuthenticationError, ResponseError) as error:
            raise ConfigurationError(f"Redis refused to answer: {error}") from error
        except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {self._timeout:g} s"
            raise UnavailableError(f"Redis does not answer: {reason}") from error

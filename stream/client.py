"""Readers for a frontend: an async and a sync shell around the same plans, so that both answer alike.

What to ask and what to make of the replies is in `stream.reading`; what is kept in `stream.shared_cache`; here is only
how a round trip is made, and what happens when Redis is away.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Self, TypeVar

import redis
from msgspec.structs import replace
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from stream.errors import BadInputError, ConfigurationError, RivuletError, UnavailableError
from stream.explanations import ENGLISH, Templates
from stream.keys import ItemDetails, Keys, Offer, Recommendations
from stream.nodes import split_url
from stream.reading import (
    Plan,
    Wish,
    plan_explanations,
    plan_items,
    plan_list,
    plan_offers,
    plan_profile,
    plan_recommendations,
)
from stream.shared_cache import Command, Own, Replies, Shared, SharedCache, joined, nothing
from stream.tracking import AsyncTracker, SyncTracker

__all__ = ["Client", "SyncClient"]

T = TypeVar("T")
PAUSE_S: Final = 1.0  # without Redis: how long pages are served from memory before it is asked again


class _Trip(NamedTuple):
    """One round trip: the commands to send, how many of them are about users, and what is known without it."""

    commands: Sequence[Command]
    wire: list[Own]
    own: int
    known: dict[bytes, bytes | None]
    stale: list[bytes]
    began: float


class _Reader:
    """What both shells decide alike.

    Parameters
    ----------
    url
        As for :meth:`stream.store.RedisStore.connect`: server, TLS, unix socket or cluster.
    prefix
        The writer's prefix.
    timeout
        Seconds that Redis may take to answer. Async: per round trip, connecting included. Sync: per wait on the socket,
        of which a round trip has at most two.
    strict
        Raise when there is no good answer, instead of falling back.
    cache_s
        Seconds that lists and details which users share are kept; 0: none.
    tracking
        Let Redis say which keys of trending and items have changed, over one more connection, and keep them for up to a
        minute; not in a cluster. Needs the permission ``client|tracking``; without it, or without RESP3, keys are kept
        as if it were off.
    catalogue
        Leave out what the catalogue hides, and tell what it says of each item. False for shops that publish no
        catalogue: saves a round trip.

    Attributes
    ----------
    cache
        What is kept of shared keys.
    fault
        Why the latest call had to fall back; empty if it had not.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        prefix: str = "rv",
        timeout: float = 1.0,
        strict: bool = False,
        cache_s: float = 1.0,
        tracking: bool = False,
        catalogue: bool = True,
    ) -> None:
        self.keys = Keys(prefix)
        self.cache = SharedCache(cache_s, followed=(self.keys.item(""), self.keys.trending().removesuffix(b"all")))
        self.fault = ""
        self._timeout = timeout
        self._strict = strict
        self._catalogue = catalogue
        self._away_until = 0.0
        self._lock = threading.Lock()
        self._url, self._cluster = split_url(url)
        try:
            options: dict[str, Any] = dict(parse_url(self._url))  # type: ignore[no-untyped-call]  # redis-py's own gap
            options.pop("connection_class", redis.Connection)(**options)
        except (ValueError, TypeError, RedisError) as error:
            raise ConfigurationError(f"bad Redis address: {error}") from error
        self._tracked = tracking and not self._cluster

    def _trip(self, commands: Sequence[Command]) -> _Trip:
        """What has to be sent for some commands: in a cluster, shared keys one by one."""
        began = time.monotonic()
        known, stale = self.cache.look(commands, began)
        own = [command for command in commands if not isinstance(command, Shared)]
        shared: list[Own] = [("GET", key) for key in stale] if self._cluster else [("MGET", *stale)] if stale else []
        return _Trip(commands, own + shared, len(own), known, stale, began)

    def _replies(self, trip: _Trip, replies: list[Any]) -> Replies:
        shared = replies[trip.own :]
        asked = dict(zip(trip.stale, shared if self._cluster or not shared else shared[0], strict=True))
        self.cache.keep(asked, trip.began)
        return joined(trip.commands, replies[: trip.own], trip.known | asked)

    def _away(self) -> bool:
        return not self._strict and time.monotonic() < self._away_until

    def _told(self, error: Exception) -> RivuletError:
        """An error of redis-py or of the socket as one of ours."""
        if isinstance(error, AuthenticationError | AuthorizationError | ResponseError):
            return ConfigurationError(f"Redis refused to answer: {error}")
        late = isinstance(error, TimeoutError | redis.TimeoutError) or not str(error)
        return UnavailableError(f"Redis does not answer: {f'no answer within {self._timeout:g} s' if late else error}")

    def _fall_back(self, make: Callable[[], Plan[T]], error: RivuletError) -> T:
        """The answer of what is kept, or of nothing, if the caller did not ask for errors."""
        if self._strict:
            raise error
        if isinstance(error, UnavailableError):
            self._away_until = time.monotonic() + PAUSE_S
        return self._remembered(make, str(error))

    def _remembered(self, make: Callable[[], Plan[T]], fault: str = "") -> T:
        self.fault = fault or self.fault
        try:
            answer = _run_on(make(), self.cache.without_redis)
        except BadInputError:  # what is kept is not of this contract version
            answer = _run_on(make(), lambda commands: list(map(nothing, commands)))
        return replace(answer, fault=self.fault) if isinstance(answer, Recommendations) else answer

    def _recommendations(self, user: str, wish: Wish) -> Callable[[], Plan[Recommendations]]:
        self.keys.recs(user)  # a caller's mistake is no fault of Redis
        return partial(plan_recommendations, self.keys, user, wish)

    def _wish(self, **wishes: Any) -> Wish:
        return Wish(catalogue=self._catalogue, **wishes)

    def _offers(self, user: str, now: int | None) -> Callable[[], Plan[list[Offer]]]:
        self.keys.offers(user)
        return partial(plan_offers, self.keys, user, time.time_ns() // 1_000_000 if now is None else now)

    def _profile(self, user: str) -> Callable[[], Plan[dict[str, str]]]:
        self.keys.profile(user)
        return partial(plan_profile, self.keys, user)

    def _list(self, source: str, key: bytes, k: int) -> Callable[[], Plan[Recommendations]]:
        return partial(plan_list, self.keys, source, key, self._wish(k=k))

    def _explanations(self, of: Recommendations, templates: Templates) -> Callable[[], Plan[list[str]]]:
        return partial(plan_explanations, self.keys, of.why, templates)

    def _items(self, items: Sequence[str]) -> Callable[[], Plan[dict[str, ItemDetails]]]:
        return partial(plan_items, self.keys, list(items))


def _run_on(plan: Plan[T], ask: Callable[[Sequence[Command]], Replies]) -> T:
    """Run a plan against something that answers at once."""
    try:
        commands = next(plan)
        while True:
            commands = plan.send(ask(commands))
    except StopIteration as done:
        answer: T = done.value
        return answer


class Client(_Reader):
    """Async reader: at most three round trips per call, one or two for a user with a full list; see `_Reader`.

    Notes
    -----
    Unless `strict`, nothing that Redis does or does not do raises: what is shared is answered from memory, the rest is
    empty, and ``fault`` says so, in the list and in the client. With it, ``UnavailableError`` when Redis does not
    answer in time, ``ConfigurationError`` when it refuses the login or the command, ``BadInputError`` when a value is
    not of this contract version. A caller's own mistake (k < 1, an empty user) is always a ``BadInputError``.

    Examples
    --------
    >>> async def page(user: str) -> list[str]:
    ...     async with Client("redis://127.0.0.1:6379/0") as client:
    ...         return (await client.recommendations(user, placement="home", k=8)).items
    """

    _redis: AsyncRedis | AsyncRedisCluster | None = None
    tracker: AsyncTracker | None = None

    async def recommendations(
        self,
        user: str,
        placement: str | None = None,
        k: int = 20,
        exclude: Collection[str] = (),
        category: str | None = None,
    ) -> Recommendations:
        """Read the list for a user, known or not: at most k items, best first, none excluded, none hidden.

        A list shorter than k is topped up from the next of ``recs:<placement>``, ``recs``, ``trending:segment:<n>``
        (with a category ``trending:category:<c>``), ``trending:all``; ``source`` says where it began.
        """
        wish = self._wish(placement=placement, k=k, exclude=exclude, category=category)
        return await self._run(self._recommendations(user, wish))

    async def offers(self, user: str, now: int | None = None) -> list[Offer]:
        """Read the offers of a user that have not ended by ``now`` (ms UTC, default the wall clock), best first."""
        return await self._run(self._offers(user, now))

    async def profile(self, user: str) -> dict[str, str]:
        """Read what is known of a user, as text by field; empty for an unknown user."""
        return await self._run(self._profile(user))

    async def similar(self, item: str, k: int = 20) -> Recommendations:
        """Read at most k neighbours of an item, best first; empty for an unknown item."""
        return await self._run(self._list("similar", self.keys.similar(item), k))

    async def trending(
        self, category: str | None = None, segment: int | str | None = None, k: int = 20
    ) -> Recommendations:
        """Read at most k popular items, best first: of everybody, of a category, or of a segment."""
        return await self._run(self._list("trending", self.keys.trending(category=category, segment=segment), k))

    async def items(self, items: Sequence[str]) -> dict[str, ItemDetails]:
        """Read what the catalogue says of some items, by id; those it does not know are left out."""
        return await self._run(self._items(items))

    async def explanations(self, recs: Recommendations, templates: Templates = ENGLISH) -> list[str]:
        """Say why each item of a list is recommended; see `stream.explanations`."""
        return await self._run(self._explanations(recs, templates))

    async def close(self) -> None:
        """Close the connections; harmless when done already."""
        if self.tracker is not None:
            await self.tracker.close()
        if self._redis is not None:
            await self._redis.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, make: Callable[[], Plan[T]]) -> T:
        if self._away():
            return self._remembered(make)
        plan = make()
        try:
            commands = next(plan)
            while True:
                commands = plan.send(await self._ask(commands))
        except StopIteration as done:
            answer: T = done.value
        except RivuletError as error:
            return self._fall_back(make, error)
        self.fault = ""
        return answer

    async def _ask(self, commands: Sequence[Command]) -> Replies:
        if self._tracked:
            self.tracker = self.tracker or AsyncTracker(self.cache, self._url)
            self.tracker.poll()
        trip = self._trip(commands)
        return self._replies(trip, await self._exchange(trip.wire) if trip.wire else [])

    async def _exchange(self, wire: Sequence[Own]) -> list[Any]:
        try:
            async with asyncio.timeout(self._timeout):
                async with self._connected().pipeline(transaction=False) as pipeline:
                    for command in wire:
                        pipeline.execute_command(*command)
                    return await pipeline.execute()
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._told(error) from error

    def _connected(self) -> AsyncRedis | AsyncRedisCluster:
        if self._redis is None:
            kind: type[AsyncRedis] | type[AsyncRedisCluster] = AsyncRedisCluster if self._cluster else AsyncRedis
            # one more try: a pooled connection may have died since it was last used
            self._redis = kind.from_url(self._url, protocol=2, retry=AsyncRetry(NoBackoff(), 1))
        return self._redis


class SyncClient(_Reader):
    """The same for programs without an event loop (Django, Flask, scripts); may be shared by threads.

    Examples
    --------
    >>> def page(user: str) -> list[str]:
    ...     with SyncClient("redis://127.0.0.1:6379/0") as client:
    ...         return client.recommendations(user, placement="home", k=8).items
    """

    _redis: redis.Redis | redis.RedisCluster | None = None
    tracker: SyncTracker | None = None

    def recommendations(
        self,
        user: str,
        placement: str | None = None,
        k: int = 20,
        exclude: Collection[str] = (),
        category: str | None = None,
    ) -> Recommendations:
        """See `Client.recommendations`."""
        wish = self._wish(placement=placement, k=k, exclude=exclude, category=category)
        return self._run(self._recommendations(user, wish))

    def offers(self, user: str, now: int | None = None) -> list[Offer]:
        """See `Client.offers`."""
        return self._run(self._offers(user, now))

    def profile(self, user: str) -> dict[str, str]:
        """See `Client.profile`."""
        return self._run(self._profile(user))

    def similar(self, item: str, k: int = 20) -> Recommendations:
        """See `Client.similar`."""
        return self._run(self._list("similar", self.keys.similar(item), k))

    def trending(self, category: str | None = None, segment: int | str | None = None, k: int = 20) -> Recommendations:
        """See `Client.trending`."""
        return self._run(self._list("trending", self.keys.trending(category=category, segment=segment), k))

    def items(self, items: Sequence[str]) -> dict[str, ItemDetails]:
        """See `Client.items`."""
        return self._run(self._items(items))

    def explanations(self, recs: Recommendations, templates: Templates = ENGLISH) -> list[str]:
        """See `Client.explanations`."""
        return self._run(self._explanations(recs, templates))

    def close(self) -> None:
        """Close the connections; harmless when done already."""
        if self.tracker is not None:
            self.tracker.close()
        if self._redis is not None:
            self._redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, make: Callable[[], Plan[T]]) -> T:
        if self._away():
            return self._remembered(make)
        try:
            answer = _run_on(make(), self._ask)
        except RivuletError as error:
            return self._fall_back(make, error)
        self.fault = ""
        return answer

    def _ask(self, commands: Sequence[Command]) -> Replies:
        if self._tracked:
            with self._lock:
                self.tracker = self.tracker or SyncTracker(self.cache, self._url, self._timeout)
            self.tracker.poll()
        trip = self._trip(commands)
        return self._replies(trip, self._exchange(trip.wire) if trip.wire else [])

    def _exchange(self, wire: Sequence[Own]) -> list[Any]:
        try:
            with self._connected().pipeline(transaction=False) as pipeline:
                for command in wire:
                    pipeline.execute_command(*command)
                replies: list[Any] = pipeline.execute()
                return replies
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._told(error) from error

    def _connected(self) -> redis.Redis | redis.RedisCluster:
        with self._lock:
            if self._redis is None:
                kind: type[redis.Redis] | type[redis.RedisCluster] = (
                    redis.RedisCluster if self._cluster else redis.Redis
                )
                waits = {"socket_timeout": self._timeout, "socket_connect_timeout": self._timeout}
                again = Retry(
                    NoBackoff(), 1, (redis.ConnectionError,)
                )  # not after a timeout: it would take twice as long
                self._redis = kind.from_url(self._url, protocol=2, retry=again, **waits)
            return self._redis

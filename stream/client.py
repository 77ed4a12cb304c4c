"""Readers for a frontend: an async and a sync shell around the same plans, so that both answer alike.

What to ask and what to make of the answers is in `stream.reading`, what both decide alike in `stream.reader`; here is
only how a round trip is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self, TypeVar

import redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from stream.errors import RivuletError
from stream.explanations import ENGLISH, Templates
from stream.keys import Availability, ItemDetails, Offer, Recommendations
from stream.reader import Reader, permitted, run_on
from stream.reading import Plan, Wish
from stream.shared_cache import Command, Own, Replies
from stream.tracking import AsyncTracker, SyncTracker

__all__ = ["Client", "SyncClient"]

T = TypeVar("T")


class Client(Reader):
    """Async reader: at most four round trips per call, one or two for a user with a full list; see `Reader`.

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
        min_price: float | None = None,
        max_price: float | None = None,
        availability: Collection[Availability] = (),
    ) -> Recommendations:
        """Read the list for a user, known or not: at most k items, best first, none excluded, none hidden.

        A list shorter than k is topped up: see `stream.reading.plan_recommendations`; ``source`` says where it began. A
        login that may not read profiles is given no segment's. What is wanted of items is told by the catalogue: an
        item of which it does not tell category, price or availability is left out where that is asked for.
        """
        wish = Wish(placement, k, exclude, category, min_price, max_price, availability, self._catalogue)
        return await self._run(self._of_recommendations(user, wish))

    async def offers(self, user: str, now: int | None = None) -> list[Offer]:
        """Read the offers of a user that have not ended by ``now`` (ms UTC, default the wall clock), best first."""
        return await self._run(self._of_offers(user, now))

    async def profile(self, user: str) -> dict[str, str]:
        """Read what is known of a user, as text by field; empty for an unknown user."""
        return await self._run(self._of_profile(user))

    async def similar(self, item: str, k: int = 20) -> Recommendations:
        """Read at most k neighbours of an item, best first; empty for an unknown item."""
        return await self._run(self._of_list("similar", self.keys.similar(item), k))

    async def trending(
        self, category: str | None = None, segment: int | str | None = None, k: int = 20
    ) -> Recommendations:
        """Read at most k popular items, best first: of everybody, of a category, or of a segment."""
        return await self._run(self._of_list("trending", self.keys.trending(category=category, segment=segment), k))

    async def items(self, items: Sequence[str]) -> dict[str, ItemDetails]:
        """Read what the catalogue says of some items, by id; those it does not know are left out."""
        return await self._run(self._of_items(items))

    async def explanations(self, recs: Recommendations, templates: Templates = ENGLISH) -> list[str]:
        """Say why each item of a list is recommended; see `stream.explanations`."""
        return await self._run(self._of_explanations(recs, templates))

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
                    return permitted(wire, await pipeline.execute(raise_on_error=False))
        except (RedisError, RedisClusterException, OSError) as error:
            raise self._told(error) from error

    def _connected(self) -> AsyncRedis | AsyncRedisCluster:
        if self._redis is None:
            kind: type[AsyncRedis] | type[AsyncRedisCluster] = AsyncRedisCluster if self._cluster else AsyncRedis
            # one more try: a pooled connection may have died since it was last used
            self._redis = kind.from_url(self._url, protocol=2, retry=AsyncRetry(NoBackoff(), 1))
        return self._redis


class SyncClient(Reader):
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
        min_price: float | None = None,
        max_price: float | None = None,
        availability: Collection[Availability] = (),
    ) -> Recommendations:
        """See `Client.recommendations`."""
        wish = Wish(placement, k, exclude, category, min_price, max_price, availability, self._catalogue)
        return self._run(self._of_recommendations(user, wish))

    def offers(self, user: str, now: int | None = None) -> list[Offer]:
        """See `Client.offers`."""
        return self._run(self._of_offers(user, now))

    def profile(self, user: str) -> dict[str, str]:
        """See `Client.profile`."""
        return self._run(self._of_profile(user))

    def similar(self, item: str, k: int = 20) -> Recommendations:
        """See `Client.similar`."""
        return self._run(self._of_list("similar", self.keys.similar(item), k))

    def trending(self, category: str | None = None, segment: int | str | None = None, k: int = 20) -> Recommendations:
        """See `Client.trending`."""
        return self._run(self._of_list("trending", self.keys.trending(category=category, segment=segment), k))

    def items(self, items: Sequence[str]) -> dict[str, ItemDetails]:
        """See `Client.items`."""
        return self._run(self._of_items(items))

    def explanations(self, recs: Recommendations, templates: Templates = ENGLISH) -> list[str]:
        """See `Client.explanations`."""
        return self._run(self._of_explanations(recs, templates))

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
            answer = run_on(make(), self._ask)
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
                return permitted(wire, pipeline.execute(raise_on_error=False))
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

"""What the async and the sync reader decide alike: what to send, what replies mean, what to do when Redis is away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

import redis
from msgspec.structs import replace
from redis.connection import parse_url
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError

from stream.errors import BadInputError, ConfigurationError, RivuletError, UnavailableError, redis_away
from stream.explanations import Templates
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

T = TypeVar("T")
PAUSE_S: Final = 1.0  # without Redis: how long pages are served from memory before it is asked again


class Trip(NamedTuple):
    """One round trip: the commands to send, how many of them are about users, and what is known without it."""

    commands: Sequence[Command]
    wire: list[Own]
    own: int
    known: dict[bytes, bytes | None]
    stale: list[bytes]
    began: float


class Reader:
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
            raise ConfigurationError(f"bad Redis address (RIVULET_REDIS): {error}") from error
        self._tracked = tracking and not self._cluster

    def _trip(self, commands: Sequence[Command]) -> Trip:
        """What has to be sent for some commands: in a cluster, shared keys one by one."""
        began = time.monotonic()
        known, stale = self.cache.look(commands, began)
        own = [command for command in commands if not isinstance(command, Shared)]
        shared: list[Own] = [("GET", key) for key in stale] if self._cluster else [("MGET", *stale)] if stale else []
        return Trip(commands, own + shared, len(own), known, stale, began)

    def _replies(self, trip: Trip, replies: list[Any]) -> Replies:
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
        return redis_away(f"no answer within {self._timeout:g} s" if late else error)

    def _fall_back(self, make: Callable[[], Plan[T]], error: RivuletError) -> T:
        """The answer of what is kept, or of nothing, if the caller did not ask for errors."""
        if self._strict:
            raise error
        if isinstance(error, UnavailableError):
            self._away_until = time.monotonic() + PAUSE_S
        return self._remembered(make, str(error))

    def _remembered(self, make: Callable[[], Plan[T]], fault: str = "") -> T:
        self.fault = fault or self.fault or "Redis does not answer"
        try:
            answer = run_on(make(), self.cache.without_redis)
        except BadInputError:  # what is kept is not of this contract version
            answer = run_on(make(), lambda commands: list(map(nothing, commands)))
        return replace(answer, fault=self.fault) if isinstance(answer, Recommendations) else answer

    def _of_recommendations(self, user: str, wish: Wish) -> Callable[[], Plan[Recommendations]]:
        self.keys.recs(user)  # a caller's mistake is no fault of Redis
        return partial(plan_recommendations, self.keys, user, wish)

    def _of_offers(self, user: str, now: int | None) -> Callable[[], Plan[list[Offer]]]:
        self.keys.offers(user)
        return partial(plan_offers, self.keys, user, time.time_ns() // 1_000_000 if now is None else now)

    def _of_profile(self, user: str) -> Callable[[], Plan[dict[str, str]]]:
        self.keys.profile(user)
        return partial(plan_profile, self.keys, user)

    def _of_list(self, source: str, key: bytes, k: int) -> Callable[[], Plan[Recommendations]]:
        return partial(plan_list, self.keys, source, key, Wish(k=k, catalogue=self._catalogue))

    def _of_explanations(self, of: Recommendations, templates: Templates) -> Callable[[], Plan[list[str]]]:
        return partial(plan_explanations, self.keys, of.why, templates)

    def _of_items(self, items: Sequence[str]) -> Callable[[], Plan[dict[str, ItemDetails]]]:
        return partial(plan_items, self.keys, list(items))


def permitted(commands: Sequence[Own], replies: Sequence[Any]) -> list[Any]:
    """Replies, with None for the segment of a login that may not read profiles; other errors are raised."""
    answers: list[Any] = []
    for command, reply in zip(commands, replies, strict=True):
        hidden = isinstance(reply, NoPermissionError) and command[0] == "HGET"
        if isinstance(reply, Exception) and not hidden:
            raise reply
        answers.append(None if hidden else reply)
    return answers


def run_on(plan: Plan[T], ask: Callable[[Sequence[Command]], Replies]) -> T:
    """Run a plan against something that answers at once."""
    try:
        commands = next(plan)
        while True:
            commands = plan.send(ask(commands))
    except StopIteration as done:
        answer: T = done.value
        return answer

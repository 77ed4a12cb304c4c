"""A shop's keys for tests of readers, and both readers with one face."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from stream.client import Client, SyncClient
from stream.keys import Keys
from stream.resp import WriteBatch
from stream.store import RedisStore
from tests.patience import PATIENCE_S, Patience


def rendered(items: Sequence[str], model: str = "covisit", ts: int = 5, why: object = None) -> bytes:
    scores = [float(len(items) - n) for n in range(len(items))]
    reasons = [["i9", model]] * len(items) if why is None else why
    value = {"v": 1, "ts": ts, "model": model, "exp": None, "items": items, "scores": scores, "why": reasons}
    return json.dumps(value).encode()


class Threaded:
    """A `SyncClient` with the async one's face, so that one suite tests both: each call runs in a thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.client = SyncClient(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        return partial(asyncio.to_thread, found) if callable(found) else found

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()


Reader = type[Client] | type[Threaded]


@dataclass
class Shop:
    client: Client | Threaded
    store: RedisStore
    keys: Keys

    async def put(self, **lists: Sequence[str]) -> None:
        """Write lists of user u1 by short name."""
        places = {
            "recs": self.keys.recs("u1"),
            "cart": self.keys.recs("u1", "cart"),
            "segment": self.keys.trending(segment=3),
            "all": self.keys.trending(),
            "shoes": self.keys.trending(category="shoes"),
        }
        batch = WriteBatch()
        for name, items in lists.items():
            batch.set(places[name], rendered(items, model=name), 3_600)
        await self.store.flush(batch)

    async def catalogue(self, **items: Mapping[str, Any]) -> None:
        """Write what the catalogue says of items."""
        batch = WriteBatch()
        for item, fields in items.items():
            batch.set(self.keys.item(item), json.dumps({"v": 1, **fields}).encode(), 3_600)
        await self.store.flush(batch)

    async def profile(self, **fields: str) -> None:
        batch = WriteBatch()
        batch.hset(self.keys.profile("u1"), {name.encode(): text.encode() for name, text in fields.items()}, 3_600)
        await self.store.flush(batch)


async def until(condition: Callable[[], Awaitable[bool]], within: float = PATIENCE_S) -> None:
    """Wait for something that nobody announces."""
    patience = Patience(within)
    while not await condition():
        if patience.ended():
            raise TimeoutError(f"not within {within:g} s")
        await asyncio.sleep(0.02)

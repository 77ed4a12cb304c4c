"""Fixtures of the readers' contract: each reader, on the embedded server, a single server and a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from stream.client import Client
from stream.keys import Keys
from stream.store import RedisStore
from tests.patience import PATIENCE_S
from tests.reader_shop import Reader, Shop, Threaded


@pytest.fixture(params=[Client, Threaded], ids=["async", "sync"])
def reader(request: pytest.FixtureRequest) -> Reader:
    found: Reader = request.param
    return found


@pytest.fixture(params=["embedded_redis", "redis_url", "cluster"])
async def shop(request: pytest.FixtureRequest, reader: Reader, topic_prefix: str) -> AsyncIterator[Shop]:
    if request.param != "cluster":
        url = request.getfixturevalue(request.param)
    else:
        url = request.getfixturevalue("redis_cluster").url.replace("redis://", "redis+cluster://")
    store = await RedisStore.connect(url)
    async with reader(url, prefix=topic_prefix, timeout=PATIENCE_S, strict=True, cache_s=0) as client:
        yield Shop(client, store, Keys(topic_prefix))
    await store.close()

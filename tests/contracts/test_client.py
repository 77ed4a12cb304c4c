"""The reader against what a real store wrote, on a single server and on a cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
import redis
import typer
from typer.testing import CliRunner

from stream.cli.get import get
from stream.client import Client, top_up
from stream.errors import BadInputError, ConfigurationError, UnavailableError
from stream.keys import Keys, Recommendations
from stream.resp import WriteBatch
from stream.store import RedisStore
from tests.brokers import RedisServer, free_ports


def rendered(items: Sequence[str], model: str = "covisit", ts: int = 5, why: object = None) -> bytes:
    scores = [float(len(items) - n) for n in range(len(items))]
    reasons = [["i9", model]] * len(items) if why is None else why
    value = {"v": 1, "ts": ts, "model": model, "exp": None, "items": items, "scores": scores, "why": reasons}
    return json.dumps(value).encode()


@dataclass
class Shop:
    client: Client
    store: RedisStore
    keys: Keys

    async def put(self, **lists: Sequence[str]) -> None:
        """Write lists of user u1 by short name."""
        places = {
            "recs": self.keys.recs("u1"),
            "cart": self.keys.recs("u1", "cart"),
            "segment": self.keys.trending(segment=3),
            "all": self.keys.trending(),
        }
        batch = WriteBatch()
        for name, items in lists.items():
            batch.set(places[name], rendered(items, model=name), 60)
        await self.store.flush(batch)

    async def profile(self, **fields: str) -> None:
        batch = WriteBatch()
        batch.hset(self.keys.profile("u1"), {name.encode(): text.encode() for name, text in fields.items()}, 60)
        await self.store.flush(batch)


@pytest.fixture(params=["redis", "cluster"])
async def shop(request: pytest.FixtureRequest, topic_prefix: str) -> AsyncIterator[Shop]:
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
    else:
        url = request.getfixturevalue("redis_cluster").url.replace("redis://", "redis+cluster://")
    store = await RedisStore.connect(url)
    async with Client(url, prefix=topic_prefix, timeout=5) as client:
        yield Shop(client, store, Keys(topic_prefix))
    await store.close()


async def test_a_known_user_gets_the_own_list(shop: Shop) -> None:
    await shop.put(recs=["a", "b", "c"], all=["x"])
    recs = await shop.client.recommendations("u1", k=2)
    assert (recs.items, recs.scores, recs.why) == (["a", "b"], [3.0, 2.0], [("i9", "recs"), ("i9", "recs")])
    assert (recs.source, recs.ts, recs.model) == ("recs", 5, "recs")


async def test_the_placements_list_comes_first(shop: Shop) -> None:
    await shop.put(cart=["c1", "c2"], recs=["a", "c1", "b"])
    assert (await shop.client.recommendations("u1", "cart", k=2)).items == ["c1", "c2"]
    recs = await shop.client.recommendations("u1", "cart", k=4)
    assert (recs.items, recs.source) == (["c1", "c2", "a", "b"], "recs:cart")
    assert [model for _, model in recs.why] == ["cart", "cart", "recs", "recs"]
    assert (await shop.client.recommendations("u1", "no-such-place", k=3)).items == ["a", "c1", "b"]


async def test_a_short_list_is_topped_up_by_segment_then_by_all(shop: Shop) -> None:
    await shop.profile(segment="3", consent="granted")
    await shop.put(recs=["a"], segment=["s", "a"], all=["s", "x", "y", "z"])
    recs = await shop.client.recommendations("u1", k=4)
    assert (recs.items, recs.source) == (["a", "s", "x", "y"], "recs")
    assert [model for _, model in recs.why] == ["recs", "segment", "all", "all"]


async def test_excluded_items_are_replaced(shop: Shop) -> None:
    await shop.put(recs=["a", "b", "c"], all=["c", "x", "y"])
    assert (await shop.client.recommendations("u1", k=3, exclude={"a", "x"})).items == ["b", "c", "y"]


async def test_an_unknown_user_gets_trending(shop: Shop) -> None:
    await shop.put(all=["x", "y"], segment=["s"])
    recs = await shop.client.recommendations("nobody", "cart")
    assert (recs.items, recs.source) == (["x", "y"], "trending:all")


async def test_a_user_with_only_a_segment_gets_its_trending(shop: Shop) -> None:
    await shop.profile(segment="3")
    await shop.put(all=["x", "y"], segment=["s"])
    recs = await shop.client.recommendations("u1")
    assert (recs.items, recs.source) == (["s", "x", "y"], "trending:segment:3")


async def test_nothing_anywhere_is_an_empty_list(shop: Shop) -> None:
    recs = await shop.client.recommendations("u1")
    assert (recs.items, recs.scores, recs.why, recs.source) == ([], [], [], "")
    assert await shop.client.offers("u1") == []
    assert await shop.client.profile("u1") == {}


async def test_offers_that_ended_are_dropped(shop: Shop) -> None:
    offers = [{"id": "o1", "score": 2.0, "until": 1000, "why": "i9"}, {"id": "o2", "score": 1.0, "until": 2000}]
    batch = WriteBatch()
    batch.set(shop.keys.offers("u1"), json.dumps({"v": 1, "ts": 5, "offers": offers}).encode(), 60)
    await shop.store.flush(batch)
    for now, expected in ((999, ["o1", "o2"]), (1000, ["o2"]), (2000, []), (None, [])):
        assert [offer.id for offer in await shop.client.offers("u1", now)] == expected


async def test_profile_similar_and_trending(shop: Shop) -> None:
    await shop.profile(segment="3", churn="0.2")
    batch = WriteBatch()
    batch.set(shop.keys.similar("i:1"), rendered(["a", "b"]), 60)
    batch.set(shop.keys.trending(category="shoes"), rendered(["c"], why=[]), 60)
    await shop.store.flush(batch)
    assert await shop.client.profile("u1") == {"segment": "3", "churn": "0.2"}
    assert (await shop.client.similar("i:1", k=1)).items == ["a"]
    assert (await shop.client.similar("unknown")).items == []
    shoes = await shop.client.trending(category="shoes")
    assert (shoes.items, shoes.why) == (["c"], [(None, "covisit")])
    assert (await shop.client.trending(segment=9)).items == []


async def test_a_value_of_another_contract_is_refused(shop: Shop) -> None:
    batch = WriteBatch()
    batch.set(shop.keys.recs("u1"), rendered(["a"]).replace(b'"v": 1', b'"v": 2'), 60)
    await shop.store.flush(batch)
    with pytest.raises(BadInputError, match="its version is 2"):
        await shop.client.recommendations("u1")


async def test_a_key_of_another_type_is_refused(shop: Shop) -> None:
    batch = WriteBatch()
    batch.hset(shop.keys.offers("u1"), {b"f": b"1"}, 60)
    await shop.store.flush(batch)
    with pytest.raises(ConfigurationError, match=r"WRONGTYPE|wrong kind of value"):
        await shop.client.offers("u1")


async def test_many_readers_at_once(shop: Shop) -> None:
    await shop.put(recs=["a"], all=["x"])
    found = await asyncio.gather(*(shop.client.recommendations("u1", k=2) for _ in range(50)))
    assert {tuple(recs.items) for recs in found} == {("a", "x")}


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
async def test_nobody_there_is_unavailable(scheme: str) -> None:
    async with Client(f"{scheme}://127.0.0.1:{free_ports(1)[0]}/0") as client:
        with pytest.raises(UnavailableError, match=r"^Redis does not answer"):
            await client.recommendations("u1")


async def test_a_frozen_server_is_unavailable_in_time_and_a_restarted_one_is_not(redis_server: RedisServer) -> None:
    async with Client(redis_server.url, timeout=0.2) as client:
        assert await client.profile("u1") == {}
        redis_server.pause()
        with pytest.raises(UnavailableError, match=r"within 0.2 s"):
            await client.profile("u1")
        redis_server.resume()
        await asyncio.to_thread(redis_server.restart)
        assert await client.profile("u1") == {}


async def test_a_wrong_password_is_a_configuration_error() -> None:
    with RedisServer("s3cret") as server:
        for login in (":wrong@", ""):
            async with Client(f"redis://{login}127.0.0.1:{server.port}/0") as client:
                with pytest.raises(ConfigurationError, match="refused"):
                    await client.profile("u1")


def test_a_bad_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="bad Redis address"):
        Client("http://h")


def test_k_is_at_least_one() -> None:
    with pytest.raises(BadInputError, match="k is at least 1"):
        top_up([], 0)


def test_an_excluded_head_list_is_not_the_source() -> None:
    one, two = (Recommendations(items=[name], scores=[1.0], ts=n) for n, name in enumerate("ab"))
    merged = top_up([("one", one), ("two", two)], 5, {"a"})
    assert (merged.items, merged.source, merged.ts) == (["b"], "two", 1)


@pytest.fixture
def cli() -> typer.Typer:
    app = typer.Typer()
    app.command()(get)
    return app


def fill(url: str, keys: Keys) -> None:
    offers = {"v": 1, "ts": 5, "offers": [{"id": "o1", "score": 2.0, "until": 4_102_444_800_000, "why": "i9"}]}
    with redis.Redis.from_url(url) as client:
        client.set(keys.recs("u1"), rendered(["item[bold]", "b"], ts=1_700_000_000_000), ex=60)
        client.set(keys.offers("u1"), json.dumps(offers), ex=60)
        client.hset(keys.profile("u1"), mapping={"segment": "3"})


def test_get_prints_the_page_of_a_user(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    fill(redis_url, Keys(topic_prefix))
    done = CliRunner().invoke(cli, ["u1", "--redis", redis_url, "--prefix", topic_prefix], catch_exceptions=False)
    for text in ("u1  segment 3", "2023-11-14 22:13:20 UTC", "item[bold]", "covisit", "o1", "2100-01-01"):
        assert text in done.stdout


def test_get_prints_json(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    fill(redis_url, Keys(topic_prefix))
    arguments = ["u1", "--redis", redis_url, "--prefix", topic_prefix, "--k", "1", "--json"]
    page = json.loads(CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout)
    assert page["recommendations"]["items"] == ["item[bold]"]
    assert (page["profile"], page["offers"][0]["id"], page["user"]) == ({"segment": "3"}, "o1", "u1")


def test_get_says_when_there_is_nothing(redis_url: str, topic_prefix: str, cli: typer.Typer) -> None:
    done = CliRunner().invoke(cli, ["nobody", "--redis", redis_url, "--prefix", topic_prefix], catch_exceptions=False)
    assert "no recommendations" in done.stdout

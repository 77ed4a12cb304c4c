"""Both readers against what a real store wrote, on a single server and on a cluster."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest

from stream.errors import BadInputError, ConfigurationError, UnavailableError
from stream.explanations import with_templates
from stream.keys import Keys, Recommendations
from stream.reading import top_up
from stream.resp import WriteBatch
from stream.store import RedisStore
from tests.brokers import RedisServer, free_ports
from tests.patience import PATIENCE_S
from tests.reader_shop import Reader, Shop, rendered, until

TRACKING: dict[str, Any] = {"strict": True, "cache_s": 0, "tracking": True, "timeout": PATIENCE_S}


async def test_a_known_user_gets_the_own_list(shop: Shop) -> None:
    await shop.put(recs=["a", "b", "c"], all=["x"])
    recs = await shop.client.recommendations("u1", k=2)
    assert (recs.items, recs.scores, recs.why) == (["a", "b"], [3.0, 2.0], [("i9", "recs"), ("i9", "recs")])
    assert (recs.source, recs.ts, recs.model) == ("recs", 5, "recs")


async def test_the_placements_list_stands_for_the_plain_one_and_nothing_is_added(shop: Shop) -> None:
    """What is not in it was left out by the placement's rules: it must not come back from elsewhere."""
    await shop.put(cart=["c1", "c2"], recs=["a", "c1", "b"], all=["c2", "x"])
    assert (await shop.client.recommendations("u1", "cart", k=2)).items == ["c1", "c2"]
    recs = await shop.client.recommendations("u1", "cart", k=4)
    assert (recs.items, recs.source) == (["c1", "c2"], "recs:cart")
    assert [model for _, model in recs.why] == ["cart", "cart"]
    assert (await shop.client.recommendations("u1", "cart", k=2, exclude=["c1"])).items == ["c2"]
    assert (await shop.client.recommendations("u1", "cart", exclude=["c1", "c2"])).items == ["x"]
    assert (await shop.client.recommendations("u1", "no-such-place", k=3)).items == ["a", "c1", "b"]


async def test_a_placements_list_that_its_rules_left_empty_is_no_reason_to_show_the_plain_one(shop: Shop) -> None:
    await shop.put(cart=[], recs=["a"], all=["x"])
    assert (await shop.client.recommendations("u1", "cart")).items == ["x"]


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
async def test_nobody_there_is_unavailable(scheme: str, reader: Reader) -> None:
    async with reader(f"{scheme}://127.0.0.1:{free_ports(1)[0]}/0", strict=True) as client:
        with pytest.raises(UnavailableError, match=r"^Redis does not answer"):
            await client.recommendations("u1")


async def test_a_frozen_server_is_unavailable_in_time_and_a_restarted_one_is_not(
    redis_server: RedisServer, reader: Reader
) -> None:
    async with reader(redis_server.url, timeout=2, strict=True) as client:
        assert await client.profile("u1") == {}
        redis_server.pause()
        with pytest.raises(UnavailableError, match="within 2 s"):
            await client.profile("u1")
        redis_server.resume()
        await asyncio.to_thread(redis_server.restart)
        assert await client.profile("u1") == {}


async def test_a_wrong_password_is_a_configuration_error(reader: Reader) -> None:
    with RedisServer("s3cret") as server:
        for login in (":wrong@", ""):
            async with reader(f"redis://{login}127.0.0.1:{server.port}/0", strict=True, timeout=PATIENCE_S) as client:
                with pytest.raises(ConfigurationError, match="refused"):
                    await client.profile("u1")


def test_a_bad_address_is_a_configuration_error(reader: Reader) -> None:
    for url in ("http://h", "redis://h/?no_such_option=1", "redis://h:port/0"):
        with pytest.raises(ConfigurationError, match="bad Redis address"):
            reader(url)


def test_k_is_at_least_one() -> None:
    with pytest.raises(BadInputError, match="k is at least 1"):
        top_up([], 0)


def test_an_excluded_head_list_is_not_the_source() -> None:
    one, two = (Recommendations(items=[name], scores=[1.0], ts=n) for n, name in enumerate("ab"))
    merged = top_up([("one", one), ("two", two)], 5, {"a"})
    assert (merged.items, merged.source, merged.ts) == (["b"], "two", 1)


async def test_what_the_catalogue_hides_is_left_out_of_every_list(shop: Shop) -> None:
    await shop.put(cart=["c", "gone", "a"], recs=["gone", "b"], all=["gone", "sold", "x", "y"])
    await shop.catalogue(gone={"hidden": True}, sold={"hidden": True, "title": "Sold"}, a={"title": "A", "price": 2.5})
    recs = await shop.client.recommendations("u1", "cart", k=4)
    assert recs.items == ["c", "a"]
    assert [known and (known.title, known.price) for known in recs.details] == [None, ("A", 2.5)]
    assert (await shop.client.recommendations("u1", k=3)).items == ["b", "x", "y"]
    assert (await shop.client.trending(k=2)).items == ["x", "y"]
    assert (await shop.client.similar("none")).items == []
    await shop.catalogue(gone={"hidden": False})
    assert (await shop.client.recommendations("u1", "cart", k=2)).items == ["c", "gone"]


async def test_a_full_list_that_turns_out_short_is_topped_up(shop: Shop) -> None:
    await shop.profile(segment="3")
    await shop.put(recs=["gone", "a"], segment=["s"], all=["x"])
    await shop.catalogue(gone={"hidden": True})
    assert (await shop.client.recommendations("u1", k=2)).items == ["a", "s"]


async def test_items_and_explanations_with_titles(shop: Shop) -> None:
    await shop.put(recs=["a"], all=["x"])
    await shop.catalogue(i9={"title": "Tunnel tent"}, a={"price": 3})
    found = await shop.client.items(["a", "i9", "unknown"])
    assert {item: (known.title, known.price) for item, known in found.items()} == {
        "a": (None, 3),
        "i9": ("Tunnel tent", None),
    }
    assert await shop.client.items([]) == {}
    recs = await shop.client.recommendations("u1")
    assert recs.why == [("i9", "recs"), ("i9", "all")]
    assert await shop.client.explanations(recs) == ["Because you looked at Tunnel tent"] * 2
    own = with_templates({"all": ("Like {origin}", "Popular")})
    assert await shop.client.explanations(recs, own) == ["Because you looked at Tunnel tent", "Like Tunnel tent"]


async def test_without_a_catalogue_nothing_is_asked_of_it(redis_url: str, topic_prefix: str, reader: Reader) -> None:
    store = await RedisStore.connect(redis_url)
    async with reader(redis_url, prefix=topic_prefix, strict=True, catalogue=False, timeout=PATIENCE_S) as client:
        shop = Shop(client, store, Keys(topic_prefix))
        await shop.put(recs=["gone", "a"])
        await shop.catalogue(gone={"hidden": True})
        recs = await client.recommendations("u1", k=2)
        assert (recs.items, recs.details) == (["gone", "a"], [None, None])
        assert client.cache.misses == 1  # the list of everybody
        with pytest.raises(BadInputError, match="only the catalogue tells category"):
            await client.recommendations("u1", category="shoes")
    await store.close()


async def test_shared_keys_are_asked_for_once_a_while_and_a_users_each_time(
    redis_url: str, topic_prefix: str, reader: Reader
) -> None:
    store = await RedisStore.connect(redis_url)
    async with reader(redis_url, prefix=topic_prefix, cache_s=1_000, timeout=PATIENCE_S) as client:
        shop = Shop(client, store, Keys(topic_prefix))
        await shop.put(recs=["a"], all=["x", "y"])
        assert (await client.recommendations("u1", k=3)).items == ["a", "x", "y"]
        asked = client.cache.misses
        assert asked == 4  # the list of everybody, and three items
        await shop.put(recs=["b", "a"], all=["z"])
        assert (await client.recommendations("u1", k=3)).items == ["b", "a", "x"]
        assert client.cache.misses == asked + 1  # item b
        assert client.cache.hits == 4
    await store.close()


async def test_without_redis_a_page_shows_what_is_known_and_says_so(
    redis_server: RedisServer, reader: Reader, topic_prefix: str
) -> None:
    store = await RedisStore.connect(redis_server.url)
    async with reader(redis_server.url, prefix=topic_prefix, timeout=2) as client:
        shop = Shop(client, store, Keys(topic_prefix))
        await shop.put(recs=["a", "b"], all=["x", "gone", "y"])
        await shop.catalogue(gone={"hidden": True}, x={"title": "X"})
        assert (await client.trending()).items == ["x", "y"]
        recs = await client.recommendations("u1", k=1)
        assert (recs.items, recs.fault, client.fault) == (["a"], "", "")
        await store.close()
        redis_server.pause()
        for user in ("u1", "nobody"):
            recs = await client.recommendations(user, k=2)
            assert (recs.items, recs.source) == (["x", "y"], "trending:all")
            assert recs.details[0] is not None
            assert "no answer within 2 s" in recs.fault
        assert (await client.similar("never-read")).items == []
        assert (await client.offers("u1"), await client.profile("u1")) == ([], {})
        assert "no answer" in client.fault
        redis_server.resume()

        async def back() -> bool:  # it is asked again after a pause
            recs = await client.recommendations("u1", k=2)
            return (recs.items, recs.fault) == (["a", "b"], "")

        await until(back)
        assert client.fault == ""


async def test_nothing_into_a_page_raises_but_a_callers_mistake(
    redis_url: str, topic_prefix: str, reader: Reader
) -> None:
    (nobody,) = free_ports(1)
    async with reader(f"redis://127.0.0.1:{nobody}/0") as client:
        recs = await client.recommendations("u1", "cart")
        assert (recs.items, recs.fault[:21]) == ([], "Redis does not answer")
        for wrong in (client.recommendations("u1", k=0), client.recommendations(""), client.offers("")):
            with pytest.raises(BadInputError):
                await wrong
    store = await RedisStore.connect(redis_url)
    async with reader(redis_url, prefix=topic_prefix, timeout=PATIENCE_S) as client:
        shop = Shop(client, store, Keys(topic_prefix))
        await shop.put(all=["x"])
        batch = WriteBatch()
        batch.set(shop.keys.recs("u1"), b"{}", 60)
        batch.hset(shop.keys.offers("u2"), {b"f": b"1"}, 60)
        await shop.store.flush(batch)
        recs = await client.recommendations("u1")  # the user's own value is broken: the others' list is shown
        assert (recs.items, "missing required field" in recs.fault) == (["x"], True)
        assert await client.offers("u2") == []
        assert "WRONGTYPE" in client.fault or "wrong kind" in client.fault
        assert (await client.recommendations("u2")).fault == ""
    await store.close()


async def test_many_threads_or_tasks_share_a_reader(redis_url: str, topic_prefix: str, reader: Reader) -> None:
    store = await RedisStore.connect(redis_url)
    async with reader(redis_url, prefix=topic_prefix, strict=True, cache_s=0.001, timeout=PATIENCE_S) as client:
        shop = Shop(client, store, Keys(topic_prefix))
        await shop.put(recs=["a"], all=["x"])
        await shop.catalogue(x={"title": "X"})
        found = await asyncio.gather(*(client.recommendations(f"u{n % 3}", k=2) for n in range(100)))
        assert [recs.items for recs in found] == [["a", "x"] if n % 3 == 1 else ["x"] for n in range(100)]
    await store.close()


async def test_tracked_keys_are_kept_until_redis_says_that_they_changed(
    redis_url: str, topic_prefix: str, reader: Reader
) -> None:
    store = await RedisStore.connect(redis_url)
    async with reader(
        redis_url, prefix=topic_prefix, strict=True, cache_s=0, tracking=True, timeout=PATIENCE_S
    ) as client:
        shop = Shop(client, store, Keys(topic_prefix))
        await shop.put(all=["x", "y"])
        await shop.catalogue(x={"title": "old"})

        async def shown(*wanted: tuple[str, str | None]) -> bool:
            recs = await client.recommendations("nobody", k=2)
            titles = [known.title if known else None for known in recs.details]
            return list(zip(recs.items, titles, strict=True)) == list(wanted)

        async def asks_for_nothing_shared() -> bool:
            misses = client.cache.misses
            assert await shown(("x", "old"), ("y", None))
            return bool(client.cache.misses == misses)

        await until(asks_for_nothing_shared)
        await shop.catalogue(x={"title": "new"})
        await until(partial(shown, ("x", "new"), ("y", None)))
        await shop.catalogue(y={"hidden": True})
        await shop.put(all=["x", "y", "z"])
        await until(partial(shown, ("x", "new"), ("z", None)))
    await store.close()


async def test_a_tracking_connection_that_is_lost_is_not_believed(
    redis_server: RedisServer, topic_prefix: str, reader: Reader
) -> None:
    async with reader(
        redis_server.url, prefix=topic_prefix, strict=True, cache_s=0, tracking=True, timeout=PATIENCE_S
    ) as client:
        store = await RedisStore.connect(redis_server.url)
        shop = Shop(client, store, Keys(topic_prefix))
        await shop.put(all=["x"])

        async def shown(item: str, hits: int = 0) -> bool:
            return (await client.trending()).items == [item] and client.cache.hits >= hits

        await until(partial(shown, "x", hits=1))
        await store.close()
        await asyncio.to_thread(redis_server.restart)
        store = await RedisStore.connect(redis_server.url)
        await Shop(client, store, shop.keys).put(all=["y"])
        await until(partial(shown, "y"))
        await store.close()


async def test_a_server_that_does_not_permit_tracking_is_read_as_without(topic_prefix: str, reader: Reader) -> None:
    with RedisServer() as server:
        with server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "page", "on", ">pw", "~*", "+@all", "-client|tracking")
        url = f"redis://page:pw@127.0.0.1:{server.port}/0"
        store = await RedisStore.connect(server.url)
        async with reader(
            url, prefix=topic_prefix, strict=True, cache_s=0, tracking=True, timeout=PATIENCE_S
        ) as client:
            shop = Shop(client, store, Keys(topic_prefix))
            await shop.put(all=["x"])

            async def refused() -> bool:
                assert (await client.trending()).items == ["x"]
                return bool(client.tracker and client.tracker.refused)

            await until(refused)
            assert client.tracker
            assert "client|tracking" in client.tracker.refused
            assert client.cache.hits == 0
        await store.close()

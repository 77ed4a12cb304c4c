"""What a worker does with input of every kind: learned, dead-lettered, re-keyed or counted, and nothing is lost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed

from models.hashing import partition_of
from models.offers import Offer
from stream.cli.offers import publish_offers
from stream.keys import parse_list, parse_profile
from tests.records import event
from tests.worker_process import Installation

pytestmark = pytest.mark.asyncio(loop_scope="module")
DAY_S = 86_400


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shop(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    """A worker that has learned what goes with what: tents with bags and stoves, pans with lids."""
    folder = tmp_path_factory.mktemp("inputs")
    async with Installation(kafka, redis_url, folder, f"t{time.time_ns():x}-") as shop:
        shop.start()
        habits = (("tent", "bag", "stove"), ("pan", "lid"))
        await shop.publish(
            event(f"seed{number}", item, at=number + place, event_id=f"seed{number}{item}")
            for number in range(40)
            for place, item in enumerate(habits[number % 2])
        )
        await shop.drained()
        yield shop


def place(user: str, partitions: int = 4) -> int:
    return partition_of(user.encode(), partitions)


def users_of(partition: int, count: int, name: str) -> list[str]:
    """Users of one partition."""
    return [user for user in (f"{name}{n}" for n in range(1000)) if place(user) == partition][:count]


@asynccontextmanager
async def counting(shop: Installation, **expected: int) -> AsyncIterator[None]:
    """Whatever is written inside is counted exactly so; names with one underscore for the colon of ``dead:reason``."""
    before = await shop.counts()
    yield
    await shop.drained()
    # a re-keyed event comes back as one more record, which has to be drained, too
    await shop.drained()
    found = {name.replace(":", "_"): count for name, count in (await shop.counts() - before).items()}
    found.pop("without_id", None)
    assert found == expected
    assert all(facts.get("lost", 0) == 0 for facts in (await shop.progress.facts()).values())


async def dead_letters(shop: Installation, seen: set[int]) -> list[ConsumerRecord]:
    """Dead letters that were not there before."""
    return [record for record in await shop.read("dlq") if record.offset not in seen]


async def events_of(shop: Installation, user: str) -> int:
    """Events that were learned of a user who has a profile."""
    fields = await shop.progress.store.hgetall(shop.keys.profile(user))
    return int(parse_profile(fields)["events"]) if fields else 0


async def visit(shop: Installation, user: str, *items: str, at: float = 100, **fields: Any) -> None:
    """A user views an item and everything that follows is done."""
    await shop.publish([event(user, *items, at=at, **fields)])
    await shop.drained()


async def keep_visiting(
    shop: Installation, user: str, item: str, condition: Callable[[], Awaitable[bool]], what: str
) -> None:
    """Visit until a change of catalogue or offers, which arrives on its own, is seen in what is pushed."""
    visits = 0

    async def visited() -> bool:
        nonlocal visits
        visits += 1
        await visit(shop, user, item, at=1000 + visits)
        return await condition()

    await shop.until(visited, what)


BAD: dict[str, tuple[bytes, str]] = {
    "cut off": (b'{"event_name":"view_item","user_id":', "not_json"),
    "not UTF-8": (b'{"event_name":"view_item","user_id":"\xff"}', "not_json"),
    "a number": (b"42", "unknown_shape"),
    "a text": (b'"view"', "unknown_shape"),
    "unknown control": (b'{"control":"self_destruct"}', "unknown_shape"),
    "wrong type": (b'{"event_name":"view_item","user_id":7}', "schema"),
    "no name": (b'{"user_id":"u"}', "schema"),
    "empty user": (b'{"event_name":"view_item","user_id":""}', "schema"),
    "no user": (b'{"event_name":"view_item"}', "missing_user"),
    "long id": (b'{"event_name":"view_item","user_id":"%s"}' % (b"x" * 300), "schema"),
    "control character": (b'{"event_name":"view_item","user_id":"a\\u0001b"}', "id_invalid"),
    "before 2000": (
        b'{"event_name":"view_item","user_id":"u","event_timestamp":"1999-12-31T23:59:59Z"}',
        "time_absurd",
    ),
    "no time": (b'{"event_name":"view_item","user_id":"u","event_timestamp":"soon"}', "time_absurd"),
    "nothing": (b"", "empty"),
    "no events": (b'{"events":[]}', "empty"),
}


async def test_what_is_not_valid_is_dead_lettered_with_reason_identity_and_its_bytes(shop: Installation) -> None:
    ahead = (time.time() + 2 * 3600) * 1e6
    bad = BAD | {
        "2 h ahead": (b'{"event_name":"view_item","user_id":"u","event_timestamp":%d}' % ahead, "time_absurd"),
        "1.2 MB": (b'{"event_name":"view_item","user_id":"u","x":"%s"}' % (b"x" * 1_200_000), "too_large"),
    }
    reasons = Counter(reason for _, reason in bad.values())
    seen = {record.offset for record in await shop.read("dlq")}
    sent = {}
    async with counting(shop, learned=2, **{f"dead_{reason}": count for reason, count in reasons.items()}):
        await shop.publish([event("before", "tent", event_id="before")])
        for value, reason in bad.values():
            written = await shop.write("events", value, b"somebody", place("somebody"))
            sent[b"%d" % written.offset] = (value, reason.encode())
        await shop.publish([event("somebody", "tent", event_id="after")])
    letters = await dead_letters(shop, seen)
    assert len(letters) == len(bad)
    for letter in letters:
        headers: dict[str, bytes] = dict(letter.headers)
        value, why = sent[headers["offset"]]
        assert (letter.key, letter.value or b"", headers["reason"]) == (b"somebody", value, why)
        assert headers["topic"] == shop.settings.topic("events").encode()
        assert (headers["partition"], headers["index"]) == (b"%d" % place("somebody"), b"0")
        assert headers["detail"]
    assert await shop.list_of("somebody")  # the stream went on behind them


async def test_of_a_batch_only_the_bad_element_is_refused(shop: Installation) -> None:
    user = "batcher"
    good = [event(user, "tent", at=1, event_id="b1"), event(user, "bag", at=2, event_id="b2")]
    seen = {record.offset for record in await shop.read("dlq")}
    async with counting(shop, learned=2, dead_schema=1):
        value = msgspec.json.encode({"events": [good[0], {"user_id": user}, good[1]]})
        written = await shop.write("events", value, user.encode(), place(user))
    (letter,) = await dead_letters(shop, seen)
    headers = dict(letter.headers)
    assert (headers["index"], headers["offset"]) == (b"1", b"%d" % written.offset)
    assert letter.value == msgspec.json.encode({"user_id": user})
    assert await events_of(shop, user) == 2


async def test_duplicates_and_late_events_are_counted_and_not_learned(shop: Installation) -> None:
    user = "twice"
    one = event(user, "tent", at=50, event_id="once")
    late = event(user, "pan", at=50 - 2 * DAY_S, event_id="late")
    within = event(user, "bag", at=50 - DAY_S / 2, event_id="within")
    async with counting(shop, learned=2, duplicates=2, late=1):
        await shop.publish([one, one, late, within, one])
    found = await shop.list_of(user)
    assert found is not None
    assert "lid" not in found.items  # nothing was learned from the late event on the pan


async def test_events_in_a_wrong_partition_are_learned_once_in_the_right_one(shop: Installation) -> None:
    """With and without an id, alone and in a batch; also when the same record comes twice."""
    wrong = 1
    with_id, without_id = users_of(2, 2, "lost")
    async with counting(shop, learned=2, rekeyed=3, duplicates=1):
        value = msgspec.json.encode(event(with_id, "tent", event_id="foreign"))
        for _ in range(2):
            await shop.write("events", value, b"wrong key", wrong)
        await shop.write("events", msgspec.json.encode(event(without_id, "tent")), b"wrong key", wrong)
    home = [
        r for r in await shop.read("events") if r.partition == 2 and r.key in {with_id.encode(), without_id.encode()}
    ]
    ids = [msgspec.json.decode(record.value)["event_id"] for record in home]
    assert ids[:2] == ["foreign", "foreign"]
    assert ids[2].startswith(f"rekeyed-{wrong}-")
    for user in (with_id, without_id):
        assert await events_of(shop, user) == 1
        found = await shop.list_of(user)
        assert found is not None
        assert {"bag", "stove"} <= set(found.items)


async def test_a_batch_of_many_users_is_split(shop: Installation) -> None:
    users = [user for partition in range(4) for user in users_of(partition, 3, "crowd")]
    events = [event(user, "pan", at=n) for n, user in enumerate(users)]
    async with counting(shop, learned=12, rekeyed=9):
        await shop.write("events", msgspec.json.encode(events), users[0].encode(), 0)
    assert [await events_of(shop, user) for user in users] == [1] * 12
    found = await shop.lists(users)
    assert all("lid" in found[user].items for user in users)


async def test_other_shapes_are_learned_wherever_they_arrive(shop: Installation) -> None:
    call = {"type": "track", "event": "Product Viewed", "timestamp": "2025-06-15T15:10:00Z"}
    users = [users_of(partition, 1, "caller")[0] for partition in range(4)]
    calls = [{**call, "userId": user, "messageId": f"m-{user}", "properties": {"product_id": "tent"}} for user in users]
    group = {"type": "group", "userId": users[0], "groupId": "g"}
    hit = {"name": "view_item", "params": {"items": [{"item_id": "pan"}]}}
    request = {"client_id": users[0], "timestamp_micros": 1_750_007_400_000_000, "events": [hit]}
    seen = {record.offset for record in await shop.read("dlq")}
    async with counting(shop, learned=4, rekeyed=3, dead_unmapped=1, shape_segment=4):
        await shop.write("events", msgspec.json.encode({"batch": [*calls, group]}), b"any key", 0)
    assert [await events_of(shop, user) for user in users] == [1] * 4
    found = await shop.lists(users)
    assert all({"bag", "stove"} <= set(found[user].items) for user in users)
    (letter,) = await dead_letters(shop, seen)
    assert msgspec.json.decode(letter.value) == group
    assert dict(letter.headers)["index"] == b"4"
    async with counting(shop, learned=1, shape_ga4_measurement_protocol=1):
        await shop.write("events", msgspec.json.encode(request), b"any key", 0)
    assert await events_of(shop, users[0]) == 2


async def test_consent_is_obeyed(shop: Installation) -> None:
    user, denied, granted = "careful", {"analytics_storage": "denied"}, {"analytics_storage": "granted"}
    async with counting(shop, denied=2):
        await visit(shop, user, "tent", consent=denied)
        await visit(shop, user, "bag")  # what was said holds until something else is said
    assert await shop.list_of(user) is None
    async with counting(shop, learned=1):
        await visit(shop, user, "tent", at=101, consent=granted)
    assert await shop.list_of(user)
    async with counting(shop, learned=1):  # learning is fine, but nothing personal is shown any more
        await visit(shop, user, "tent", at=102, name="add_to_cart", consent={"personalization_storage": "denied"})
    assert await shop.list_of(user) is None
    assert await shop.progress.store.hgetall(shop.keys.profile(user)) == {}
    async with counting(shop, denied=1):  # refusing to be learned from says nothing about what is shown
        await visit(shop, user, "pan", at=103, consent=denied | {"personalization_storage": "granted"})
    found = await shop.list_of(user)
    assert found is not None
    assert "lid" not in found.items


async def test_a_withdrawn_item_disappears_from_every_list(shop: Installation) -> None:
    keys = [
        shop.keys.recs("camper"),
        shop.keys.similar("tent"),
        shop.keys.trending(),
        shop.keys.trending(category="cat-b"),
    ]

    async def listed() -> list[bool]:
        return [value is not None and "bag" in parse_list(value).items for value in await shop.progress.store.get(keys)]

    async def shown() -> bool:
        return all(await listed())

    async def hidden() -> bool:
        return not any(await listed())

    await keep_visiting(shop, "camper", "tent", shown, "nothing is said yet")
    article = {"item_id": "bag", "title": "Sleeping bag", "stock": 0}
    for value, condition in (
        (article, hidden),
        (article | {"stock": 3}, shown),
        (None, hidden),
        (article | {"stock": None}, shown),
        (article | {"stock": 3, "availability": "discontinued"}, hidden),
        (article | {"stock": 3, "availability": "preorder"}, shown),
    ):
        await shop.write("items", None if value is None else msgspec.json.encode(value), b"bag", 0)
        await keep_visiting(shop, "camper", "tent", condition, f"catalogue says {value}")
    for broken in (b"{", b'{"item_id":""}', b'{"item_id":"a\\u0000b"}'):  # refused, and read on behind it
        await shop.write("items", broken, b"bag", 0)
    await shop.write("items", None, b"a\0b", 0)
    await shop.write("items", None, b"bag", 0)
    await keep_visiting(shop, "camper", "tent", hidden, "the catalogue is read on")


async def test_offers_come_and_go(shop: Installation) -> None:
    camping = Offer(id="camping", categories=("cat-s",), value=2.0, min_category_affinity={"cat-t": 0.5})

    async def offered() -> bool:
        found = await shop.offers_of("offered")
        return found is not None and [offer.id for offer in found.offers] == ["camping"]

    async def gone() -> bool:
        return await shop.offers_of("offered") is None

    await publish_offers(shop.settings, [camping], [])
    await keep_visiting(shop, "offered", "tent", offered, "the offer is pushed")
    await visit(shop, "cook", "pan")  # not eligible
    assert await shop.list_of("cook")
    assert await shop.offers_of("cook") is None
    await publish_offers(shop.settings, [], ["camping"])
    await keep_visiting(shop, "offered", "tent", gone, "the offer is withdrawn")


async def test_the_books_add_up(shop: Installation) -> None:
    """Every element of every record in topic events is counted under exactly one heading."""
    elements = sum(elements_of(record.value or b"") for record in await shop.read("events"))
    counts = await shop.counts()
    kinds = ("learned", "duplicates", "late", "denied", "rekeyed")
    dead = sum(count for kind, count in counts.items() if kind.startswith("dead:"))
    assert sum(counts[kind] for kind in kinds) + dead == elements
    assert len(await shop.read("dlq")) == dead
    assert shop.workers[0].running


def elements_of(value: bytes) -> int:
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return 1
    elements = found.get("events", found.get("batch")) if isinstance(found, dict) else found
    return max(len(elements), 1) if isinstance(elements, list) else 1

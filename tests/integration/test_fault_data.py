"""Data that is out of the ordinary: clocks that jump, batches of poison, a hot user, a hot item."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from stream.demo.shop import Shop
from tests.pages import installation, recovered
from tests.records import event
from tests.worker_process import ROOM, balance, canonical_users, different, local_lists

DAY = 86_400
YEAR = 365 * DAY

# Replaces the clock of the process it is imported into, before anything else is: a day ahead or behind, in turns.
JUMPING_CLOCK = """
import time
real, monotonic = time.time, time.monotonic
time.time = lambda: real() + 86_400 * ((int(monotonic() * 3) % 3) - 1)
time.time_ns = lambda: int(time.time() * 1e9)
"""


@pytest.fixture
def visits() -> list[dict[str, Any]]:
    """Events of a small shop on a short shelf."""
    shop = Shop(seed=8, users=300)
    shelf = {product["item_id"] for product in shop.catalogue()[:60]}
    found = (each for each in shop.events() if all(item["item_id"] in shelf for item in each.get("items", ())))
    return list(islice(found, 3_000))


async def test_a_wall_clock_that_jumps_changes_nothing(
    kafka: str,
    redis_url: str,
    topic_prefix: str,
    tmp_path: Path,
    visits: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(JUMPING_CLOCK)
    root = Path(__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
    bounds = {"neighbours": ROOM, "transitions": ROOM}
    async with installation(kafka, redis_url, tmp_path, topic_prefix, **bounds) as (shop, pages):
        worker = shop.start()
        for start in range(0, len(visits), 300):  # over a few seconds, so that the clock jumps in between
            await shop.publish(visits[start : start + 300])
            await shop.drained()
        await shop.republish()
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent
        assert different(await shop.lists(canonical_users(visits)), await local_lists(visits, shop.settings)) == []
        await recovered(shop, pages)
        assert await worker.terminate() == 0


async def test_event_times_that_jump_are_refused_and_do_not_move_the_watermark(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, visits: list[dict[str, Any]]
) -> None:
    dice = random.Random(9)
    wild = [
        *(event(f"ahead{n}", "tent", at=50 * YEAR + dice.randrange(YEAR)) for n in range(200)),
        *(event(f"ancient{n}", "tent", at=-50 * YEAR - dice.randrange(YEAR)) for n in range(200)),
    ]
    behind = [event(f"behind{n}", "tent", at=-3 * YEAR) for n in range(200)]
    async with installation(kafka, redis_url, tmp_path, topic_prefix) as (shop, pages):
        shop.start()
        await shop.publish(visits[:1_500])
        await shop.publish([*wild, *behind])
        await shop.publish(visits[1_500:])
        await shop.drained()
        counts = await shop.counts()
        assert counts["dead:time_absurd"] == len(wild)
        assert counts["late"] == len(behind)
        assert counts["learned"] == len(visits)
        assert balance(counts) == shop.sent
        await recovered(shop, pages)


def poison() -> Iterator[bytes]:
    """Bytes that are no event, of many kinds, some of them large."""
    dice = random.Random(10)
    while True:
        yield dice.randbytes(dice.randrange(200))
        yield b"[" * 50_000
        yield b'{"event_name":"view_item","user_id":"' + b"x" * 1_000_000 + b'"}'
        yield b'{"event_name":"view_item","user_id":"p","event_timestamp":1e999}'
        yield b'{"event_name":"view_item","user_id":"p","items":[{"item_id":"' + b"\\u0000" * 300 + b'"}]}'
        yield b'{"events":' + b'[{"user_id":' * 500 + b"]" * 500 + b"}"
        yield b'{"control":"rank","users":[1]}'
        yield b""


async def test_fetches_full_of_poison_end_in_the_dead_letters_one_by_one(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, visits: list[dict[str, Any]]
) -> None:
    crowd = b",".join(b'{"item_id":"i%d"}' % n for n in range(45_000))
    crowds = [b"[" + b"0," * 500_000 + b"0]", b'{"event_name":"purchase","user_id":"p","items":[' + crowd + b"]}"]
    bad = [*islice(poison(), 800), *crowds]
    async with installation(kafka, redis_url, tmp_path, topic_prefix) as (shop, pages):
        for role in ("items", "offers"):  # which every start reads again
            await shop.write(role, b'{"item_id":"deep","id":"deep","x":' + b"[" * 1_200 + b"]" * 1_200 + b"}", b"deep")
        worker = shop.start()
        await shop.publish(visits[:1_500])
        for start in range(0, len(bad), 100):
            await shop.publish(bad[start : start + 100], key=f"poison{start}")
        await shop.publish(visits[1_500:])
        await shop.drained()
        counts = await shop.counts()
        letters = await shop.read("dlq")
        assert {letter.value for letter in letters} == set(bad)
        places = {
            tuple(value for name, value in letter.headers if name in ("partition", "offset", "index"))
            for letter in letters
        }
        assert len(letters) == len(places) == sum(n for kind, n in counts.items() if kind.startswith("dead:"))
        assert len(letters) == len(bad)
        assert counts["learned"] == len(visits)
        assert balance(counts) == shop.sent
        assert len(worker.output.splitlines()) < len(bad)  # the topic tells of each, the log need not
        await recovered(shop, pages)
        assert await worker.terminate() == 0


async def test_a_hot_user_does_not_keep_others_waiting_and_costs_one_list_a_flush(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    hot = [event("bot", f"item{n % 70}", at=n / 100) for n in range(20_000)]
    others = [event(f"u{n}", f"item{n % 70}", f"item{(n + 1) % 70}", at=n / 100) for n in range(500)]
    async with installation(kafka, redis_url, tmp_path, topic_prefix) as (shop, pages):
        worker = shop.start()
        await shop.publish([each for n in range(500) for each in (*hot[n * 40 : n * 40 + 40], others[n])])
        await shop.drained()
        facts = (await shop.progress.facts())[worker.field]
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent
        assert facts["lists"] < len(hot) / 10
        await shop.republish()
        assert len(await shop.lists([f"u{n}" for n in range(500)])) == 500
        await recovered(shop, pages)


async def test_a_hot_item_has_a_bounded_row_and_lists_for_all_its_users(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    events = [
        event(f"u{n}", item, at=n / 100 + place) for n in range(4_000) for place, item in enumerate(("hot", f"i{n}"))
    ]
    async with installation(kafka, redis_url, tmp_path, topic_prefix, batch_records=200) as (shop, pages):
        first, second = shop.start(), shop.start(web_port="0")
        await shop.publish(events)
        await shop.republish()
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) == shop.sent
        lists = await shop.lists([f"u{n}" for n in range(0, 4_000, 40)])
        assert len(lists) == 100
        assert all(len(found.items) == shop.settings.k for found in lists.values())
        await recovered(shop, pages)
        assert await first.terminate() == await second.terminate() == 0

"""The doors of the command line, one after the other, as an operator would use them: on a real Kafka and Redis."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from aiokafka import TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete  # type: ignore[import-untyped]  # no py.typed
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from models.offers import Offer
from stream.cli.offers import publish_offers
from stream.doctor.kafka import check_kafka
from stream.keys import CONTRACT_VERSION
from tests.commands import command
from tests.patience import PATIENCE_S
from tests.records import event
from tests.worker_process import Installation, balance, environment

ROOT = Path(__file__).parents[2]
SCHEMAS = {path.name: json.loads(path.read_text()) for path in (ROOT / "stream" / "schemas").glob("*.schema.json")}
REGISTRY: Any = Registry().with_resources((name, Resource.from_contents(found)) for name, found in SCHEMAS.items())
GOLDEN = sorted((ROOT / "tests" / "stream" / "adapters" / "golden").glob("*.json"))
FILMS = ("at=event_timestamp", "viewer=user_id", "film=item_id", "eur=items.price")
HOUR_S = 3_600
HASHES = ("profile", "segment", "meta")
TOPICS = {"events": "event", "items": "item", "offers": "offer", "privacy": "request", "served": "served"}
USERS, EVENTS = 100, 3_000  # each 16th is a sample of segments, which begin with 128


async def rivulet(shop: Installation, *arguments: str, code: int = 0, stdin: str = "") -> str:
    """What a command prints, and what it says on the way."""
    ended, out, err = await command(shop, *arguments, stdin=stdin)
    assert ended == code, (arguments, out, err)
    return err + out


def last_json(printed: str) -> dict[str, Any]:
    """The summary behind whatever a progress bar left."""
    found: dict[str, Any] = json.loads(next(line for line in reversed(printed.splitlines()) if line.startswith("{")))
    return found


def films(folder: Path, name: str, seconds: int) -> str:
    """A table with columns of its own: who saw what, beginning some seconds since 1970."""
    columns = ("at", "viewer", "film", "eur")
    seen = enumerate([("v", "f1"), ("v", "f2"), ("w", "f1")])
    rows: list[tuple[Any, ...]] = [(seconds + n * 60, who, film, 3.5) for n, (who, film) in seen]
    if name.endswith("csv"):
        lines = [",".join(map(str, row)) for row in (columns, *rows)]
    else:
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder / name)


def mapped(file: str) -> list[str]:
    return [file, *(part for pair in FILMS for part in ("--map", pair)), "--set", "event_name=view_item"]


async def test_record_check_replay_get_and_watch(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    now = int(time.time())
    lines = [json.dumps({"event_name": "view_item", "user_id": f"u{n}", "item_id": "tent"}) for n in range(4)]
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        shop.start()
        await rivulet(shop, "publish", "-", stdin="\n".join(lines))
        await shop.drained()
        folder = tmp_path / "recorded"
        assert last_json(await rivulet(shop, "record", str(folder), "--all", "--json"))["total"] == 4
        assert last_json(await rivulet(shop, "record", str(folder), "--all", "--json"))["records"] == 0
        (file,) = folder.iterdir()
        assert last_json(await rivulet(shop, "check", str(file), "--json"))["taken"] == 4

        verb = [sys.executable, "-m", "stream.cli", "get", "w-2", "--watch", "--every", "0.05", "--json"]
        watching = await asyncio.create_subprocess_exec(
            *verb, env=environment(shop.settings), stdout=asyncio.subprocess.PIPE
        )
        assert watching.stdout is not None
        try:
            assert json.loads(await watching.stdout.readline())["recommendations"]["source"] != "recs"
            again = ["--loop", "2", "--users", "-{round}", "--speed", "1000", "--json"]
            table = mapped(films(tmp_path, "films.csv", now - HOUR_S))
            done = last_json(await rivulet(shop, "replay", *table, *again))
            assert (done["sent"], done["books"]["learned"], done["skipped"]) == (6, 6, 0)
            async with asyncio.timeout(PATIENCE_S):
                while "f2" not in (page := json.loads(await watching.stdout.readline()))["recommendations"]["items"]:
                    pass
            assert page["user"] == "w-2"
        finally:
            watching.terminate()
        assert await watching.wait() == 0

        objects = mapped(films(tmp_path, "films.jsonl", now - HOUR_S))
        done = last_json(await rivulet(shop, "replay", *objects, "--users", "-json", "--json"))
        assert (done["sent"], done["books"]["learned"], done["skipped"]) == (3, 3, 0)
        items = [
            json.loads(record.value).get("items") for record in await shop.read("events") if b"-json" in record.key
        ]
        assert sorted(item["item_id"] for [item] in items if item["price"] == 3.5) == ["f1", "f1", "f2"]

        told = await rivulet(shop, "replay", *mapped(films(tmp_path, "old.csv", now - 400 * 24 * HOUR_S)), *again[:-1])
        assert "sent 6 events; meanwhile the workers counted 6 late" in told
        assert "RIVULET_LATENESS_HOURS" in told
        once_more = last_json(await rivulet(shop, "replay", str(folder), "--json"))
        assert (once_more["sent"], once_more["books"]["duplicates"]) == (4, 4)
        assert "f2" in await rivulet(shop, "get", "w-2", "--why", "--profile", "--offers")


async def test_a_window_of_a_damaged_recording_is_replayed_and_the_line_is_named(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    now = int(time.time())
    at = [now - HOUR_S + 60 * n for n in range(5)]
    lines = [json.dumps(event("u", f"i{n}", event_id=f"e{n}", event_timestamp=s * 10**6)) for n, s in enumerate(at)]
    file = tmp_path / "damaged.jsonl"
    file.write_text("\n".join([*lines[:2], lines[2][:30], *lines[2:]]) + "\n")
    window = [str(file), "--from", moment(at[1]), "--until", moment(at[4])]
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        shop.start()
        code, _, told = await command(shop, "replay", *window)
        assert code == 4  # input that cannot be read
        assert "line 3" in told
        done = last_json(await rivulet(shop, "replay", *window, "--skip-bad", "--json"))
        await shop.drained()
        assert (done["sent"], done["skipped"]) == (3, 1)
        assert {json.loads(record.value)["items"][0]["item_id"] for record in await shop.read("events")} == {
            "i1",
            "i2",
            "i3",
        }
        counts = await shop.counts()
        assert counts["learned"] == balance(counts) - counts["duplicates"] == 3


def moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def test_every_published_form_is_learned_or_a_dead_letter_with_its_reason(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    settings = {"events_partitions": 1, "lateness_hours": 24 * 365 * 5}  # nothing in a wrong place, nothing too late
    shapes: Counter[str] = Counter()
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **settings) as shop:
        shop.start()
        for file in GOLDEN:
            for case in json.loads(file.read_text())["cases"]:
                value = case["sent"].encode() if isinstance(case["sent"], str) else json.dumps(case["sent"]).encode()
                headers = [(name, text.encode()) for name, text in case.get("headers", {}).items()]
                await shop.write("events", value, b"k", 0, headers)
                shapes[file.stem] += len(case["becomes"])
                shapes.update(refusal["reason"] for refusal in case["refused"])
        await shop.drained()
        counts = await shop.counts()
        letters = Counter(dict(letter.headers)["reason"].decode() for letter in await shop.read("dlq"))
        told = Counter(letters)
        for file in GOLDEN:
            told[file.stem] = sum(n for name, n in counts.items() if name.startswith(f"shape:{file.stem}"))
        assert told == shapes
        assert balance(counts) == shapes.total()
        assert {f"dead:{reason}": n for reason, n in letters.items()}.items() <= counts.items()


async def test_what_is_written_follows_the_schemas(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Values of the Redis contract and records of the topics that others write, as they really stand there."""
    kinds = {
        "recs": "list",
        "similar": "list",
        "trending": "list",
        "item": "item",
        "offers": "offers",
        "profile": "profile",
        "privacy": "privacy",
        "segment": "segment",
        "meta": "meta",
    }
    found: dict[str, int] = dict.fromkeys(kinds, 0)
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, ranking="blend", served=True) as shop:
        await publish_offers(shop.settings, [Offer(id="spring", items=("tent",), value=3.0)], [])
        shop.start()
        await rivulet(
            shop, "catalogue", "put", "-", stdin='{"item_id":"tent","title":"Tent","price":9,"currency":"EUR"}'
        )
        await shop.publish(event(f"u{n % USERS}", ("tent", "bag")[n // USERS % 2], at=n) for n in range(EVENTS))
        done = last_json(await rivulet(shop, "republish", "--json"))
        assert done == {"neighbours": shop.settings.covisits_partitions, "lists": USERS}
        for number, control in enumerate(("forget", "export")):
            request = {"control": control, "user": f"u{number}", "request": f"r{number}"}
            await shop.write("privacy", json.dumps(request).encode(), f"u{number}".encode())

        async def complete() -> bool:
            names = Counter(
                [part async for key in client.scan_iter(f"{shop.settings.prefix}:*") for part in key.split(":")]
            )
            return names["privacy"] == 2 and all(names[kind] for kind in kinds)

        client: Any  # its stubs do not know that answers are decoded
        async with redis.asyncio.Redis.from_url(redis_url, decode_responses=True) as client:
            await shop.until(complete, "keys of every kind")
            async for key in client.scan_iter(f"{shop.settings.prefix}:*"):
                kind = next((part for part in key.split(":") if part in kinds), None)
                if kind is None:
                    continue
                value = await client.hgetall(key) if kind in HASHES else json.loads(await client.get(key))
                follows(f"redis-{kinds[kind]}", value)
                found[kind] += 1
        assert all(found.values()), found
        for role, name in TOPICS.items():
            records = await shop.read(role)
            assert records, role
            for record in records:
                value = json.loads(record.value)
                follows("control" if "control" in value and role == "events" else name, value)


def follows(name: str, value: Any) -> None:
    schema = SCHEMAS[f"{name}.schema.json"]
    errors = [error.message for error in Draft202012Validator(schema, registry=REGISTRY).iter_errors(value)]
    assert errors == [], (name, value)


async def test_an_operator_sees_topics_settings_schemas_and_no_problem(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        assert json.loads((await command(shop, "topics", "--check", "--json"))[1])
        judged = json.loads((await command(shop, "doctor", "--json"))[1])
        assert judged
        assert "no problems" in await rivulet(shop, "doctor")
        assert kafka in await rivulet(shop, "settings")
        file = tmp_path / "shop.toml"
        file.write_text('ranking = "covisit"\nlog_level = "warning"\n')
        assert "no problems" in await rivulet(shop, "--settings", str(file), "doctor")
        assert f"file: {file}" in await rivulet(shop, "--settings", str(file), "settings")
        await rivulet(shop, "schemas", str(tmp_path / "schemas"))
        assert {path.name for path in (tmp_path / "schemas").iterdir()} >= set(SCHEMAS)


async def test_the_doctor_tells_that_another_version_writes_here(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.hset(shop.keys.meta.decode(), "contract", "999")
        report = last_json(await rivulet(shop, "doctor", "--json", code=1))
        (problem,) = [finding for finding in report["findings"] if finding["state"] == "problem"]
        assert problem["detail"] == f"{shop.keys.meta.decode()} says version 999, this is version {CONTRACT_VERSION}"
        assert "RIVULET_PREFIX" in problem["fix"]


async def test_the_doctor_tells_that_workers_do_not_share_a_folder(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:

        async def found() -> tuple[str, str]:
            (finding,) = [
                finding
                for finding in await check_kafka(shop.settings)
                if (finding.area, finding.check) == ("kafka", "snapshots")
            ]
            return finding.state, finding.detail

        worker = shop.start()
        await shop.publish([event(f"u{n}", "tent") for n in range(40)])
        await shop.drained()
        assert await worker.terminate() == 0
        assert (await found())[0] == "ok"
        shop.settings = shop.settings.model_copy(update={"snapshot_folder": str(tmp_path / "elsewhere")})
        state, detail = await found()
        assert state == "warning"
        assert f"{shop.settings.topic('events')}-0" in detail
        place = TopicPartition(shop.settings.topic("events"), 0)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        await admin.delete_records({place: RecordsToDelete(before_offset=1)})
        await admin.close()
        assert (await found())[0] == "problem"
        assert await shop.start().exit_code() == 1


@pytest.mark.parametrize("verb", ["doctor", "topics", "dlq", "record"])
async def test_without_a_server_a_command_ends_with_one_line_and_3(
    verb: str, kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        away = shop.settings.model_copy(update={"kafka": "127.0.0.1:1"})
        shop.settings, there = away, shop.settings
        arguments = {"dlq": ["dlq", "list"], "record": ["record", str(tmp_path / "out"), "--all"]}.get(verb, [verb])
        try:
            told = await rivulet(shop, *arguments, code=1 if verb == "doctor" else 3)
        finally:
            shop.settings = there
        assert "127.0.0.1:1" in told
        assert "Traceback" not in told
        assert verb == "doctor" or told.strip().splitlines()[-1].startswith("rivulet: ")

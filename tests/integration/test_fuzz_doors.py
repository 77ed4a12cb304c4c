"""Ten thousand mutated events through each door of real servers: taken or refused with a reason, to the last one."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiokafka.structs import ConsumerRecord  # type: ignore[import-untyped]  # no py.typed

from stream.decoding import decode
from stream.intake import judge
from stream.letters import SETTLED
from stream.local import LocalRecord
from stream.recordings.records import Raw, restore
from tests.brokers import free_ports
from tests.commands import command
from tests.gateways import Client, client_of
from tests.integration.test_gateway import GATEWAY, until_ready
from tests.mutations import OURS, mutated
from tests.worker_process import Installation, WorkerProcess, balance

CORPUS = 10_000
KEYS = 40  # of records, whatever users their events name: most lie in a wrong partition
IN_ARRAY = 20
AT_ONCE = 8


class Flood:
    """An installation whose topic ``events`` has taken the whole corpus as it is."""

    def __init__(self, shop: Installation, folder: Path) -> None:
        self.shop = shop
        self.folder = folder

    async def says(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """What a command prints as JSON."""
        ended, out, err = await command(self.shop, *arguments, "--json")
        assert ended == code, (arguments, out[-500:], err)
        found: dict[str, Any] = json.loads(out)
        return found

    async def books_hold(self) -> int:
        """Every element of every record is counted once, and every refused one is a dead letter; how many of these."""
        await self.shop.drained()
        await self.shop.drained()  # what lay in a wrong partition comes back as another record
        batches = [decode([raw]) for raw in map(raw_of, await self.shop.read("events"))]
        dead = sum(len(batch.dead) for batch in batches)
        counts = await self.shop.counts()
        assert balance(counts) == sum(len(batch.raw) for batch in batches) + dead
        letters = [record for record in await self.shop.read("dlq") if SETTLED not in dict(record.headers)]
        assert len(letters) == dead == sum(n for kind, n in counts.items() if kind.startswith("dead:"))
        assert all(worker.running for worker in self.shop.workers)
        return dead


def raw_of(record: ConsumerRecord) -> Raw:
    return Raw(record.offset, record.timestamp, record.key, record.value, tuple(record.headers))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def flood(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Flood]:
    folder = tmp_path_factory.mktemp("flood")
    async with Installation(kafka, redis_url, folder, f"t{time.time_ns():x}-") as shop:
        shop.start()
        corpus = list(mutated(CORPUS, seed=20_261_127))
        for number in range(KEYS):
            await shop.publish(corpus[number::KEYS], key=f"k{number}")
        yield Flood(shop, folder)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_topic(flood: Flood) -> None:
    assert await flood.books_hold() > CORPUS / 10


@pytest.mark.asyncio(loop_scope="module")
async def test_the_dead_letters(flood: Flood) -> None:
    dead = await flood.books_hold()
    listed = await flood.says("dlq", "list", "--limit", "0")
    assert Counter(listed["reasons"]).total() == dead
    outcome = await flood.says("dlq", "retry", "--all", code=4)
    assert outcome["letters"] + Counter(outcome["refused"]).total() == dead
    assert await flood.books_hold() == dead  # nothing that was sent again was refused again
    left = Counter((await flood.says("dlq", "list", "--limit", "0"))["reasons"]).total()
    assert left == Counter(outcome["refused"]).total()
    assert await flood.says("dlq", "drop", "--all") == {"dropped": left}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def recorded(flood: Flood) -> list[ConsumerRecord]:
    """What topic ``events`` holds, also in folder ``recorded``."""
    records = await flood.shop.read("events")
    out = flood.folder / "recorded"
    assert (await flood.says("record", str(out), "--all"))["total"] == len(records)
    return records


@pytest.mark.asyncio(loop_scope="module")
async def test_check(flood: Flood, recorded: list[ConsumerRecord]) -> None:
    (file,) = (flood.folder / "recorded").iterdir()
    report = await flood.says("check", str(file), code=4)
    batches = [decode([raw_of(record)]) for record in recorded]
    assert report["lines"] == len(recorded)
    assert report["controls"] == sum(len(batch.controls) for batch in batches)
    assert report["taken"] + report["refused"] == sum(len(batch.raw) + len(batch.dead) for batch in batches)


@pytest.mark.asyncio(loop_scope="module")
async def test_replay(flood: Flood, recorded: list[ConsumerRecord], kafka: str, redis_url: str) -> None:
    out = flood.folder / "recorded"
    parcels = [restore(record.partition, raw_of(record)) for record in recorded]
    sent, left_out = sum(len(each) for each, _ in parcels), sum(count for _, count in parcels)
    dry = await flood.says("replay", str(out), "--dry-run", code=4)
    assert (dry["lines"], dry["skipped"], dry["controls_left_out"]) == (sent, 0, left_out)
    async with Installation(kafka, redis_url, flood.folder / "again", f"t{time.time_ns():x}-") as again:
        again.start()
        copy = Flood(again, flood.folder)
        done = await copy.says("replay", str(out))
        assert (done["sent"], done["skipped"], done["controls_left_out"]) == (sent, 0, left_out)
        await copy.books_hold()


async def test_the_http_door(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path) -> None:
    """What is JSON comes in arrays, as from servers; what is damaged alone."""
    port, private = free_ports(2)
    ports = {"gateway_port": port, "gateway_private_port": private, "gateway_rate": 0}
    async with Installation(kafka, redis_url, tmp_path, topic_prefix, **ports) as shop:
        shop.workers.append(WorkerProcess(shop.settings, GATEWAY))
        bodies, waiting = [], list[bytes]()
        for value in mutated(CORPUS, seed=7):
            if is_object(value):
                waiting.append(value)
            else:
                bodies.append(value)
            if len(waiting) == IN_ARRAY:
                bodies.append(b"[%s]" % b",".join(waiting))
                waiting.clear()
        bodies += waiting
        async with client_of(port, private) as door:
            await until_ready(shop, door)
            accepted = await asyncio.gather(*(posted(door, bodies[n::AT_ONCE]) for n in range(AT_ONCE)))
        assert sum((await shop.progress.ends("events")).values()) == sum(accepted)
        assert sum(accepted) > CORPUS / 10


async def posted(door: Client, bodies: list[bytes]) -> int:
    """Post each; how many of their events were accepted. The rest of each is refused, element by element."""
    total = 0
    for body in bodies:
        reply = await door.post(body)
        assert reply.status in (202, 400), (reply, body)
        judged = judge(body, time.time_ns(), 4, 500)
        accepted, refused = reply.said.get("accepted", 0), reply.said.get("refused", [])
        assert accepted + len(refused) == len(judged.entries) + len(judged.refused), (reply, body)
        assert all(refusal["reason"] for refusal in refused)
        total += accepted
    return total


def is_object(value: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(value), dict)
    except (ValueError, RecursionError):  # in an array it would have all of it refused
        return False


@pytest.mark.parametrize("any_shape", [True, False])
async def test_publish(kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path, any_shape: bool) -> None:
    known = () if any_shape else OURS
    lines = [value for value in mutated(CORPUS * 2, 11, known) if b"\n" not in value and value.strip()][:CORPUS]
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\n".join(lines))
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        mapping = ["--any-shape"] if any_shape else []
        said = await Flood(shop, tmp_path).says("publish", str(file), "--skip-bad", *mapping)
        records = await shop.read("events")
    if any_shape:
        batches = [decode([LocalRecord(n, time.time_ns() // 1_000_000, None, line)]) for n, line in enumerate(lines)]
        bad = sum(len(batch.dead) + len(batch.controls) for batch in batches)
        assert (said["published"], said["skipped"]) == (sum(len(batch.raw) for batch in batches), bad)
    else:
        assert said["published"] + said["skipped"] == CORPUS
    assert len(records) == said["published"]
    assert min(said["published"], said["skipped"]) > CORPUS / 20
    assert not decode(list(map(raw_of, records))).dead

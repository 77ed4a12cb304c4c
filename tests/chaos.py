"""Chaos: workers and servers are killed, frozen, added and removed in mid-stream; what was learned must be exact.

``python tests/chaos.py --seeds 1-100 [--resume] --kills 5 --workers 3 --events 100000 --json``

Each seed writes a recorded stream (``RIVULET_DATA``, else ``../shared/data``) while its disturbances strike, drains,
republishes, stops all workers and compares their snapshots and lists with those of an undisturbed single worker. With
K kills a seed also has K other disturbances: frozen past the session timeout, added, removed, Kafka or Redis restarted
(Redis comes back empty). Progress is on stderr, one line a seed is kept in the results file, and so are the workers'
logs of a seed that failed. Exit code 1 if any seed failed.
"""

# ruff: noqa: E402  # the path first: this is run as a file
from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # not this folder: it holds `tests/models` and `tests/stream`
    os.environ["PYTHONPATH"] = str(ROOT)  # for the workers

import msgspec
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # no py.typed

from stream.keys import Recommendations
from tests.brokers import KafkaBroker, RedisServer
from tests.disturbances import Fleet, Step, plan
from tests.learned import Learned, Verdict, compare, learned
from tests.rough_stream import RoughStream, Written, rough_stream
from tests.worker_process import ROOM, Installation, different

RECORDING = "taobao_2h.csv.gz"  # its items have room for all their neighbours, so nothing is evicted
PARTITIONS = 4
CHUNK = 500
SETTLE_S = 15.0
PATIENCE_S = 150.0
SESSION_S = 3.0
SHOWN = 3  # examples of each kind of difference
# Of the seeds in turn. Small batches: more of them are under way when something strikes; large ones are decoded in
# slices and learned with pauses. The blend's lists depend on which rows a worker has: only what is learned is compared.
KINDS: tuple[dict[str, Any], ...] = (
    {"batch_records": 100},
    {"batch_records": 2_000},
    {"batch_records": 100},
    {"batch_records": 2_000, "ranking": "blend"},
)


class Outcome(msgspec.Struct):
    """What came of a seed; `error` tells of a run that could not be judged."""

    seed: int
    kills: int
    done: dict[str, int]
    restarted: int
    seconds: float
    events: int
    repeated: int
    copies: int
    given_back: int = 0
    lost: int = 0
    double: int = 0
    unaccounted: int = 0
    mismatched_lists: int = 0
    mismatched_users: int = 0
    mismatched_items: int = 0
    mismatched_windows: int = 0
    examples: list[str] = []
    error: str = ""
    logs: str = ""
    settings: dict[str, Any] = {}

    @property
    def failed(self) -> bool:
        """Whether anything was not as it must be."""
        wrong = self.lost + self.double + self.unaccounted + self.mismatched_lists + self.mismatched_users
        return bool(wrong + self.mismatched_items + self.mismatched_windows or self.error)


@dataclass(frozen=True)
class Left:
    """What a run left behind: learned state, lists, and events in each partition's log."""

    learned: Learned
    lists: dict[str, Recommendations]
    events: dict[int, int]


@dataclass
class Arena:
    """Servers and stream that all runs share."""

    kafka: KafkaBroker
    redis: RedisServer
    folder: Path
    stream: RoughStream

    def installation(self, name: str, **settings: Any) -> Installation:
        """A fresh installation with bounds that evict nothing."""
        return Installation(
            self.kafka.bootstrap,
            self.redis.url,
            self.folder / name,
            f"{name}-",
            events_partitions=PARTITIONS,
            session_s=SESSION_S,
            neighbours=ROOM,
            transitions=ROOM,
            **settings,
        )

    async def undisturbed(self) -> Left:
        """What a single worker leaves that nobody disturbs."""
        async with self.installation("calm") as shop:
            fleet = Fleet(shop, self.kafka, self.redis, 1)
            fleet.start()
            async with Writer(shop, self.stream.records) as writer:
                await writer.burst(len(self.stream.records))
            left = await self._left(shop, fleet)
        assert left.learned.fullest < ROOM, "rows are full: lists would depend on the order of deltas"
        book = sum(left.learned.books.values(), start=Counter())
        counted = {kind: book[kind] for kind in self.stream.counts}
        assert counted == self.stream.counts, f"counted {counted}, written {self.stream.counts}"
        assert left.learned.repeated == 0
        assert book["denied"] > 0
        return left

    async def disturbed(self, seed: int, steps: Sequence[Step], workers: int, expected: Left) -> Outcome:
        """Run one seed and judge it."""
        began = time.monotonic()
        settings = KINDS[seed % len(KINDS)]
        shop = self.installation(f"seed{seed}", **settings)
        fleet = Fleet(shop, self.kafka, self.redis, workers)
        outcome = Outcome(seed, 0, {}, 0, 0, 0, 0, 0, settings=settings)
        async with shop:
            try:
                await self._chaos(shop, fleet, steps)
                judge(outcome, await self._left(shop, fleet), expected)
            except (RuntimeError, TimeoutError, AssertionError) as error:
                outcome.error = str(error) or repr(error)
            outcome.kills, outcome.done, outcome.restarted = fleet.done["kill"], dict(fleet.done), fleet.restarted
            outcome.seconds = round(time.monotonic() - began, 1)
            if outcome.failed:
                outcome.logs = str(self._keep_logs(shop, seed))
        shutil.rmtree(self.folder / f"seed{seed}", ignore_errors=True)
        return outcome

    async def _chaos(self, shop: Installation, fleet: Fleet, steps: Sequence[Step]) -> None:
        fleet.start()
        share = len(self.stream.records) // (len(steps) + 1)
        async with Writer(shop, self.stream.records) as writer:
            for step in steps:
                if step.settle:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(SETTLE_S):
                            await fleet.settled()
                            await shop.progress.until("events", writer.ends)
                burst = asyncio.create_task(writer.burst(share))
                await asyncio.sleep(step.after_s)
                fleet.supervise()
                await fleet.disturb(step)
                await burst
            await fleet.calm()
            await writer.burst(len(self.stream.records))

    async def _left(self, shop: Installation, fleet: Fleet) -> Left:
        """Drain, republish, read the lists, end all workers, read their snapshots."""
        await shop.republish(PATIENCE_S)
        lists = await shop.lists(self.stream.users)
        ends = await shop.progress.ends("events")
        await fleet.stop()
        state = learned(shop.settings)
        events = {partition: end - state.books[partition]["controls"] for partition, end in ends.items()}
        return Left(state, lists, events)

    def _keep_logs(self, shop: Installation, seed: int) -> Path:
        kept = self.folder / "logs" / f"seed{seed}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for number, worker in enumerate(shop.workers):
            (kept / f"{number}-{worker.pid}.txt").write_text(worker.output)
        shutil.copytree(shop.settings.snapshot_folder, kept / "snapshots", dirs_exist_ok=True)
        return kept


def judge(outcome: Outcome, left: Left, expected: Left) -> None:
    """Compare what two runs left and note the differences."""
    verdict: Verdict = compare(left.learned, expected.learned, left.events, expected.events)
    lists = [] if "ranking" in outcome.settings else different(left.lists, expected.lists)
    outcome.lost, outcome.double, outcome.unaccounted = verdict.lost, verdict.double, verdict.unaccounted
    outcome.events, outcome.repeated = sum(left.events.values()), left.learned.repeated
    outcome.given_back = sum(book["returned"] for book in left.learned.books.values())
    outcome.copies = outcome.events - sum(expected.events.values())
    outcome.mismatched_lists, outcome.mismatched_users = len(lists), len(verdict.users)
    outcome.mismatched_items, outcome.mismatched_windows = len(verdict.items), len(verdict.windows)
    outcome.examples = [
        *(_example("user", name, left.learned.users, expected.learned.users) for name in verdict.users[:SHOWN]),
        *(_example("item", name, left.learned.items, expected.learned.items) for name in verdict.items[:SHOWN]),
        *(_example("window", at, left.learned.windows, expected.learned.windows) for at in verdict.windows[:SHOWN]),
        *(f"list of {user}: {mine} != {theirs}" for user, mine, theirs in lists[:SHOWN]),
    ]


def _example(what: str, key: Any, mine: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> str:
    return f"{what} {key}: {mine.get(key)} != {theirs.get(key)}"


class Writer:
    """Writes the stream in order, in bursts; an outage of the broker only delays it."""

    def __init__(self, shop: Installation, records: Sequence[Written]) -> None:
        self._topic = shop.settings.topic("events")
        self._producer = AIOKafkaProducer(
            bootstrap_servers=shop.settings.kafka, enable_idempotence=True, acks="all", linger_ms=5
        )
        self._records = records
        self._at = 0
        self.ends: dict[int, int] = {}

    async def __aenter__(self) -> Writer:
        await self._producer.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            await self._producer.stop()
            return
        with suppress(TimeoutError):  # the broker may be away for good
            await asyncio.wait_for(self._producer.stop(), 1)

    async def burst(self, count: int) -> None:
        """Write the next `count` records, as far as there are some, and return when all are acknowledged."""
        end = min(self._at + count, len(self._records))
        while self._at < end:
            chunk = self._records[self._at : min(self._at + CHUNK, end)]
            self._at += len(chunk)
            sent = [
                await self._producer.send(self._topic, record.value, key=record.key, partition=record.partition)
                for record in chunk
            ]
            for metadata in await asyncio.gather(*sent):
                self.ends[metadata.partition] = metadata.offset + 1


# --- the command --------------------------------------------------------------------------------------------------


class Plan(msgspec.Struct):
    """First line of a results file: what its seeds were run with."""

    kills: int
    workers: int
    events: int


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Totals over all seeds."""
    names = ("kills", "lost", "double", "unaccounted", "mismatched_lists", "mismatched_users", "mismatched_items")
    totals = {name: sum(getattr(outcome, name) for outcome in outcomes) for name in names}
    done = sum((Counter(outcome.done) for outcome in outcomes), start=Counter())
    failed = [outcome.seed for outcome in outcomes if outcome.failed]
    return {
        "seeds": len(outcomes),
        **totals,
        "failed": failed,
        "disturbances": dict(done),
        "repeated": sum(outcome.repeated for outcome in outcomes),
        "copies": sum(outcome.copies for outcome in outcomes),
        "given_back": sum(outcome.given_back for outcome in outcomes),
        "detail": [msgspec.to_builtins(outcome) for outcome in outcomes],
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1-3", help="A-B, both included")
    parser.add_argument("--kills", type=int, default=5, help="SIGKILLs per seed, and as many other disturbances")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--results", type=Path, default=Path(".rivulet/chaos.jsonl"))
    parser.add_argument("--resume", action="store_true", help="leave out the seeds that the results file holds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def known(results: Path, wanted: Plan, *, resume: bool) -> dict[int, Outcome]:
    """Outcomes of an earlier run of the same plan; the results file is made anew unless it is to be resumed."""
    if not (resume and results.exists()):
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_bytes(msgspec.json.encode(wanted) + b"\n")
        return {}
    first, *lines = results.read_bytes().splitlines()
    if msgspec.json.decode(first, type=Plan) != wanted:
        raise SystemExit(f"{results} is of another plan ({first.decode()}): use the same options or another --results")
    found = [msgspec.json.decode(line, type=Outcome) for line in lines]
    return {outcome.seed: outcome for outcome in found}


def recording() -> Path:
    """The recorded stream."""
    path = Path(os.environ.get("RIVULET_DATA", ROOT.parent / "shared" / "data")) / RECORDING
    if not path.exists():
        raise SystemExit(f"no recording {path} (set RIVULET_DATA)")
    return path


async def run(seeds: Sequence[int], wanted: Plan, results: Path, found: dict[int, Outcome]) -> None:
    """Run the seeds that are not found yet."""
    stream = rough_stream(recording(), wanted.events, PARTITIONS)
    with ExitStack() as stack:
        kafka, redis = stack.enter_context(KafkaBroker()), stack.enter_context(RedisServer())
        folder = Path(tempfile.mkdtemp(prefix="rivulet-chaos-"))
        arena = Arena(kafka, redis, folder, stream)
        expected = await arena.undisturbed()
        note(f"undisturbed: {len(stream.records)} records, {len(expected.learned.users)} users")
        for seed in seeds:
            if seed in found:
                continue
            outcome = await arena.disturbed(seed, plan(seed, wanted.kills, SESSION_S), wanted.workers, expected)
            found[seed] = outcome
            with results.open("ab") as file:
                file.write(msgspec.json.encode(outcome) + b"\n")
            what = f"FAILED, logs in {outcome.logs}: {outcome.error[:2000]}" if outcome.failed else "exact"
            note(f"seed {seed}: {outcome.seconds:.0f} s, {outcome.done}, {what}")
        if not any(outcome.logs for outcome in found.values()):
            shutil.rmtree(folder, ignore_errors=True)


def note(line: str) -> None:
    """Progress, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def report(figures: Mapping[str, Any], *, json: bool) -> None:
    """Print the summary."""
    if json:
        print(msgspec.json.encode(figures).decode())
        return
    for name, value in figures.items():
        if name != "detail":
            print(f"{name:20} {value}")


def main() -> int:
    """Run and print."""
    options = parse()
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every attempt to reach what we have stopped
    first, _, last = options.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    wanted = Plan(options.kills, options.workers, options.events)
    found = known(options.results, wanted, resume=options.resume)
    asyncio.run(run(seeds, wanted, options.results, found))
    figures = summary([found[seed] for seed in seeds])
    report(figures, json=options.json)
    return 1 if figures["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

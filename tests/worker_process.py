"""Worker processes on real servers: each test has an installation of its own names, whose workers end with it."""

from __future__ import annotations

import asyncio
import functools
import math
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]  # no py.typed
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed
from aiokafka.structs import ConsumerRecord, RecordMetadata  # type: ignore[import-untyped]  # no py.typed
from pydantic import SecretStr

from models.hashing import partition_of
from stream.compilation import compile_kernels
from stream.demo.child import Child
from stream.errors import RivuletError
from stream.keys import Keys, Offers, Recommendations, parse_list, parse_offers
from stream.local import LocalPipeline
from stream.memory_store import MemoryStore
from stream.progress import Progress
from stream.replay import republish
from stream.roster import worker_name
from stream.settings import Settings
from stream.snapshots import SnapshotStore
from stream.store import Store
from stream.topics import create, layout
from tests.brokers import until_stopped
from tests.patience import PATIENCE_S, Patience
from tests.records import user_of

ROOM = 255  # neighbours per item: with room for all, lists do not depend on the order in which deltas arrive
compile_once = functools.cache(compile_kernels)


def environment(settings: Settings, **changes: str) -> dict[str, str]:
    """Settings as environment variables; `changes` are names of settings with raw values."""
    values = {name: value for name, value in settings if value is not None}
    shown = {k: v.get_secret_value() if isinstance(v, SecretStr) else str(v) for k, v in values.items()}
    return {f"RIVULET_{name.upper()}": value for name, value in (shown | changes).items()}


class WorkerProcess(Child):
    """``rivulet worker`` as a process of its own, or another module that runs one; the log is in its folder."""

    def __init__(self, settings: Settings, command: Sequence[str] = ("stream.cli", "worker"), **changes: str) -> None:
        folder = Path(tempfile.mkdtemp(prefix="rivulet-worker-"))
        super().__init__([sys.executable, "-m", *command], folder, environment(settings, **changes))
        self.told = False  # to end

    def send(self, number: signal.Signals) -> None:
        self.told = True
        super().send(number)
        if number == signal.SIGSTOP:
            until_stopped(self)

    @property
    def field(self) -> str:
        """Its own field of `rv:meta`."""
        return f"worker-{worker_name(self.pid)}"

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll()

    @property
    def resident_mb(self) -> float:
        """Memory it holds."""
        return float(psutil.Process(self.pid).memory_info().rss / 1e6)

    @property
    def output(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    async def exit_code(self, within: float = PATIENCE_S) -> int:
        """Its exit code once it has ended; ``TimeoutError`` with its log if it does not."""
        patience = Patience(within)
        while (code := self.code) is None:
            if patience.ended():
                raise TimeoutError(f"worker {self.pid} still runs after {within:g} s: {self.output[-3000:]}")
            await asyncio.sleep(0.02)
        return code

    async def terminate(self, within: float = PATIENCE_S) -> int:
        """SIGTERM; its exit code."""
        self.send(signal.SIGTERM)
        return await self.exit_code(within)


class Installation:
    """Topics, group, keys and snapshots of one test, and the workers on them.

    Parameters
    ----------
    kafka, redis
        Addresses of real servers.
    folder
        An empty folder for snapshots.
    name
        Unique: prefix of topics, group and keys.
    settings
        Other settings of the workers. Unless told they rank by co-visitation alone: what a blend has learned depends on
        how far other stages had got, so that its lists cannot be compared between runs.
    """

    def __init__(self, kafka: str, redis: str, folder: Path, name: str, **settings: Any) -> None:
        quick: dict[str, Any] = {"session_s": 3, "snapshot_every_s": 1, "publish_every_s": 1, "web_port": 0}
        quick["ranking"] = "covisit"
        names = {"prefix": f"{name}rv", "group": f"{name}group", "topic_prefix": name}
        self.settings = Settings(
            kafka=kafka, redis=redis, snapshot_folder=folder / "snapshots", **(names | quick | settings)
        )
        self.keys = Keys(self.settings.prefix)
        self.workers: list[WorkerProcess] = []
        self.sent = 0

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(compile_once)
        partitions = self.settings.events_partitions
        topics = layout(partitions, self.settings.covisits_partitions, self.settings.topic_prefix)
        await create(self.settings.kafka, topics)
        self.progress = await Progress(self.settings).__aenter__()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka,
            enable_idempotence=True,
            max_request_size=4 * 1_048_576,
            linger_ms=5,
            request_timeout_ms=600_000,  # how long it waits for a broker that is away
        )
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end(signal.SIGKILL)
            shutil.rmtree(worker.folder, ignore_errors=True)
        await self._producer.stop()
        await self.progress.__aexit__(None, None, None)

    # -- workers -----------------------------------------------------------------------------------------------------

    def start(self, **changes: str) -> WorkerProcess:
        """Start a worker; `changes` are settings that differ from the installation's."""
        self.workers.append(WorkerProcess(self.settings, **changes))
        return self.workers[-1]

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str, within: float = PATIENCE_S) -> None:
        """Wait for a condition; fails with the workers' logs, also when a worker ended by itself meanwhile."""
        running = [worker for worker in self.workers if worker.running]
        patience = Patience(within)
        while not await condition():
            ended = [worker for worker in running if not (worker.running or worker.told)]
            if ended or patience.ended():
                why = "a worker ended" if ended else f"not within {within:g} s"
                raise TimeoutError(f"{what}: {why}\n{await self._state()}")
            await asyncio.sleep(0.05)

    async def _state(self) -> str:
        """Where everything stands, for the message of a failure."""
        stands = []
        try:
            async with asyncio.timeout(5):  # a server may be away
                for role in ("events", "covisits", "global"):
                    ends, included = await self.progress.ends(role), await self.progress.included(role)
                    stands.append(f"{role}: ends {ends} included {included}")
        except (TimeoutError, RivuletError, KafkaError) as error:
            stands.append(f"not known: {error!r}")
        logs = [f"--- worker {worker.pid}\n{worker.output[-3000:]}" for worker in self.workers]
        return "\n".join([f"{self.sent} events written", *stands, *logs])

    async def drained(self, within: float = PATIENCE_S) -> None:
        """Wait until the workers have included every event, and all that followed from it."""
        await self.finish(self.progress.drained(), "drained", within)

    async def republish(self, within: float = PATIENCE_S) -> None:
        """Drain, then have every list written again."""
        await self.finish(republish(self.settings), "republished", within)

    async def finish(self, work: Awaitable[object], what: str, within: float = PATIENCE_S) -> None:
        """Wait for something that waits for the workers."""
        task = asyncio.ensure_future(work)

        async def done() -> bool:
            return task.done()

        try:
            await self.until(done, what, within)
        finally:
            task.cancel()
        task.result()

    async def included(self) -> int:
        """Events that the workers have included."""
        return sum((await self.progress.included("events")).values())

    async def counts(self) -> Counter[str]:
        """What the user shards have counted, as `rv:meta` tells."""
        return await self.progress.books()

    async def visits(self) -> int:
        """Touches that the item shards have applied, as `rv:meta` tells."""
        topic = self.settings.topic("covisits") + "-"
        found = (await self.progress.facts()).items()
        return sum(int(facts.get("counts", {}).get("visits", 0)) for name, facts in found if name.startswith(topic))

    async def processed_by(self, worker: WorkerProcess) -> int:
        """Event records that one worker has processed."""
        return int((await self.progress.facts()).get(worker.field, {}).get("records", 0))

    def snapshots(self) -> SnapshotStore:
        return SnapshotStore(self.settings.snapshot_folder)

    def saved(self, role: str) -> dict[int, int]:
        """Offset of the newest snapshot of each shard of a topic, by partition."""
        newest: dict[int, int] = {}
        for found in self.snapshots().generations():
            topic, _, partition = found.shard.rpartition("-")
            if topic == self.settings.topic(role):
                newest[int(partition)] = max(newest.get(int(partition), 0), found.offset)
        return newest

    # -- Kafka -------------------------------------------------------------------------------------------------------

    async def publish(self, events: Iterable[Mapping[str, Any] | bytes], key: str | None = None) -> None:
        """Write events, each under its user's key in its partition; bytes go as they are under `key`."""
        futures = []
        for event in events:
            user = (user_of(dict(event)) if isinstance(event, Mapping) else key or "").encode()
            value = event if isinstance(event, bytes) else msgspec.json.encode(event)
            partition = partition_of(user, self.settings.events_partitions)
            topic = self.settings.topic("events")
            futures.append(await self._producer.send(topic, value, key=user or None, partition=partition))
        await asyncio.gather(*futures)
        self.sent += len(futures)

    async def write(
        self,
        role: str,
        value: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> RecordMetadata:
        """Write one record to a topic."""
        topic = self.settings.topic(role)
        return await self._producer.send_and_wait(topic, value, key=key, partition=partition, headers=list(headers))

    async def look_again(self) -> None:
        """Let the writer see partitions that were added."""
        await self._producer.client.force_metadata_update()

    async def read(self, role: str) -> list[ConsumerRecord]:
        """Everything in a topic now, partition by partition."""
        ends = {
            TopicPartition(self.settings.topic(role), partition): end
            for partition, end in (await self.progress.ends(role)).items()
        }
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka, auto_offset_reset="earliest", max_partition_fetch_bytes=16_777_216
        )
        await consumer.start()
        try:
            consumer.assign(list(ends))
            records: list[ConsumerRecord] = []
            for tp in ends:
                while await consumer.position(tp) < ends[tp]:
                    records += [r for found in (await consumer.getmany(tp, timeout_ms=500)).values() for r in found]
            return records
        finally:
            await consumer.stop()

    async def committed(self, role: str) -> dict[int, int]:
        """Committed offset of each partition of a topic."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka)
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(self.settings.group)
        finally:
            await admin.close()
        topic = self.settings.topic(role)
        return {tp.partition: meta.offset for tp, meta in found.items() if tp.topic == topic}

    # -- Redis -------------------------------------------------------------------------------------------------------

    async def list_of(self, user: str) -> Recommendations | None:
        """A user's list."""
        (value,) = await self.progress.store.get([self.keys.recs(user)])
        return None if value is None else parse_list(value)

    async def lists(self, users: Iterable[str], placement: str | None = None) -> dict[str, Recommendations]:
        """The lists of those users who have one, the plain ones or a placement's."""
        return await lists_in(self.progress.store, self.keys, list(users), placement)

    async def offers_of(self, user: str) -> Offers | None:
        """A user's offers."""
        (value,) = await self.progress.store.get([self.keys.offers(user)])
        return None if value is None else parse_offers(value)


async def lists_in(
    store: Store, keys: Keys, users: Sequence[str], placement: str | None = None
) -> dict[str, Recommendations]:
    """The lists that a store holds of some users."""
    values = await store.get([keys.recs(user, placement) for user in users])
    return {user: parse_list(value) for user, value in zip(users, values, strict=True) if value is not None}


async def local_run(events: Iterable[Mapping[str, Any]], settings: Settings) -> LocalPipeline:
    """The pipeline in this process after the same events, each recorded at its own time, and a republish."""
    pipeline = LocalPipeline.of(settings, MemoryStore())
    await pipeline.feed(
        (user_of(dict(event)).encode(), event["event_timestamp"] // 1000, msgspec.json.encode(event))
        for event in events
    )
    await pipeline.republish()
    rows = pipeline.space.rows.arrays
    # with more, lists would depend on the order in which deltas of different users arrived
    assert max(rows.size.max(), rows.steps.max()) < min(settings.neighbours, settings.transitions)
    return pipeline


async def local_lists(
    events: Iterable[Mapping[str, Any]], settings: Settings, placement: str | None = None
) -> dict[str, Recommendations]:
    """What `local_run` leaves."""
    known = list(events)
    pipeline = await local_run(known, settings)
    return await lists_in(pipeline.store, Keys(settings.prefix), canonical_users(known), placement)


def same_list(mine: Recommendations, theirs: Recommendations, k: int = 20) -> bool:
    """Same items and scores; order is free, and the last place of a full list too, among scores within rounding."""
    if mine.ts != theirs.ts or len(mine.items) != len(theirs.items):
        return False
    last = theirs.scores[-1] if len(theirs.items) == k else math.inf
    where = dict(zip(theirs.items, theirs.scores, strict=True))
    pairs = [*zip(mine.scores, theirs.scores, strict=True)]
    pairs += [(score, where.get(item, last)) for item, score in zip(mine.items, mine.scores, strict=True)]
    # scores are rounded to six decimals
    return all(math.isclose(one, two, rel_tol=1e-6, abs_tol=2.2e-6) for one, two in pairs)


def different(mine: Mapping[str, Recommendations], theirs: Mapping[str, Recommendations]) -> list[Any]:
    """Users whose lists differ, with both; empty if all are the same."""
    users = sorted(mine.keys() | theirs.keys())
    both = [(user, mine.get(user), theirs.get(user)) for user in users]
    return [(user, one, two) for user, one, two in both if one is None or two is None or not same_list(one, two)]


def canonical_users(events: Iterable[Mapping[str, Any]]) -> list[str]:
    """Distinct users of some events, in order of appearance."""
    return list(dict.fromkeys(user_of(dict(event)) for event in events))


def balance(counts: Mapping[str, int]) -> int:
    """Events that the books account for: every event of the log is counted under exactly one of these."""
    kinds = ("learned", "duplicates", "late", "denied", "rekeyed", "forgotten")
    return sum(counts.get(kind, 0) for kind in kinds) + sum(n for kind, n in counts.items() if kind.startswith("dead:"))

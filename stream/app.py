"""The worker: Faust's app with the batch transport, three agents, and what surrounds them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

import faust
import msgspec
import structlog
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed
from faust.types.auth import AuthProtocol

from models.offers import Offer, decode_offer
from stream.agents.global_ import GlobalAgent
from stream.agents.item import ItemAgent
from stream.agents.user import UserAgent
from stream.broadcast import Broadcast
from stream.catalogue import decode_item
from stream.errors import RivuletError
from stream.fencing import Fence
from stream.kafka import ssl_context
from stream.keys import CONTRACT_VERSION, Keys
from stream.neighbours import Neighbours
from stream.publisher import Publisher
from stream.resp import WriteBatch
from stream.settings import Settings
from stream.shards import HostSettings, ShardHost, Stage
from stream.snapshots import SnapshotStore
from stream.stages.global_ import MODEL_KEY, GlobalStage, decode_model
from stream.stages.item import ItemStage
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from stream.stats import Stats
from stream.store import RedisStore
from stream.transport import TP, Fetch, batch_topic, faust_settings

log = structlog.get_logger(__name__)

TICK_S: Final = 0.25
IN_FLIGHT: Final = 8  # fetches of one topic under way; those of one partition wait for each other
GC_ALLOCATIONS: Final = 500_000  # a fetch of 2,000 records makes many times Python's default of 700


def rules_of(settings: Settings) -> UserRules:
    """What the settings say about learning and lists."""
    return UserRules(
        history=settings.history,
        k=settings.k,
        lateness_s=int(settings.lateness_hours * 3600),
        dedup=settings.dedup,
        sample_rate=settings.sample_rate,
        consent=settings.consent_default == "granted",
    )


def faust_app(settings: Settings) -> RivuletApp:
    """Faust's app for the settings, without agents."""
    servers = ";".join(f"kafka://{server}" for server in settings.kafka.split(","))
    credentials: Any = ssl_context(settings)
    if settings.kafka_security.startswith("SASL"):
        credentials = faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=credentials,
        )
        credentials.protocol = AuthProtocol(settings.kafka_security)
    return RivuletApp(
        settings.group,
        broker=servers,
        broker_credentials=credentials,
        store="memory://",
        datadir=str(settings.snapshot_folder.parent / "faust"),
        web_enabled=settings.web_port > 0,
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=settings.web_port or 6066,
        **faust_settings(
            session_s=settings.session_s,
            partitions=max(settings.events_partitions, settings.covisits_partitions),
            fetch_records=settings.batch_records,
        ),
    )


class RivuletApp(faust.App):
    """Faust's app that brings its worker's connections up before any agent runs, and down after all."""

    worker: Worker

    async def on_start(self) -> None:
        """Connect first: an agent that runs may send and write."""
        await self.worker.connect()
        await super().on_start()

    async def on_shutdown(self) -> None:
        """Disconnect last: the shards' final snapshots wait for acknowledgements."""
        await super().on_shutdown()
        await self.worker.disconnect()


class Worker:
    """Everything one worker process consists of.

    Parameters
    ----------
    settings
        See `Settings`.
    hard_exit
        What ends the process if shutdown hangs; None to never do that (a worker inside another program).

    Attributes
    ----------
    app
        Faust's app, ready to be started.
    host
        Owner of the shards.
    stats
        Counts and times.
    """

    def __init__(self, settings: Settings, *, hard_exit: Callable[[int], None] | None = os._exit) -> None:
        self.settings = settings
        self.stats = Stats()
        self.keys = Keys(settings.prefix)
        self.space = ItemSpace(
            settings.covisits_partitions,
            neighbours=settings.neighbours,
            transitions=settings.transitions,
            half_life_s=settings.half_life_days * 86_400,
        )
        self.users = UserStage(
            self.space, self.keys, rules_of(settings), settings.events_partitions, settings.topic("events")
        )
        self.items = ItemStage(self.space, self.keys, settings.events_partitions, settings.k)
        self.globe = GlobalStage(self.keys, segments=settings.segments, k=settings.k)
        self.store = RedisStore(settings.redis)
        self.publisher = Publisher(settings)
        self.neighbours = Neighbours(self.space, self.store, self.keys)
        self.broadcast = Broadcast(
            settings, {"items": self._take_item, "offers": self._take_offer, "models": self._take_model}
        )
        self._offers: dict[bytes, Offer] = {}
        self._told: dict[TP, int] = {}
        self._run_id = ""
        self.app = faust_app(settings)
        self.app.worker = self
        self._wire(hard_exit)

    def _wire(self, hard_exit: Callable[[int], None] | None) -> None:
        settings = self.settings
        outputs = self.publisher, self.store, self.stats
        fence = Fence(lambda: self.host, settings.session_s)
        self.user_agent = UserAgent(settings.topic("events"), self.users, *outputs, self.neighbours, fence, self._ready)
        self.item_agent = ItemAgent(settings.topic("covisits"), self.items, *outputs)
        self.global_agent = GlobalAgent(settings.topic("global"), self.globe, *outputs)
        agents: tuple[Stage, ...] = (self.user_agent, self.item_agent, self.global_agent)
        self.host = ShardHost(
            agents,
            SnapshotStore(settings.snapshot_folder),
            HostSettings(
                snapshot_every_s=settings.snapshot_every_s, session_s=settings.session_s, on_gap=settings.on_gap
            ),
            hard_exit=hard_exit,
        )
        self.host.attach(self.app)
        for agent in agents:
            self._consume(agent.topic)
        for background in (self.broadcast.run, self._publish_forever, self._tell_forever):
            self.app.task(background)

    def _consume(self, topic: str) -> None:
        async def consume(stream: faust.Stream[Fetch]) -> None:
            # Partitions wait for acknowledgements and for Redis side by side. Tasks start in the order in which they
            # were made and queue at their shard's lock, so each partition stays in order.
            slots = asyncio.Semaphore(IN_FLIGHT)
            under_way: set[asyncio.Task[None]] = set()  # the event loop itself holds tasks only weakly

            def done(handling: asyncio.Task[None]) -> None:
                under_way.discard(handling)
                slots.release()

            async for fetch in stream.noack():
                await slots.acquire()
                handling = asyncio.create_task(self.host.handle(fetch))
                under_way.add(handling)
                handling.add_done_callback(done)

        self.app.agent(batch_topic(self.app, topic), name=topic)(consume)  # type: ignore[arg-type]  # Faust's own stream type

    async def connect(self) -> None:
        """Connect to Redis and Kafka."""
        self._run_id = await self.store.run_id()
        await self.publisher.start()
        await self.broadcast.start()

    async def disconnect(self) -> None:
        """Close what `connect` opened."""
        await self.broadcast.stop()
        await self.publisher.stop()
        await self.store.close()

    # -- flow --------------------------------------------------------------------------------------------------------

    async def _ready(self) -> None:
        """Wait for the broadcast's past, and while `covisits` lags: a backlog must not be ranked with no neighbours."""
        await self.broadcast.caught_up.wait()
        while self._lag() > self.settings.skew_records:
            self.item_agent.moved.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self.item_agent.moved.wait()

    def _lag(self) -> int:
        """Acknowledged records of `covisits` that the item shards of this process have not applied yet."""
        topic = self.settings.topic("covisits")
        shards = self.host.shards
        return max(
            (
                at + 1 - shards[TP(topic, partition)].next
                for (role, partition), at in self.publisher.acked.items()
                if role == "covisits" and TP(topic, partition) in shards
            ),
            default=0,
        )

    # -- broadcast ---------------------------------------------------------------------------------------------------

    def _take_item(self, key: bytes, value: bytes | None) -> None:
        item = None if value is None else decode_item(value)
        name = key.decode() if item is None else item.item_id
        withdrawn = item is None or item.stock == 0
        self.items.withdraw(name, withdrawn)
        self.globe.withdraw(name, withdrawn)
        if item is not None and item.category:
            self.space.file(self.space.encode([name]), self.space.encode_categories([item.category]))

    def _take_offer(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._offers.pop(key, None)
        else:
            self._offers[key] = decode_offer(value)
        self.users.set_offers([self._offers[key] for key in sorted(self._offers)])

    def _take_model(self, key: bytes, value: bytes | None) -> None:
        if key == MODEL_KEY and value is not None:
            self.users.set_model(decode_model(value))

    # -- background --------------------------------------------------------------------------------------------------

    async def _publish_forever(self) -> None:
        await self.broadcast.caught_up.wait()  # else what the catalogue has withdrawn would be shown again
        while True:
            await asyncio.sleep(self.settings.publish_every_s)
            for partition in sorted(self.items.shards):
                await self._carefully(self.item_agent.publish(partition))
            await self._carefully(self.global_agent.publish())

    async def _tell_forever(self) -> None:
        """Keep `rv:meta` true: one field per shard and one per worker."""
        while True:
            await asyncio.sleep(TICK_S)
            await self._carefully(self._notice_restart())
            await self._carefully(self._tell())

    async def _notice_restart(self) -> None:
        """Doubt all that was written once Redis is another process: it may have come back empty."""
        run_id = await self.store.run_id()
        if run_id == self._run_id:
            return
        log.warning("redis_restarted", was=self._run_id, now=run_id)
        self._run_id = run_id
        self._told.clear()
        for shard in self.users.shards.values():
            shard.doubt()
        for partition in self.items.shards:
            self.items.touch_all(partition)
        self.globe.changed = True

    async def _tell(self) -> None:
        moved = {tp: shard.next for tp, shard in self.host.shards.items() if self._told.get(tp) != shard.next}
        fields = {f"{tp.topic}-{tp.partition}".encode(): self._shard_facts(tp, at) for tp, at in moved.items()}
        if not fields:
            return
        fields[f"worker-{os.getpid()}".encode()] = msgspec.json.encode(self.facts())
        fields[b"contract"] = b"%d" % CONTRACT_VERSION
        batch = WriteBatch()
        batch.hset(self.keys.meta, fields, None)
        await self.store.flush(batch)
        self._told.update(moved)

    def _shard_facts(self, tp: TP, at: int) -> bytes:
        facts: dict[str, Any] = {"next": at}
        users, items = self.users.shards.get(tp.partition), self.items.shards.get(tp.partition)
        if tp.topic == self.settings.topic("events") and users is not None:
            facts |= users.facts()
        elif tp.topic == self.settings.topic("covisits") and items is not None:
            facts |= {"marks": items.marks.tolist(), "counts": dict(items.counts)}
        return msgspec.json.encode(facts)

    def facts(self) -> dict[str, Any]:
        """What this worker has done so far."""
        freshness = self.stats.freshness
        return {
            **self.stats.counts,
            "freshness_p50_ms": freshness.quantile(0.5),
            "freshness_p99_ms": freshness.quantile(0.99),
            "lost": self.host.counts["lost"],
        }

    async def _carefully(self, work: Coroutine[Any, Any, None]) -> None:
        """Run background work; an exception that left it would kill the worker, and the next round repeats it."""
        try:
            await work
        except (RivuletError, KafkaError, OSError) as error:
            log.warning("background work failed", error=str(error))


def run(settings: Settings) -> None:
    """Run a worker in this process until a signal ends it; does not return."""
    worker = Worker(settings)
    gc.freeze()  # modules and kernels live as long as the process: nothing to look for in a million objects
    gc.set_threshold(GC_ALLOCATIONS)
    faust.Worker(
        worker.app, loglevel=settings.log_level.upper(), quiet=True, override_logging=False
    ).execute_from_commandline()

"""The worker: Faust's app with the batch transport, its agents, and what surrounds them."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any, Final

import faust
from aiokafka.errors import KafkaConnectionError  # type: ignore[import-untyped]  # no py.typed
from faust.types.auth import AuthProtocol

from models.offers import decode_offer
from models.text_features import Facts
from stream.agents.door import DoorAgent
from stream.agents.global_ import GlobalAgent
from stream.agents.item import ItemAgent
from stream.agents.user import UserAgent
from stream.background import Background
from stream.broadcast import Broadcast
from stream.catalogue import decode_record
from stream.errors import UnavailableError
from stream.fencing import Fence
from stream.gate import Gate
from stream.hindsight import Hindsight
from stream.inlet import Inlet
from stream.item_writer import ItemWriter
from stream.kafka import ssl_context, token_source
from stream.keys import Keys
from stream.meta import Meta
from stream.neighbours import Neighbours
from stream.publisher import Publisher
from stream.pulse import Pulse
from stream.redis_address import redis_address
from stream.rules import rules_of, space_of
from stream.settings import Settings
from stream.shards import HostSettings, ShardHost, Stage
from stream.snapshots import SnapshotStore
from stream.stages.door import Door
from stream.stages.global_ import GlobalStage
from stream.stages.item import ItemStage
from stream.stages.user import UserStage
from stream.stats import Stats
from stream.store import RedisStore
from stream.transport import Fetch, batch_topic, faust_settings
from stream.watchdog import Watchdog
from stream.web.door import Door as HttpDoor
from stream.web.server import worker_port

GC_ALLOCATIONS: Final = 500_000  # a fetch of 2,000 records makes many times Python's default of 700


def faust_app(settings: Settings) -> RivuletApp:
    """Faust's app for the settings, without agents."""
    servers = ";".join(f"kafka://{server}" for server in settings.kafka.split(","))
    return RivuletApp(
        settings.group,
        broker=servers,
        broker_credentials=_credentials(settings),
        store="memory://",
        web_enabled=False,  # ours is stream/web: Faust's shows tables, routes and more to whoever asks
        **faust_settings(
            session_s=settings.session_s,
            partitions=max(settings.events_partitions, settings.covisits_partitions),
            fetch_records=settings.batch_records,
        ),
    )


def _credentials(settings: Settings) -> Any:
    context: Any = ssl_context(settings)
    if not settings.kafka_security.startswith("SASL"):
        return context
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        credentials: Any = faust.OAuthCredentials(oauth_cb=token_source(settings), ssl_context=context)
    else:
        credentials = faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    credentials.protocol = AuthProtocol(settings.kafka_security)
    return credentials


class RivuletApp(faust.App):
    """Faust's app that brings its worker's connections up before any agent runs, and down after all."""

    worker: Worker

    def _create_directories(self) -> None:
        """Nothing: Faust's folders are for its tables."""

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

    Attributes
    ----------
    app
        Faust's app, ready to be started.
    host
        Owner of the shards.
    stats
        Counts and times.
    pulse
        Whether it gets on.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.stats = Stats()
        self.keys = Keys(settings.prefix)
        self.space = space_of(settings)
        self.users = UserStage(
            self.space, self.keys, rules_of(settings), settings.events_partitions, settings.topic("events")
        )
        self.items = ItemStage(
            self.space, self.keys, settings.events_partitions, settings.k, settings.items, settings.step_share
        )
        self.globe = GlobalStage(self.keys, segments=settings.segments, k=settings.k)
        self.store = RedisStore(redis_address(settings))
        self.publisher = Publisher(settings)
        self.neighbours = Neighbours(self.space, self.store, self.keys)
        self.broadcast = Broadcast(
            settings, {"items": self._take_item, "offers": self._take_offer, "models": self._take_model}
        )
        self.app = faust_app(settings)
        self.app.worker = self
        self.meta = Meta(self)
        self._wire()
        self.pulse = Pulse(self.host, self.broadcast, self.gate, self.store.outage, settings.session_s)
        self.item_writer = ItemWriter(self)
        self.background = Background(self)
        self.inlet = Inlet(settings, "door")
        self.door = HttpDoor(settings, self.inlet, settings.web_host)
        self.web = worker_port(self)

    def _wire(self) -> None:
        settings = self.settings
        outputs = self.publisher, self.store, self.stats
        fence = Fence(lambda: self.host, self.meta.claim, settings.session_s)
        self.item_agent = ItemAgent(settings.topic("covisits"), self.items, *outputs, fence)
        self.gate = Gate(
            settings.topic("events"), self.broadcast, self.publisher, self.item_agent, settings.skew_records
        )
        hindsight = Hindsight(self.items, self.meta.marked)
        self.user_agent = UserAgent(
            settings.topic("events"), self.users, *outputs, self.neighbours, fence, hindsight, self.gate.ready
        )
        self.global_agent = GlobalAgent(settings.topic("global"), self.globe, *outputs, fence)
        privacy = settings.topic("privacy")
        door = DoorAgent(privacy, Door(privacy, settings.events_partitions), *outputs)
        agents: tuple[Stage, ...] = (self.user_agent, self.item_agent, self.global_agent, door)
        self.host = ShardHost(
            agents,
            SnapshotStore.of(settings),
            HostSettings(
                snapshot_every_s=settings.snapshot_every_s,
                session_s=settings.session_s,
                on_gap=settings.on_gap,
                batch_records=settings.batch_records,
            ),
        )
        self.gate.host = self.host
        self.host.attach(self.app)
        for agent in agents:
            self._consume(agent.topic)

    def _consume(self, topic: str) -> None:
        async def consume(stream: faust.Stream[Fetch]) -> None:
            async for fetch in stream.noack():
                await self.host.handle(fetch)

        self.app.agent(batch_topic(self.app, topic), name=topic)(consume)  # type: ignore[arg-type]  # Faust's own stream type

    async def connect(self) -> None:
        """Open the web port, then connect to Redis and Kafka."""
        await self.web.start()
        Watchdog(asyncio.get_running_loop(), self.pulse.feel, self.settings.stall_s, os._exit).start()
        await self.meta.connect()
        await self.publisher.start()
        if self.settings.web_port:
            await self.inlet.start()
        await self.broadcast.start()

    async def disconnect(self) -> None:
        """Close what `connect` opened."""
        await self.broadcast.stop()
        await self.publisher.stop()
        await self.meta.roster.leave()
        await self.store.close()
        await self.web.stop()
        await self.inlet.stop()

    def doubt(self) -> None:
        """Redis may have lost anything: all of it is written again, a user's keys when they are touched next."""
        for shard in self.users.shards.values():
            shard.doubt()
        for partition in self.items.shards:
            self.items.touch_all(partition)
        self.globe.changed = True
        self.item_writer.start_over()

    # -- broadcast ---------------------------------------------------------------------------------------------------

    def _take_item(self, key: bytes, value: bytes | None) -> None:
        name, item = decode_record(key, value)
        withdrawn = item is None or item.hidden
        self.items.withdraw(name, withdrawn)
        self.globe.withdraw(name, withdrawn, listed=item is not None)
        index = self.space.encode([name])
        self.space.listed[index] = item is not None
        if item is not None and item.category:
            self.space.file(index, self.space.encode_categories([item.category]))
        if self.settings.ranking == "blend":
            self.space.contents.put(int(index[0]), Facts() if item is None else item.facts)

    def _take_offer(self, key: bytes, value: bytes | None) -> None:
        self.users.offering.put(key, None if value is None else decode_offer(value))

    def _take_model(self, key: bytes, value: bytes | None) -> None:
        if value is not None:
            self.users.take_model(key, value)


def run(settings: Settings) -> None:
    """Run a worker in this process until a signal ends it; does not return."""
    serve(Worker(settings))


def serve(worker: Worker) -> None:
    """Run this worker until a signal ends it; does not return."""
    gc.freeze()  # modules and kernels live as long as the process: nothing to look for in a million objects
    gc.set_threshold(GC_ALLOCATIONS)
    process = faust.Worker(worker.app, loglevel=worker.settings.log_level.upper(), quiet=True, override_logging=False)
    process.spinner = None  # it would draw into what may be a log file
    try:
        process.execute_from_commandline()
    except SystemExit as end:
        if isinstance(end.__context__, KafkaConnectionError):  # it went away since the preflight
            raise UnavailableError(f"Kafka at {worker.settings.kafka} does not answer any more") from end
        raise

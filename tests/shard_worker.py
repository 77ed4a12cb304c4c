"""A worker process for the lifecycle tests: counts records per shard on the batch transport, and can be made to fail.

``python -m tests.shard_worker '{"kafka": ..., ...}'``: the fields are those of :class:`Orders`.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faust
import msgspec
import numpy as np
from aiokafka.consumer.group_coordinator import GroupCoordinator  # type: ignore[import-untyped]  # no py.typed
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed
from numpy.typing import NDArray

from stream.copying import Copying, Rows
from stream.errors import UnavailableError
from stream.shards import HostSettings, Loss, Shard, ShardHost
from stream.snapshots import Snapshot, SnapshotStore
from stream.transport import ConsumerRecord, Fetch, batch_topic, faust_settings

MASK = (1 << 61) - 1


class Orders(msgspec.Struct):
    """What a worker is to do."""

    kafka: str
    group: str
    topic: str
    folder: str
    name: str = "a"
    session_s: float = 6.0
    rebalance_s: float = 20.0
    snapshot_every_s: float = 0.2
    release_s: float = 5.0
    exit_s: float = 2.5
    on_gap: str = "stop"
    fetch_records: int = 100
    delay_s: float = 0.0
    load_s: float = 0.0  # to load each snapshot
    resume_s: float = 0.0  # between the seek and the resumed flow
    fail: str = ""  # at offset fail_at: "crash", "hang" once per folder; "down" as long as there is a file "down"
    fail_at: int = 0
    gated: bool = False  # ready() waits for the file "gate"


class Status(msgspec.Struct):
    """What a worker tells about itself, every 20 ms."""

    next: dict[int, int]
    counts: dict[str, int]
    losses: list[Loss]
    may_write: bool
    buffered: int
    refused: int = 0  # times that ready() found no gate


def chain(state: int, offset: int) -> int:
    """Sum that depends on every offset and on their order."""
    return (state * 1_000_003 + offset + 1) & MASK


def ask_to_rejoin(coordinator: GroupCoordinator) -> None:
    """Do what a broker's answer does when another member joins."""
    coordinator.request_rejoin()


def break_heartbeats(coordinator: GroupCoordinator) -> None:
    """Let the next heartbeat fail as it does while a broker is still loading its groups."""
    heartbeat = coordinator._do_heartbeat

    async def fail() -> bool:
        coordinator._do_heartbeat = heartbeat
        raise KafkaError("Unexpected exception in heartbeat task: CoordinatorLoadInProgressError()")

    coordinator._do_heartbeat = fail


class SlowStore(SnapshotStore):
    """A store on a slow disk, which does not answer while there is a file "no-disk"."""

    read_s = 0.0
    gone = Path()

    def latest(self, name: str) -> Snapshot | None:
        time.sleep(self.read_s)
        if self.gone.exists():
            raise OSError("no answer")
        return super().latest(name)


class CountingStage:
    """Counts records and chains their offsets; mutates in place, one record after another."""

    pace_s = 0.0

    def __init__(self, orders: Orders) -> None:
        self.topic = orders.topic
        self.orders = orders
        self.state: dict[int, list[int]] = {}
        self.refused = 0

    async def prepare(self, arrays: Mapping[str, NDArray[Any]]) -> Any:
        return arrays

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        self.state[partition] = [0, 0] if arrays is None else arrays["state"].tolist()

    def copy(self, partition: int) -> Copying:
        return Copying({}, lambda: {"state": Rows(np.array(self.state[partition], np.int64))})

    def close(self, partition: int) -> None:
        self.state.pop(partition, None)

    async def ready(self) -> None:
        gate = Path(self.orders.folder) / "gate"
        while self.orders.gated and not gate.exists():  # the test opens it from another process
            self.refused += 1
            await asyncio.sleep(0.02)

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        if self.orders.delay_s:
            await asyncio.sleep(self.orders.delay_s)
        if shard.lost:
            return
        state = self.state[shard.partition]
        for record in records:
            if record.offset == self.orders.fail_at and self.orders.fail:
                await self._fail()
            state[0] += 1
            state[1] = chain(state[1], record.offset)

    async def _fail(self) -> None:
        if self.orders.fail == "down":
            if (Path(self.orders.folder) / "down").exists():
                raise UnavailableError("no answer")
            return
        try:
            (Path(self.orders.folder) / f"failed-{self.orders.fail}").touch(exist_ok=False)
        except FileExistsError:
            return
        if self.orders.fail == "hang":
            await asyncio.sleep(3600)
        raise RuntimeError("a bug")


def build(orders: Orders, stage: CountingStage) -> tuple[faust.App, ShardHost]:
    settings = faust_settings(
        session_s=orders.session_s, rebalance_s=orders.rebalance_s, fetch_records=orders.fetch_records
    )
    app = faust.App(
        orders.group,
        broker=f"kafka://{orders.kafka}",
        datadir=str(Path(orders.folder) / f"faust-{orders.name}"),
        web_enabled=False,
        **settings,
    )
    store = SlowStore(Path(orders.folder) / "snapshots")
    store.read_s = orders.load_s
    store.gone = Path(orders.folder) / "no-disk"
    host = ShardHost(
        [stage],
        store,
        HostSettings(
            snapshot_every_s=orders.snapshot_every_s,
            release_s=orders.release_s,
            exit_s=orders.exit_s,
            session_s=orders.session_s,
            on_gap="accept" if orders.on_gap == "accept" else "stop",
            batch_records=orders.fetch_records,
        ),
    )
    host.attach(app)

    @app.agent(batch_topic(app, orders.topic), name="count")
    async def count(stream: faust.StreamT[Fetch]) -> None:
        async for fetch in stream.noack():  # type: ignore[attr-defined]  # the abstract twin lacks it
            await host.handle(fetch)

    def write_status() -> None:
        actors = list(app.agents["count"]._actors)  # the queue has no public door
        waiting = actors[0].stream.channel.queue._queue if actors else ()
        status = Status(
            next={tp.partition: shard.next for tp, shard in host.shards.items()},
            counts=dict(host.counts),
            losses=list(host.losses),
            may_write=host.may_write(),
            buffered=sum(len(event.value.records) for event in waiting)
            + sum(len(fetch.records) for shard in host.shards.values() for fetch in shard.waiting),
            refused=stage.refused,
        )
        path = Path(orders.folder) / f"status-{orders.name}.json"
        path.with_suffix(".tmp").write_bytes(msgspec.json.encode(status))
        path.with_suffix(".tmp").replace(path)

    @app.task  # type: ignore[untyped-decorator]  # Faust's
    async def report() -> None:
        atexit.register(write_status)
        seek = app.consumer.perform_seek

        async def seek_and_linger() -> None:
            await seek()
            await asyncio.sleep(orders.resume_s)

        app.consumer.perform_seek = seek_and_linger  # type: ignore[method-assign]  # for a wider gap
        while True:
            write_status()
            await asyncio.sleep(0.02)
            for name, act in (("rejoin", ask_to_rejoin), ("heartbeat-error", break_heartbeats)):
                if (Path(orders.folder) / name).exists():
                    (Path(orders.folder) / name).unlink()
                    thread = app.consumer._thread  # type: ignore[attr-defined]  # nothing of this can be asked for
                    thread.thread_loop.call_soon_threadsafe(act, thread._consumer._coordinator)

    return app, host


def main() -> None:
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    app, _ = build(orders, CountingStage(orders))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    faust.Worker(app, loglevel="INFO", quiet=True, override_logging=False).execute_from_commandline()


if __name__ == "__main__":
    main()

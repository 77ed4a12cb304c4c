"""How a shard starts without a snapshot or fails again and again; on a real broker: tests/integration."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    GroupAuthorizationFailedError,
    KafkaConnectionError,
)
from structlog.testing import capture_logs

from stream import feeding, shards
from stream.errors import ConfigurationError, UnavailableError
from stream.fetches import TP, Fetch, Log
from stream.shard import LOG_START, GapError, HostSettings, Shard
from stream.shards import ShardHost
from stream.snapshots import SnapshotStore
from stream.troubles import for_ever
from stream.web import health


class Poisoned:
    """A stage that cannot get beyond one offset, until it is cured."""

    topic, pace_s, poison = "events", 0.0, 7
    opened = 0
    error: Exception = UnavailableError("Kafka did not acknowledge")

    def open(self, partition: int, arrays: Any) -> None:
        self.opened += 1

    async def prepare(self, arrays: Any) -> Any:
        return arrays

    def close(self, partition: int) -> None:
        pass

    async def ready(self) -> None:
        pass

    async def process(self, shard: Shard, records: Sequence[Any]) -> None:
        if any(record.offset == self.poison for record in records):
            raise self.error


class Host(ShardHost):
    """Reads two records at a time from a log of ten, without Faust."""

    past: int | None = None  # what the group has committed

    def __init__(self, stage: Poisoned, folder: Path, **settings: Any) -> None:
        super().__init__([cast(Any, stage)], SnapshotStore(folder), HostSettings(**settings))
        self.shard = self._shards[TP("events", 0)] = Shard("events", 0, 0.0, next=0)
        self.crashed: list[BaseException] = []
        self._app = cast(Any, SimpleNamespace(crash=self._crash, should_stop=False))
        self.at = self.number = self.start = 0
        self.log: Log | None = None
        self.seeks: list[int] = []

    async def _crash(self, error: BaseException) -> None:
        self.crashed.append(error)

    async def committed(self, tp: TP) -> int | None:
        return self.past

    async def seek(self, shard: Shard) -> None:
        (self.at, shard.epoch), self.number = self._new_epoch(shard), 0
        self.seeks.append(self.at)

    async def ask_log(self, tp: TP) -> Log | None:
        return self.log

    async def log_start(self, tp: TP) -> int:
        return self.start

    async def read(self, fetches: int) -> None:
        for _ in range(fetches):
            records = [SimpleNamespace(offset=self.at), SimpleNamespace(offset=self.at + 1)]
            fetch = Fetch(self.shard.tp, cast(Any, records), self.shard.epoch, self.number, 100)
            self.at, self.number = self.at + 2, self.number + 1
            await self.handle(fetch)
            await asyncio.gather(*self._feeder._tasks)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every pause that was made; none takes any time."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def instead(seconds: float) -> None:
        made.extend([seconds] if seconds > 0 else [])
        await sleep(0)

    for module in (feeding, shards):
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": instead}))
    return made


async def test_reloads_without_progress_are_counted_and_back_off(tmp_path: Path, pauses: list[float]) -> None:
    """From the snapshot on, three fetches succeed each time: that is not progress."""
    stage = Poisoned()
    host = Host(stage, tmp_path)
    await host.read(4 * 7)
    assert (host.shard.failures, host.shard.failed_at, host.counts["reloads"]) == (7, 6, 7)
    assert pauses == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 3.2, 3.2])
    lags = {host.shard.tp: 0}
    worker = SimpleNamespace(pulse=SimpleNamespace(lags=lambda: lags), host=host, settings=None)
    told = "events-0 was reloaded 7 times and does not get beyond offset 6: Kafka did not acknowledge"
    assert health._behind(cast(Any, worker)) == told
    stage.poison = -1
    await host.read(3)
    assert (host.shard.next, host.shard.failures) == (6, 7)
    await host.read(1)
    assert (host.shard.next, host.shard.failures, host.shard.trouble) == (8, 0, "")


async def test_a_log_that_goes_back_stops_the_worker_though_it_is_long_again(tmp_path: Path) -> None:
    """Its topic was made anew and has grown beyond the snapshot: what is below that is new."""
    stage = Poisoned()
    stage.poison = -1
    host = Host(stage, tmp_path)
    await host.read(3)
    host.at = 0
    await host.read(1)
    (error,) = host.crashed
    assert "events-0 was asked for offset 6 and answers with 0 (it ends at 100 now)" in str(error)
    assert host.shard.next == 6


async def test_what_waiting_does_not_cure_stops_the_worker(tmp_path: Path, pauses: list[float]) -> None:
    stage = Poisoned()
    stage.error = ConfigurationError("Kafka refuses records for covisits")
    host = Host(stage, tmp_path)
    await host.read(4)
    assert (host.crashed, host.counts["reloads"], pauses) == ([stage.error], 0, [])


async def load(host: Host, stage: Poisoned) -> list[str]:
    """Load its shard; the events that were logged."""
    with capture_logs() as lines:
        assert await host.load(cast(Any, stage), host.shard)
    return [line["event"] for line in lines]


@pytest.mark.parametrize("start", [0, 300])
async def test_the_first_start_begins_where_the_log_does(tmp_path: Path, start: int) -> None:
    stage = Poisoned()
    host = Host(stage, tmp_path)
    host.start = start
    assert await load(host, stage) == ["shard_loaded"]
    assert (host.shard.next, host.counts["lost"]) == (LOG_START, 0)


async def test_a_missing_snapshot_is_told_if_the_log_teaches_it_all_again(tmp_path: Path) -> None:
    stage = Poisoned()
    host = Host(stage, tmp_path)
    host.past = 500
    assert await load(host, stage) == ["snapshot_missing", "shard_loaded"]
    assert (host.shard.next, host.counts["lost"]) == (LOG_START, 0)


async def test_a_missing_snapshot_stops_the_worker_if_its_records_are_gone(tmp_path: Path) -> None:
    stage = Poisoned()
    host = Host(stage, tmp_path)
    host.past, host.start = 500, 300
    with pytest.raises(
        GapError, match=r"no snapshot of events-0 .* offset 500 .* begins at 300: .* RIVULET_SNAPSHOT_FOLDER"
    ):
        await host.load(cast(Any, stage), host.shard)
    assert stage.opened == 0
    host._snapshots.write("events-0", 500, {"a": np.arange(3)})
    assert await load(host, stage) == ["shard_loaded"]
    assert host.shard.next == 500


async def test_an_accepted_loss_of_a_snapshot_is_counted_once(tmp_path: Path) -> None:
    stage = Poisoned()
    host = Host(stage, tmp_path, on_gap="accept")
    host.past, host.start = 500, 300
    assert await load(host, stage) == ["gap", "shard_loaded"]
    assert await load(host, stage) == ["shard_loaded"]
    assert (host.shard.next, host.counts["lost"]) == (LOG_START, 300)
    assert [(loss.first, loss.end, loss.proven) for loss in host.losses] == [(0, 300, True)]


async def test_a_broker_that_does_not_tell_the_past_is_asked_again(tmp_path: Path, pauses: list[float]) -> None:
    stage = Poisoned()
    host = Host(stage, tmp_path)
    answers: list[Exception | None] = [TimeoutError(), KafkaConnectionError(), None]

    async def committed(tp: TP) -> int | None:
        if (error := answers.pop(0)) is not None:
            raise error
        return 500

    host.committed = committed  # type: ignore[method-assign]
    assert await load(host, stage) == ["past_not_told", "snapshot_missing", "shard_loaded"]
    answers[:] = [GroupAuthorizationFailedError()]
    with pytest.raises(GroupAuthorizationFailedError):
        await host.load(cast(Any, stage), host.shard)


def at_end(host: Host, position: int) -> Log:
    """What the thread tells of a log that was read to its end."""
    return Log(position, position, host.number, 0, host.shard.epoch)


async def before_a_hole(folder: Path, **settings: Any) -> Host:
    """A shard that has all six records; the log ends at 10, and of 6 to 9 nothing comes."""
    stage = Poisoned()
    stage.poison = -1
    host = Host(stage, folder, **settings)
    await host.read(3)
    host.shard.loads = 1
    host.log = at_end(host, 10)
    return host


async def look_twice(host: Host) -> None:
    """What is not there is asked for once more."""
    await host._feeder.pass_end(host.shard)
    assert (host.shard.next, host.seeks, host.losses) == (6, [6], type(host.losses)([], 1000))
    host.log = at_end(host, 10)
    await host._feeder.pass_end(host.shard)


async def test_what_was_deleted_up_to_the_end_is_counted_as_lost(tmp_path: Path) -> None:
    host = await before_a_hole(tmp_path)
    host.start = 10
    host.shard.failures, host.shard.failed_at = 3, 8
    await look_twice(host)
    assert (host.shard.next, host.counts["lost"], host.shard.failures, host.crashed) == (10, 4, 0, [])
    host.log = at_end(host, 10)
    await host._feeder.pass_end(host.shard)
    host.at = 10
    await host.read(1)
    assert (host.shard.next, host.counts["lost"], host.counts["gaps"]) == (12, 4, 1)


async def test_markers_at_the_end_stop_the_worker_or_are_counted_as_the_setting_says(tmp_path: Path) -> None:
    host = await before_a_hole(tmp_path, on_gap="accept")
    await look_twice(host)
    assert (host.shard.next, host.counts["lost"]) == (10, 4)
    host = await before_a_hole(tmp_path)
    await look_twice(host)
    (error,) = host.crashed
    assert isinstance(error, GapError)
    assert "4 records of events-0 are missing: offsets 6 to 9" in str(error)
    assert (host.shard.next, host.counts["lost"]) == (6, 0)


async def test_a_log_of_which_nothing_is_left_begins_at_its_end(tmp_path: Path) -> None:
    host = await before_a_hole(tmp_path)
    host.shard.next, host.shard.fetches = LOG_START, 0
    host.log = Log(10, 10, 0, 0, host.shard.epoch)
    await host._feeder.pass_end(host.shard)
    assert (host.shard.next, host.seeks, host.counts["lost"], host.counts["gaps"]) == (10, [], 0, 0)


@pytest.mark.parametrize(
    "what", ["on its way", "before a seek", "not at the end", "in between", "not loaded", "lost", "unknown", "read"]
)
async def test_a_shard_that_may_yet_get_records_is_left_where_it_stands(tmp_path: Path, what: str) -> None:
    host = await before_a_hole(tmp_path, on_gap="accept")
    log, shard = at_end(host, 10), host.shard
    odd = {
        "on its way": log._replace(fetches=log.fetches + 1),
        "before a seek": log._replace(epoch=log.epoch - 1),
        "not at the end": log._replace(end=11),
        "unknown": None,
        "read": log._replace(end=6, position=6),
    }
    host.log = odd.get(what, log)
    shard.dirty, shard.lost, shard.loads = what == "in between", what == "lost", int(what != "not loaded")
    for _ in range(3):
        await host._feeder.pass_end(shard)
    assert (shard.next, host.seeks, host.counts["gaps"], host.crashed) == (6, [], 0, [])


async def test_what_the_broker_does_not_tell_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = await before_a_hole(tmp_path)
    host.start = 10

    async def silent(_: TP) -> int:
        raise TimeoutError

    with monkeypatch.context() as patched:
        patched.setattr(host, "log_start", silent)
        await look_twice(host)
        assert (host.shard.next, host.crashed) == (6, [])
    await host._feeder.pass_end(host.shard)
    assert host.shard.next == 10


async def test_a_store_of_snapshots_that_does_not_answer_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, asked, answer = Host(Poisoned(), tmp_path), asyncio.Event(), asyncio.Event()

    def latest(_: str) -> None:
        if not answer.is_set():
            raise OSError("no route to the bucket")

    async def pause(_: float) -> None:
        asked.set()
        await answer.wait()

    monkeypatch.setattr(host._snapshots, "latest", latest)
    monkeypatch.setattr(shards, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": pause}))
    loading = asyncio.create_task(host.load(cast(Any, Poisoned()), host.shard))
    await asked.wait()
    assert host.snapshots_away.trouble == "no route to the bucket"
    answer.set()
    assert await loading
    assert host.snapshots_away.trouble == ""


def test_a_shard_that_is_not_saved_for_long_is_told(tmp_path: Path) -> None:
    now = 1_000.0
    host = Host(Poisoned(), tmp_path)
    host._clock = lambda: now
    worker = cast(Any, SimpleNamespace(host=host, settings=SimpleNamespace(snapshot_every_s=30)))
    host.shard.next = host.shard.saved = 7
    host.shard.saved_at = now - 601
    assert health._unsaved(worker) == "", "there is nothing new"
    host.shard.next = 8
    told = "events-0 was not saved for 601 s: a new process would learn again what came since"
    assert health._unsaved(worker) == told
    host.shard.saved_at = now - 599
    assert health._unsaved(worker) == ""


def test_the_works_of_the_host_begin_again_when_they_are_cancelled(tmp_path: Path) -> None:
    works: list[Any] = []
    signal = SimpleNamespace(connect=lambda _: None)
    signals = dict.fromkeys(("on_partitions_revoked", "on_rebalance_complete", "on_before_shutdown"), signal)
    conf = SimpleNamespace(broker_consumer="kafka://localhost")
    Host(Poisoned(), tmp_path).attach(cast(Any, SimpleNamespace(task=works.append, conf=conf, **signals)))
    assert [(work.func, work.args[0].__name__) for work in works] == [
        (for_ever, "_snapshot"),
        (for_ever, "_pass_ends"),
    ]

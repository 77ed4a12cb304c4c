"""How a shard starts without a snapshot or fails again and again; on a real broker: tests/integration."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest
from aiokafka.errors import (  # type: ignore[import-untyped]  # no py.typed
    GroupAuthorizationFailedError,
    KafkaConnectionError,
)
from structlog.testing import capture_logs

from stream import feeding, shards
from stream.errors import ConfigurationError, UnavailableError
from stream.fetches import TP, Fetch
from stream.shard import LOG_START, GapError, HostSettings, Shard
from stream.shards import ShardHost
from stream.snapshots import SnapshotStore
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
    start = 0

    def __init__(self, stage: Poisoned, folder: Path, on_gap: Literal["stop", "accept"] = "stop") -> None:
        super().__init__([cast(Any, stage)], SnapshotStore(folder), HostSettings(on_gap=on_gap))
        self.shard = self._shards[TP("events", 0)] = Shard("events", 0, 0.0, next=0)
        self.crashed: list[BaseException] = []
        self._app = cast(Any, SimpleNamespace(crash=self._crash, should_stop=False))
        self.at = self.number = 0

    async def _crash(self, error: BaseException) -> None:
        self.crashed.append(error)

    async def committed(self, tp: TP) -> int | None:
        return self.past

    async def log_start(self, tp: TP) -> int:
        return self.start

    async def seek(self, shard: Shard) -> None:
        (self.at, shard.epoch), self.number = self._new_epoch(shard), 0

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
    with pytest.raises(GapError, match=r"no snapshot of events-0 .* 500 .* begins at 300: .* RIVULET_SNAPSHOT_FOLDER"):
        await host.load(cast(Any, stage), host.shard)
    assert stage.opened == 0
    host._snapshots.write("events-0", 500, {"a": np.arange(3)})
    assert await load(host, stage) == ["shard_loaded"]
    assert host.shard.next == 500


async def test_an_accepted_loss_of_a_snapshot_is_counted_once(tmp_path: Path) -> None:
    stage = Poisoned()
    host = Host(stage, tmp_path, "accept")
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
    assert await load(host, stage) == ["past_not_told", "past_not_told", "snapshot_missing", "shard_loaded"]
    answers[:] = [GroupAuthorizationFailedError()]
    with pytest.raises(GroupAuthorizationFailedError):
        await host.load(cast(Any, stage), host.shard)

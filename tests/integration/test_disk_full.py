"""A disk that is really full when snapshots are due: nothing is lost, nothing crashes, older snapshots stay."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stream.demo.shop import Shop
from tests.pages import installation, values
from tests.worker_process import WorkerProcess, balance

GROWTH_MB = 60  # of the worker, at most, while nothing can be saved
EVENTS = list(Shop(seed=6, users=300).events(6_000))


class SmallDisk:
    """A file system of 8 MB; where mounting is not allowed, a limit on the size of the worker's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
        self.mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0

    def fill(self, worker: WorkerProcess) -> None:
        """Leave no room."""
        if not self.mounted:
            self._limit(worker, 8_192)  # the log needs a little
            return
        with (self.folder / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(1 << 16)):
                pass
        assert os.statvfs(self.folder).f_bavail == 0

    def free(self, worker: WorkerProcess) -> None:
        """Make room again."""
        if self.mounted:
            (self.folder / "ballast").unlink()
        else:
            self._limit(worker, resource.RLIM_INFINITY)

    def _limit(self, worker: WorkerProcess, nbytes: int) -> None:
        hard = resource.prlimit(worker.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (nbytes, hard))

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    small = SmallDisk(folder)
    yield small
    small.close()


async def test_full_disk_loses_nothing_and_older_snapshots_stay(
    kafka: str, redis_url: str, topic_prefix: str, disk: SmallDisk
) -> None:
    async with installation(kafka, redis_url, disk.folder, topic_prefix, log_level="warning") as (shop, pages):

        async def all_saved() -> bool:
            return sum(shop.saved("events").values()) == shop.sent

        async def at_rest() -> bool:  # nothing is written or deleted any more: it would make room on a full disk
            ends = [await shop.progress.ends(role) for role in ("events", "covisits", "global")]
            saved = [shop.saved(role) for role in ("events", "covisits", "global")]
            kept = Counter(found.shard for found in shop.snapshots().generations()).values()
            return (
                saved == [{p: end for p, end in each.items() if end} for each in ends]
                and max(kept) <= shop.settings.snapshot_keep
                and all(name.endswith(".snap") for name in os.listdir(shop.settings.snapshot_folder))
            )

        worker = shop.start()
        await shop.publish(EVENTS[:2_000])
        await shop.drained()
        await shop.until(at_rest, "not saved")
        before, resident_mb = shop.saved("events"), worker.resident_mb
        files = {found.name for found in shop.snapshots().generations()}

        disk.fill(worker)
        await shop.publish(EVENTS[2_000:4_000])
        await shop.drained()

        async def complained() -> bool:
            return worker.output.count("snapshot_failed") > 2 * shop.settings.events_partitions

        await shop.until(complained, "nothing is said about the disk")
        assert worker.resident_mb - resident_mb < GROWTH_MB
        assert values((await pages.metrics())["rivulet_shard_actions"], "action")[("snapshot_errors",)] > 0
        assert await pages.failing("/healthz") == {}
        await shop.until(lambda: pages.fails("snapshots"), "it is not told that nothing is saved")
        failing = await pages.failing()
        assert failing is not None
        assert failing.keys() == {"snapshots"}  # what is learned and shown is as fresh as ever
        assert "was not saved for" in failing["snapshots"]
        assert await pages.failing("/healthz") == {}
        (line, *_) = [line for line in worker.output.splitlines() if "snapshot_failed" in line]
        assert os.strerror(errno.ENOSPC if disk.mounted else errno.EFBIG) in line
        assert "Traceback" not in worker.output
        assert shop.saved("events") == before
        assert {found.name for found in shop.snapshots().generations()} >= {
            name for name in files if any(f"@{offset:020d}" in name for offset in before.values())
        }

        worker.end(signal.SIGKILL)  # and now it has to learn again what was never saved
        worker = shop.start()
        await shop.publish(EVENTS[4_000:])
        await shop.drained()
        disk.free(worker)
        await shop.until(all_saved, "not saved after there is room again")
        await shop.until(pages.is_ready, "not ready although all is saved")
        assert balance(await shop.counts()) == shop.sent == len(EVENTS)
        assert await worker.terminate() == 0
        assert {name.rpartition(".")[2] for name in os.listdir(shop.settings.snapshot_folder)} == {"snap"}

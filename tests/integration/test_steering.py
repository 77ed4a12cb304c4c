"""A replay of a Parquet table with columns of its own, whose speed is changed while it runs: on real servers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]  # no py.typed
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # no py.typed

from tests.worker_process import Installation, balance, environment

HOUR_S = 3_600
VISITS = 12  # an hour apart: at their own pace nothing but the first would come within the test


@asynccontextmanager
async def replay(shop: Installation, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """``rivulet replay`` with standard input to steer it."""
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    verb = [sys.executable, "-m", "stream.cli", "replay", *arguments]
    process = await asyncio.create_subprocess_exec(*verb, env=environment(shop.settings), **pipes)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_running_replay_goes_slower_stands_still_and_goes_faster(
    kafka: str, redis_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    began = int(time.time()) - (VISITS + 1) * HOUR_S
    columns: dict[str, list[Any]] = {
        "at": [began + n * HOUR_S for n in range(VISITS)],
        "viewer": [f"v{n % 3}" for n in range(VISITS)],
        "film": [f"f{n % 4}" for n in range(VISITS)],
    }
    file = tmp_path / "films.parquet"
    pq.write_table(pa.table(columns), file)
    table = [str(file), "--map", "at=event_timestamp", "--map", "viewer=user_id", "--map", "film=item_id"]
    call = [*table, "--set", "event_name=view_item", "--speed", "pause", "--steer", "--json"]
    async with Installation(kafka, redis_url, tmp_path, topic_prefix) as shop:
        shop.start()
        async with replay(shop, *call) as process:

            async def say(line: str, answer: str) -> None:
                """Type a line, and wait for what the replay says to it."""
                assert process.stdin is not None
                assert process.stderr is not None
                process.stdin.write(f"{line}\n".encode())
                async with asyncio.timeout(60):
                    while answer not in (await process.stderr.readline()).decode():
                        pass

            async def included(count: int) -> bool:
                return await shop.included() >= count

            await say("quickly", "--speed takes a number above 0, max or pause, not 'quickly'")
            assert await shop.included() == 0  # it stands still since its start
            await say("1", "speed 1")
            await shop.until(lambda: included(1), "the first visit, at its own pace")
            await say("pause", "speed pause")
            assert await shop.included() == 1
            await say("18000", "speed 18000")  # five hours a second
            await shop.until(lambda: included(3), "two visits more")
            await say("max", "speed max")
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        done = json.loads(out)
        assert (done["sent"], done["books"]["learned"], done["skipped"]) == (VISITS, VISITS, 0)
        assert balance(await shop.counts()) == VISITS
        await shop.republish()
        assert (await shop.lists({"v0", "v1", "v2"})).keys() == {"v0", "v1", "v2"}

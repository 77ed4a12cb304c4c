"""Workers are killed, frozen, hung or broken: nothing of their shards is lost, nothing counts twice."""

from __future__ import annotations

import signal

from tests.shard_group import Group


async def test_killed_worker_goes_on_from_its_snapshot(group: Group) -> None:
    async with group.writing():
        worker = group.start(session_s=2.0)
        for _ in range(3):
            await group.until_moved("a", 1000)
            worker.kill()
            worker.wait()
            worker = group.start(session_s=2.0)
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_frozen_worker_comes_back_and_spoils_nothing(group: Group) -> None:
    async with group.writing():
        frozen = group.start("a", session_s=2.0)
        group.start("b", session_s=2.0)
        await group.until_shared()
        await group.until_moved("a", 500)
        frozen.send_signal(signal.SIGSTOP)
        await group.until(lambda: len(group.status("b").next) == 4, "b does not take over")
        await group.until_moved("b", 2000)
        committed = await group.committed()
        frozen.send_signal(signal.SIGCONT)
        await group.until(lambda: group.count("commits_refused", "a") > 0, "it does not try to commit")
        after = await group.committed()
        assert all(after[partition] >= at for partition, at in committed.items())
        await group.until_shared()
    await group.until_read()
    await group.end("a")
    await group.end("b")
    group.assert_exact()


async def test_bug_in_a_stage_stops_the_worker_and_loses_nothing(group: Group) -> None:
    await group.write(4000)
    group.start(fail="crash", fail_at=600)
    assert await group.exit_code() != 0
    assert "a bug" in group.log()
    group.start()
    await group.until_read()
    await group.end()
    group.assert_exact()


async def test_hung_stage_delays_neither_the_group_nor_the_shutdown(group: Group) -> None:
    await group.write(4000)
    # the group itself would wait for a's answer for ten minutes
    waits = {"release_s": 1.0, "exit_s": 1.0, "rebalance_s": 600}
    group.start("a", fail="hang", fail_at=600, **waits)
    await group.until(lambda: (group.folder / "failed-hang").exists(), "it does not hang")
    group.start("b", rebalance_s=600)
    await group.until(lambda: len(group.status("b").next) == 2, "b waits for the hung stage")
    await group.end("a")  # the stage hangs for an hour
    await group.until_read()
    await group.end("b")
    group.assert_exact()

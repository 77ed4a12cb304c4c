"""The life of shards on a real broker: nothing lost, nothing twice, as workers come and go."""

from __future__ import annotations

from tests.shard_group import PARTITIONS, Group


async def test_workers_join_and_leave_and_every_record_counts_once(group: Group) -> None:
    async with group.writing():
        # a session that no busy machine ends: what is read again after that would be counted again
        group.start("a", session_s=15.0)
        await group.until_moved("a", 2000)
        group.start("b", session_s=15.0)
        await group.until_shared()
        await group.until_moved("a", 1000)
        await group.until_moved("b", 1000)
        assert await group.end("a") == 0
        await group.until(lambda: len(group.status("b").next) == 4, "b does not take over")
        await group.until_moved("b", 2000)
    await group.until_read()
    assert await group.end("b") == 0
    group.assert_exact()
    assert group.count("records", "a", "b") == sum(group.ends)
    assert group.count("dropped", "a", "b") == group.count("gaps", "a", "b") == 0


async def test_a_third_worker_gets_a_part(group: Group) -> None:
    """Faust's own assignor, which it chooses unless told, leaves two workers with half of the partitions each."""
    await group.write(4000)
    for name in "ab":
        group.start(name, session_s=15.0)
    await group.until_shared()
    group.start("c", session_s=15.0)

    def parts() -> list[int]:
        return sorted(len(group.status(name).next) for name in "abc")

    await group.until(lambda: parts() == [1, 1, 2], "one of three has no part")
    await group.until_read()


async def test_forced_rejoins_lose_nothing_and_leave_no_gaps(group: Group) -> None:
    """Also what is fetched after the seek and before flow resumes is kept."""
    async with group.writing():
        group.start(resume_s=0.1, session_s=30.0)  # none is lost on a busy machine: records are counted
        for n in range(12):
            await group.until_moved("a", 500)
            (group.folder / "rejoin").touch()
            await group.until(lambda n=n: group.log().count("Successfully synced") > n + 1, "no rejoin")  # type: ignore[misc]
    await group.until_read()
    assert await group.end() == 0
    group.assert_exact()
    assert group.log().count("Successfully synced") > 12
    assert group.count("records", "a") == sum(group.ends)
    assert group.count("gaps", "a") == group.count("dropped", "a") == 0


async def test_slow_loads_are_overtaken_by_newer_assignments(group: Group) -> None:
    """Loading takes longer than the session and is never finished before somebody else joins."""
    await group.write(8000)
    for name in "abc":
        group.start(name, load_s=1.0, session_s=2.0)
        await group.until(lambda name=name: "(Re-)joining" in group.log(name), "no join")  # type: ignore[misc]
        await group.until(lambda name=name: "Successfully synced" in group.log(name), "no assignment")  # type: ignore[misc]
    await group.until_read()
    assert await group.end("b") == 0
    await group.write(4000)
    await group.until_read()
    assert await group.end("a") == await group.end("c") == 0
    group.assert_exact()


async def test_group_offsets_are_those_of_the_snapshots(group: Group) -> None:
    await group.write(4000)
    group.start()
    await group.until_read()
    await group.end()
    assert await group.committed() == dict(enumerate(group.ends))


async def test_slow_stage_bounds_what_waits_in_memory(group: Group) -> None:
    await group.write(40_000)
    group.start(delay_s=0.03, fetch_records=50)
    most = 0

    def far_enough() -> bool:
        nonlocal most
        if (done := group.processed()) < 35_000:  # as long as more waits in the log than may wait in memory
            most = max(most, group.status().buffered)
        return done > 3_000

    await group.until(far_enough, "it does not get on")
    assert 100 < most <= (8 + 3 * PARTITIONS) * 50


async def test_stage_that_is_not_ready_gets_nothing_and_then_everything(group: Group) -> None:
    await group.write(2000)
    group.start(gated=True)
    await group.until(lambda: group.status().buffered > 0, "nothing waits at the gate")
    await group.until(lambda: group.status().refused > 10 * PARTITIONS, "it does not ask again")
    assert group.processed() <= 0
    (group.folder / "gate").touch()
    await group.until_read()
    await group.end()
    group.assert_exact()

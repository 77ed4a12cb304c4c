"""The user agent: topic ``events`` -> `UserStage` -> deltas to Kafka, lists to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from numpy.typing import NDArray

from stream.agents.base import Agent, step_by_step
from stream.agents.taking_up import take_up
from stream.batch import Batch
from stream.decoding import decode
from stream.events import RankAgain
from stream.fencing import Fence
from stream.fetches import ConsumerRecord
from stream.hindsight import Hindsight
from stream.neighbours import Neighbours
from stream.shards import Shard
from stream.stages.learned import Learned
from stream.stages.sends import Send
from stream.stages.user import ALONE, UserStage
from stream.stages.user_shard import UserShard

log = structlog.get_logger(__name__)

# At a time, so that the event loop is not held for more than some 5 ms:
DECODED: Final = 500  # records decoded
LESSON: Final = 2_000  # records learned, with pauses of the stage's: each such part sends deltas of its own
SLICE: Final = {"covisit": 250, "blend": 140}  # users ranked
REVIEWED: Final = 500  # users whose offers are looked at between two batches


@dataclass(eq=False)
class UserAgent(Agent[UserStage]):
    """Carries out what the user stage decides, in the order that keeps state exact.

    Parameters
    ----------
    neighbours
        Where neighbours that other workers own come from.
    fence
        Says when lists may be written.
    hindsight
        Says whether item rows know of events already.
    room
        Awaits until more events may be read (broadcast read, `covisits` not far behind).
    """

    neighbours: Neighbours
    fence: Fence
    hindsight: Hindsight
    room: Callable[[], Coroutine[Any, Any, None]]

    async def process(self, shard: Shard, records: Sequence[ConsumerRecord]) -> None:
        """Learn, send the deltas, rank, write; returns when every answer has come."""
        self.stats.batches["user"].add_one(len(records))
        state = self.stage.shards[shard.partition]
        state.known = await self.hindsight.reach(state, shard.partition, records[0].offset)
        if shard.lost:
            return
        blend, drifts = state.blend, state.blend.drifts
        learned = await self._learn(shard, records)
        if learned is None:
            return
        if blend.drifts > drifts:
            log.warning("blend_drift", shard=shard.name, hit_rate=round(blend.hit_rate, 4), drifts=blend.drifts)
        acks = asyncio.ensure_future(self._send(learned.sends))
        try:
            told = await self._push(shard, learned)
        except BaseException:
            acks.cancel()
            raise
        await acks
        await self._send(told)
        self.stats.events(learned.event_ms, len(records))

    async def _learn(self, shard: Shard, records: Sequence[ConsumerRecord]) -> Learned | None:
        """Learn, and let others run in between; None if the shard is lost meanwhile."""
        parts: list[Learned] = []
        with self.stats.timed("user", "learn"):
            for start in range(0, len(records), LESSON):
                some = records[start : start + LESSON]
                decoded = await self._decode(some)
                part = await step_by_step(shard, self.stage.learning(shard.partition, some, decoded))
                if part is None:
                    return None
                parts.append(part)
                await _breathe(records)
        return None if shard.lost else Learned.of_all(parts)

    async def _decode(self, records: Sequence[ConsumerRecord]) -> Batch:
        """Half the work of learning, and the half that touches no state."""
        batch = Batch()
        for start in range(0, len(records), DECODED):
            decode(records[start : start + DECODED], until=ALONE, batch=batch)
            await _breathe(records)
        return batch

    async def _send(self, sends: Sequence[Send]) -> None:
        if sends:
            with self.stats.timed("user", "send"):
                await self.publisher.send(sends)

    async def _push(self, shard: Shard, learned: Learned) -> list[Send]:
        """Rank and write; returns what is to be told of what was written."""
        told: list[Send] = []
        force = await self.fence.may_follow(shard) or learned.force
        if learned.everyone:  # asked for after all rows were published: none read before may count
            await self.neighbours.drop()
        for answer in learned.answers:
            if not await self.fence.may_write(shard):
                return told
            await self.write(answer.writes)
            if self.fence.is_overtaken(shard):
                await self._ask_again(shard, [answer.user])
        slice_ = SLICE[self.stage.rules.ranking] // (1 + len(self.stage.rules.placements) // 2)
        for start in range(0, len(learned.users), slice_):
            if shard.lost:  # after any await the partition may hold a new shard, or none
                return told
            users, ts_ms = learned.users[start : start + slice_], learned.ts_ms[start : start + slice_]
            with self.stats.timed("user", "neighbours"):
                await self.neighbours.fetch(self.stage.shards[shard.partition].histories.arrays, users)
            if shard.lost:
                return told
            names = self.stage.shards[shard.partition].users
            with self.stats.timed("user", "rank"):
                pushes = self.stage.rank(shard.partition, users, ts_ms, force=force)
            if not await self.fence.may_write(shard):
                return told
            self.stats.lists(pushes.lists)
            with self.stats.timed("user", "write"):
                await self.write(pushes.writes)
            told += pushes.sends
            if len(pushes.writes) and self.fence.is_overtaken(shard):
                await self._ask_again(shard, names.texts(users))
        return told

    async def review(self, shard: Shard) -> None:
        """Take offers that ended, were withdrawn or changed out of what some of the shard's users find in Redis."""
        async with shard.lock:
            if shard.lost or shard.dirty or not shard.loads:
                return
            users = self.stage.outdated(shard.partition, REVIEWED)
            if len(users) == 0:
                return
            state = self.stage.shards[shard.partition]
            try:
                told = await self._push(shard, Learned.of_users(users, self.stage.last_ms(shard.partition, users)))
                await self._send(told)
            except BaseException:
                state.review_again(users)
                raise

    async def _ask_again(self, shard: Shard, users: list[str]) -> None:
        """Have the partition's owner write some lists again."""
        log.warning("lists_may_be_older", shard=shard.name, users=len(users), then="written again by the owner")
        value = msgspec.json.encode(RankAgain(users=users))
        await self.ask_owner(Send("events", value, partition=shard.partition))

    async def ready(self) -> None:
        """Wait until there is room for more."""
        await self.room()

    async def prepare(self, arrays: Mapping[str, NDArray[Any]]) -> UserShard:
        """Unpack and translate a snapshot while other shards go on."""
        return await take_up(self.stage.rules, self.stage.space, arrays)

    def open(self, partition: int, prepared: UserShard | None) -> None:
        """Take up a shard; what Redis holds by now is not known."""
        if prepared is None:
            super().open(partition, None)
        else:
            self.stage.adopt(partition, prepared)
        self.stage.shards[partition].doubt()


async def _breathe(records: Sequence[ConsumerRecord]) -> None:
    """Let others run, if so many records are at work that they would wait."""
    if len(records) > DECODED:
        await asyncio.sleep(0)

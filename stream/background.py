"""What a worker does beside its agents, again and again: publish, tell, look at the topics."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.errors import ConfigurationError, RivuletError
from stream.shard import Shard
from stream.topics import faults, layout
from stream.troubles import Troubles, for_ever

if TYPE_CHECKING:
    from stream.app import Worker

REVIEW_S: Final = 0.25
TELL_S: Final = 0.25
NOTICE_EVERY: Final = 3  # rounds of telling: a loss is noticed within a second
TOPICS_S: Final = 5.0

log = structlog.get_logger(__name__)


class Background:
    """Background work of a worker; each kind repeats for ever and survives a server that is away.

    Parameters
    ----------
    worker
        Whose work it is.

    Attributes
    ----------
    topic_faults
        What is wrong with the topics on the broker, one sentence each.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        settings = worker.settings
        self._layout = layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
        self._troubles = Troubles()
        self.topic_faults: list[str] = []
        work = (
            worker.broadcast.run,
            worker.item_writer.run,
            self._publish,
            self._review,
            self._tell,
            self._watch_topics,
        )
        for each in work:
            worker.app.task(partial(for_ever, each, lambda: worker.app.should_stop, self._troubles))

    async def _publish(self) -> None:
        worker = self._worker
        await worker.broadcast.caught_up.wait()  # else what the catalogue has withdrawn would be shown again
        while True:
            await asyncio.sleep(worker.settings.publish_every_s)
            for shard in self._shards_of(worker.item_agent.topic):
                await self._carefully(f"publish_items_{shard.partition}", worker.item_agent.publish(shard))
            for shard in self._shards_of(worker.global_agent.topic):
                await self._carefully("publish_trends", worker.global_agent.publish(shard))

    async def _review(self) -> None:
        """Offers that are no longer what they were leave Redis, for some users of each shard at a time."""
        worker = self._worker
        await worker.broadcast.caught_up.wait()
        while True:
            await asyncio.sleep(REVIEW_S)
            for shard in self._shards_of(worker.user_agent.topic):
                if worker.host.may_write():
                    await self._carefully(f"review_offers_{shard.partition}", worker.user_agent.review(shard))

    def _shards_of(self, topic: str) -> list[Shard]:
        return [shard for shard in self._worker.host.shards.values() if shard.topic == topic]

    async def _tell(self) -> None:
        for turn in count():
            await asyncio.sleep(TELL_S)
            if turn % NOTICE_EVERY == 0:  # never beside `tell`, which would take what it has just written for kept
                await self._carefully("notice_loss", self._worker.meta.notice_loss())
            await self._carefully("tell", self._worker.meta.tell())
            await self._carefully("drop_dead_workers", self._worker.meta.roster.sweep())

    async def _watch_topics(self) -> None:
        while True:
            await asyncio.sleep(TOPICS_S)
            await self._carefully("look_at_topics", self._look_at_topics())

    async def _look_at_topics(self) -> None:
        """A topic may be deleted or get other partitions while the worker runs; a restart would not repair either."""
        self._worker.pulse.topic_missing = False  # nor is it excused if the broker does not tell
        partitions = await self._worker.broadcast.partitions()
        found = faults(self._layout, partitions)
        self._worker.pulse.topic_missing = any(topic.name not in partitions for topic in self._layout)
        for fault in found:
            if fault not in self.topic_faults:
                log.error("topic_changed", fault=fault)
        if self.topic_faults and not found:
            log.warning("topics_repaired")
        self.topic_faults = found

    async def _carefully(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Run background work; an exception that left it would kill the worker, and the next round repeats it."""
        try:
            await work
        except ConfigurationError as error:  # it would be refused again in every round
            log.critical("worker_stops", what=what, reason=str(error))
            await self._worker.app.crash(error)
        except (RivuletError, KafkaError, OSError) as error:
            self._troubles.failed(what, error)
        else:
            self._troubles.done(what)

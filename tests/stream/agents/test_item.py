"""What the item agent could not publish belongs to its next publication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from stream.agents.item import ItemAgent
from stream.errors import UnavailableError
from stream.keys import Keys
from stream.local import LocalRecord
from stream.memory_store import MemoryStore
from stream.resp import WriteBatch
from stream.stages.item import ItemStage
from stream.stages.sends import Send
from stream.stages.space import ItemSpace
from stream.stages.user import UserStage
from stream.stages.user_shard import UserRules
from stream.stats import Stats
from stream.wire import Popular, decode_global
from tests.records import event, stream

KEYS = Keys()
AWAY = UnavailableError("away")


class Servers(MemoryStore):
    """Redis and Kafka in memory, which fail when told."""

    def __init__(self) -> None:
        super().__init__()
        self.redis_away = self.kafka_away = False
        self.sent: list[Send] = []

    async def flush(self, batch: WriteBatch) -> None:
        if self.redis_away:
            raise AWAY
        await super().flush(batch)

    async def send(self, sends: Sequence[Send]) -> None:
        if self.kafka_away:
            raise AWAY
        self.sent += sends

    def popular(self) -> set[str]:
        messages = [decode_global(send.value) for send in self.sent]
        return {item for message in messages if isinstance(message, Popular) for item in message.items}


def agent(servers: Servers) -> ItemAgent:
    """With a shard that has learned of three items."""
    users = UserStage(ItemSpace(1), KEYS, UserRules(), 1)
    users.open(0, None)
    learned = users.learn(0, stream([event("u1", "tent", "bag", "stove", at=1)]))
    values = [send.value for send in learned.sends if send.role == "covisits"]
    stage = ItemStage(ItemSpace(1), KEYS, 1)
    stage.open(0, None)
    stage.learn(0, [LocalRecord(n, 0, None, value) for n, value in enumerate(values)])
    return ItemAgent("covisits", stage, cast(Any, servers), servers, Stats())


@pytest.mark.parametrize("away", ["redis_away", "kafka_away"])
async def test_what_failed_is_published_by_the_next_round(away: str) -> None:
    servers = Servers()
    item_agent = agent(servers)
    setattr(servers, away, True)
    with pytest.raises(UnavailableError):
        await item_agent.publish(0)
    setattr(servers, away, False)
    servers.sent.clear()
    for key in list(servers):  # and what was written may be lost meanwhile
        servers._drop(key)
    await item_agent.publish(0)
    assert set(servers) == {KEYS.similar(item) for item in ("tent", "bag", "stove")}
    assert servers.popular() == {"tent", "bag", "stove"}


async def test_what_succeeded_is_not_published_again() -> None:
    servers = Servers()
    item_agent = agent(servers)
    await item_agent.publish(0)
    assert servers.popular() == {"tent", "bag", "stove"}
    servers.sent.clear()
    for key in list(servers):
        servers._drop(key)
    await item_agent.publish(0)
    assert (list(servers), servers.sent) == ([], [])

"""The user agent without servers around it: a group that always lets it write, and neighbours that are all at hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from stream.agents.user import UserAgent
from stream.hindsight import Hindsight
from stream.local import LocalPipeline
from stream.shard import Shard
from stream.stats import Stats


def user_agent(pipeline: LocalPipeline, hindsight: Hindsight | None = None) -> UserAgent:
    """An agent of the pipeline's user stage that writes to its store; what it sends is dropped."""

    async def nothing(*_: Any) -> None:
        pass

    async def never(_: Shard) -> bool:
        return False

    async def always(_: Shard) -> bool:
        return True

    return UserAgent(
        "events",
        pipeline.users,
        cast(Any, SimpleNamespace(send=nothing)),
        pipeline.store,
        Stats(),
        cast(Any, SimpleNamespace(fetch=nothing)),
        cast(Any, SimpleNamespace(may_follow=never, may_write=always, is_overtaken=lambda _: False)),
        cast(Any, hindsight),
        nothing,
    )

"""A record that a step wants published: said by the pure stages, done by the agents."""

from __future__ import annotations

from typing import NamedTuple


class Send(NamedTuple):
    """A record to be published.

    `role` names the topic (``events covisits global models served dlq``); `partition` None = by key; `timestamp_ms`
    None = now.
    """

    role: str
    value: bytes
    partition: int | None = None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int | None = None

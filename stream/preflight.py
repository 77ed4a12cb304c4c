"""What must hold before a worker starts, each failure as one line that says what to do."""

from __future__ import annotations

import socket

from stream.errors import ConfigurationError
from stream.kafka import client_options
from stream.settings import Settings
from stream.snapshots import SnapshotStore
from stream.store import RedisStore
from stream.topics import check as check_topics
from stream.topics import layout


async def check(settings: Settings) -> None:
    """Check broker, topics and Redis once.

    Raises
    ------
    UnavailableError
        If broker or Redis do not answer.
    ConfigurationError
        If a topic is missing or has other partitions, a login is refused, the snapshot folder cannot be written, or
        the web port is taken.
    """
    try:
        if settings.web_port:
            socket.create_server((settings.web_host, settings.web_port)).close()
    except OSError as error:
        raise ConfigurationError(
            f"RIVULET_WEB_PORT={settings.web_port} on {settings.web_host}: {error.strerror}; each worker of a machine"
            " needs its own, or 0 for none"
        ) from error
    SnapshotStore.of(settings)
    topics = layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
    await check_topics(settings.kafka, topics, **client_options(settings))
    store = await RedisStore.connect(settings.redis)
    await store.close()

"""What must hold before a worker starts, each failure as one line that says what to do."""

from __future__ import annotations

import socket

from stream.errors import ConfigurationError, redis_away
from stream.kafka import client_options
from stream.keys import Keys
from stream.link import LinkLostError
from stream.nodes import Nodes
from stream.permissions import WORKER, require
from stream.redis_access import refusals
from stream.redis_address import redis_address
from stream.settings import Settings
from stream.snapshots import SnapshotStore
from stream.topics import check as check_topics
from stream.topics import layout


async def check(settings: Settings) -> None:
    """Check broker, topics and Redis once.

    Raises
    ------
    UnavailableError
        If broker or Redis do not answer.
    ConfigurationError
        If a topic is missing or has other partitions, a login is refused or may not do what a worker does, the snapshot
        folder cannot be written, or the web port is taken.
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
    await _check_kafka(settings)
    await _check_redis(settings)


async def _check_kafka(settings: Settings) -> None:
    topics = layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
    await require(settings, WORKER, member=True)
    await check_topics(settings.kafka, topics, **client_options(settings))


async def _check_redis(settings: Settings) -> None:
    address = redis_address(settings)
    nodes = Nodes(address)
    try:
        await nodes.greet()
        denied = await refusals(nodes, Keys(settings.prefix))
    except LinkLostError as error:
        raise redis_away(error) from error
    finally:
        await nodes.close()
    if denied:
        raise ConfigurationError(f"Redis does not allow {denied[0]}: see the ACL of a worker in the README")

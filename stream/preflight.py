"""What must hold before a worker starts, each failure as one line that says what to do."""

from __future__ import annotations

from tempfile import TemporaryFile

from stream.errors import ConfigurationError
from stream.kafka import client_options
from stream.settings import Settings
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
        If a topic is missing or has other partitions, a login is refused, or the snapshot folder cannot be written.
    """
    try:
        settings.snapshot_folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=settings.snapshot_folder):
            pass
    except OSError as error:
        raise ConfigurationError(f"RIVULET_SNAPSHOT_FOLDER={settings.snapshot_folder}: {error.strerror}") from error
    topics = layout(settings.events_partitions, settings.covisits_partitions, settings.topic_prefix)
    await check_topics(settings.kafka, topics, **client_options(settings))
    store = await RedisStore.connect(settings.redis)
    await store.close()

"""What the HTTP door has in hand: bytes that are held, and requests whose records are on their way to Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # no py.typed

from stream.errors import UnavailableError
from stream.events import MAX_RECORD_BYTES


class Room:
    """Bytes that are held at once: of requests being read and of records that Kafka has not acknowledged.

    Parameters
    ----------
    most
        Most bytes.

    Attributes
    ----------
    held
        Bytes held now.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    @property
    def trouble(self) -> str:
        """Empty while there is room for another large request."""
        return "" if self.held + MAX_RECORD_BYTES <= self.most else "the queue towards Kafka is full"

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises
        ------
        UnavailableError
            If there is no room.
        """
        if self.held + size > self.most:
            raise UnavailableError("the queue towards Kafka is full")
        self.held += size

    def give(self, size: int) -> None:
        """Hold so many bytes less."""
        self.held -= size

    @contextmanager
    def growing(self) -> Iterator[Callable[[int], None]]:
        """Hold what the function it gives is told, until the end; that function raises as `take`."""
        held = 0

        def more(size: int) -> None:
            nonlocal held
            self.take(size)
            held += size

        try:
            yield more
        finally:
            self.give(held)


class Flight:
    """The records of one request on their way; calls `landed` once, when the last one is answered.

    Parameters
    ----------
    landed
        Called then, also if nobody waits any more.

    Attributes
    ----------
    done
        Set then.
    error
        The first error of a record.
    """

    def __init__(self, landed: Callable[[], None]) -> None:
        self._landed = landed
        self._left = 1  # this one is for `close`
        self.error: BaseException | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def add(self, record: asyncio.Future[Any]) -> None:
        """One more record."""
        self._left += 1
        record.add_done_callback(self._answered)

    def close(self) -> None:
        """No more will be added."""
        self._one_less()

    def _answered(self, record: asyncio.Future[Any]) -> None:
        error = KafkaError("cancelled") if record.cancelled() else record.exception()
        self.error = self.error or error
        self._one_less()

    def _one_less(self) -> None:
        self._left -= 1
        if self._left:
            return
        self._landed()
        if not self.done.done():  # whoever waited may have given up
            self.done.set_result(None)

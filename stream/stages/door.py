"""The door for requests about one person: topic ``privacy`` -> topic ``events``, in order with the person's events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from models.hashing import partition_of
from stream.copying import Copying
from stream.decoding import DeadLetter, Record, decode_request
from stream.events import Export
from stream.keys import PRIVACY_TTL_S
from stream.stages.outgoing import dead_letter, request_for
from stream.stages.sends import Send

TTL_MS: Final = PRIVACY_TTL_S * 1000


class Door:
    """Passes requests on; keeps nothing.

    Parameters
    ----------
    topic
        Name of topic ``privacy``, which dead letters tell.
    partitions
        Number of partitions of topic ``events``.
    """

    def __init__(self, topic: str, partitions: int) -> None:
        self.topic = topic
        self.partitions = partitions

    def pass_on(self, partition: int, records: Sequence[Record], now_ms: int) -> list[Send]:
        """What is to be published for some records.

        A request to forget is passed on however old it is. One to export is not, once its answer would have expired:
        read again after a loss, it would lay somebody's data out for nobody.
        """
        sends = []
        for record in records:
            request = decode_request(record)
            if isinstance(request, DeadLetter):
                sends.append(dead_letter(self.topic, partition, request))
            elif not isinstance(request, Export) or now_ms - (request.asked_ms or 0) < TTL_MS:
                sends.append(request_for(request, partition_of(request.user.encode(), self.partitions)))
        return sends

    def open(self, partition: int, arrays: Mapping[str, NDArray[Any]] | None) -> None:
        """Nothing to take up."""

    def copy(self, partition: int) -> Copying:
        """Nothing to copy: a snapshot holds the offset alone."""
        return Copying({}, dict)

    def close(self, partition: int) -> None:
        """Nothing to forget."""

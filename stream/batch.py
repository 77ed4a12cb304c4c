"""What becomes of one fetch: events as columns, and dead letters; both keep where each came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from stream.adapters.cloudevents import Headers
from stream.events import Control


class Record(Protocol):
    """What is read of a Kafka record (`stream.fetches.ConsumerRecord` and aiokafka's fit)."""

    @property
    def offset(self) -> int: ...  # noqa: D102
    @property
    def timestamp(self) -> int: ...  # noqa: D102
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> Headers: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record, or one element of a batch, that could not be taken: why, where it was, when, and its bytes.

    `headers` are the record's where they are part of the event (CloudEvents in binary mode).
    """

    reason: str
    detail: str
    offset: int
    index: int
    key: bytes | None
    original: bytes
    recorded_ms: int = 0
    headers: Headers = ()


@dataclass(slots=True)
class Batch:
    """Events of one fetch as columns; touches (one per item of an event) refer to their event by position.

    `offset`, `index`: identity within the partition; `ts`: event time in us; `recorded`: the record's time in us;
    `kind`: code of the event name; `value`: money of a purchase, else 0; `consent`: three grants packed two bits each
    (0 = not said); `session`: session id or "" ; `raw`: the event's own bytes, in whatever shape, for
    re-keying (see `json_of`); `shapes`: name of the shape of each that had another; `cookies`: by position the
    cookie of an event that names it beside its customer; `anonymous`: positions of events that name a cookie alone.
    """

    offset: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    user: list[str] = field(default_factory=list)
    event_id: list[str] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    recorded: list[int] = field(default_factory=list)
    kind: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    channel: list[int] = field(default_factory=list)
    consent: list[int] = field(default_factory=list)
    session: list[str] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    touch_event: list[int] = field(default_factory=list)
    touch_item: list[str] = field(default_factory=list)
    touch_category: list[str] = field(default_factory=list)
    touch_price: list[float] = field(default_factory=list)

    dead: list[DeadLetter] = field(default_factory=list)
    controls: list[tuple[int, Control]] = field(default_factory=list)
    without_id: int = 0
    shapes: list[str] = field(default_factory=list)
    cookies: dict[int, str] = field(default_factory=dict)
    anonymous: list[int] = field(default_factory=list)

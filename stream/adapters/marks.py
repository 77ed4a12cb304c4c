"""The fields by which shapes are told apart.

Every shape's own struct has these fields, too, some of them with the type that the shape gives them: a value whose
shape is guessed is read as that shape at once, and the marks tell afterwards whether the guess was right. Exported
events have a name, which leaves few of them to tell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

if TYPE_CHECKING:
    Mark = Any  # what a shape makes of a mark is its own business
else:
    Mark = msgspec.Raw | msgspec.UnsetType


class Exported(msgspec.Struct, gc=False):
    """What tells an exported event, which has our ``event_name``, from ours."""

    event_name: Mark = UNSET
    event_date: Mark = UNSET
    event_params: Mark = UNSET
    collector_tstamp: Mark = UNSET


class Marks(Exported):
    """What of a JSON object tells its shape. `events` and `control` are those of our own batches and controls."""

    events: Mark = UNSET
    control: Mark = UNSET
    event: Any = None
    type: Any = None
    e: Any = None
    schema: Any = None
    specversion: Any = None
    client_id: Mark = UNSET
    app_instance_id: Mark = UNSET
    ecommerce: Mark = UNSET
    batch: Mark = UNSET
    messageId: Mark = UNSET
    userId: Mark = UNSET
    anonymousId: Mark = UNSET
    previousId: Mark = UNSET
    timestamp: Mark = UNSET
    source: Mark = UNSET
    tv: Mark = UNSET

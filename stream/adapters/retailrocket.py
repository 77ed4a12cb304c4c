"""Rows of the RetailRocket data set's ``events.csv``: ``timestamp,visitorid,event,itemid,transactionid``.

Source: https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset
"""

from __future__ import annotations

import re
from typing import Final

from stream.adapters.common import Refused, text
from stream.events import Event

HEADER: Final = b"timestamp,visitorid,event,itemid,transactionid"
NAMES: Final = {b"view": "view_item", b"addtocart": "add_to_cart", b"transaction": "purchase"}

_ROW: Final = re.compile(rb"(\d{13}),(\d{1,19}),(\w{1,40}),(\d{1,19}),(\d{0,19})\r?")


def recognises(value: bytes) -> bool:
    """Whether the text's first line is a row, or the header."""
    line = value.split(b"\n", 1)[0]
    return _ROW.fullmatch(line) is not None or line.rstrip(b"\r") == HEADER


def split(value: bytes) -> list[bytes]:
    """The rows of a text of several lines."""
    return [line for line in value.split(b"\n") if line.strip()]


def decode(value: bytes) -> tuple[bytes, ...]:
    """The columns of a row."""
    row = _ROW.fullmatch(value.rstrip(b"\n"))
    if row is None:
        header = value.strip() == HEADER
        raise Refused("unmapped", "the header of a file") if header else Refused("schema", "not a row of events.csv")
    return row.groups()


def adapt(row: tuple[bytes, ...]) -> Event:
    """The event of a row."""
    stamp, visitor, name, item, transaction = row
    if name not in NAMES:
        raise Refused("unmapped", f"event {name.decode()!r} is none of view, addtocart, transaction")
    return Event(
        event_name=NAMES[name],
        event_timestamp=int(stamp),
        user_pseudo_id=visitor.decode(),
        item_id=item.decode(),
        transaction_id=text(transaction.decode()),
    )

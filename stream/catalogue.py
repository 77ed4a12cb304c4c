"""Records of topic ``items``: the catalogue's word on an item; a record without value withdraws it."""

from __future__ import annotations

from typing import Final

import msgspec

from stream.events import Id


class CatalogueItem(msgspec.Struct, gc=False, omit_defaults=True):
    """One item of the catalogue. Unknown fields are accepted.

    Attributes
    ----------
    item_id
        The record's key.
    title, text, category, price, tags
        What the shop knows of it.
    stock
        Pieces left; 0 hides the item, None = not counted.
    """

    item_id: Id
    title: str | None = None
    text: str | None = None
    category: str | None = None
    price: float | None = None
    stock: float | None = None
    tags: list[str] | None = None


decode_item: Final = msgspec.json.Decoder(CatalogueItem).decode

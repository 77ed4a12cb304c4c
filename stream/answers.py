"""What workers answer to a request about one person: value of the ``privacy`` key, JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from stream.errors import BadInputError


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="forget"):
    """What was removed of a user.

    Attributes
    ----------
    request
        Whose answer it is.
    known
        Whether anything was kept of the user besides keys in Redis.
    already
        The request had been carried out before; nothing was done now.
    until_ms
        The user's events up to this time are not learned again, ms UTC.
    touches, pairs
        Touches, and pairs of items, that were subtracted from what was learned of items.
    cut
        The history was full: what came before it stays in decayed sums over all users.
    keys
        Keys in Redis that were deleted, if they were there.
    """

    request: str
    known: bool
    already: bool
    until_ms: int
    touches: int
    pairs: int
    cut: bool
    keys: int


class Touch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One touch of a history, in the names of the event schema; the time (us) is kept to the second."""

    item_id: str
    event_name: str
    event_timestamp: int


class Exported(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="export"):
    """What is kept of a user besides the keys in Redis.

    Attributes
    ----------
    request
        Whose answer it is.
    known
        False if nothing is kept.
    history
        Touches, oldest first.
    profile
        The learned numbers by name; ``affinity`` is weights by category.
    segment
        Number of the segment, -1 for none.
    consent
        ``granted`` or ``denied`` by the name of each grant that was said.
    placements
        Whose lists a user may have in Redis.
    """

    request: str
    known: bool
    history: list[Touch] = []
    profile: dict[str, float] = {}
    affinity: dict[str, float] = {}
    segment: int = -1
    consent: dict[str, str] = {}
    placements: list[str] = []


_decode: Final[Callable[[bytes], Forgotten | Exported]] = msgspec.json.Decoder(Forgotten | Exported).decode


def parse_answer(value: bytes) -> Forgotten | Exported:
    """Parse the value of a ``privacy`` key.

    Raises
    ------
    BadInputError
        When it is no answer that this version knows.

    Examples
    --------
    >>> parse_answer(b'{"answer":"export","request":"r1","known":false}').history
    []
    """
    try:
        return _decode(value)
    except msgspec.DecodeError as error:
        raise BadInputError(f"an answer to a privacy request is not of this version: {error}") from error

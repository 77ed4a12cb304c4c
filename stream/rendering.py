"""Lists and offers as the JSON of the Redis contract, written by kernels from pre-encoded id fragments.

``json.dumps`` of a 20-item list with reasons costs about 10 us, more than everything else an event needs; copying the
fragments costs about 1 us. `stream.framing` puts the commands around the values.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.arena import end_of, free, new_heads, put, room, start_of
from models.kernel import lean_kernel
from models.offer_ranking import Picked
from models.ranking import HIGHEST, MICRO, REASONS, Lists
from models.vocabulary import grown
from stream.text import COMMA, SLACK, Texts, comma, constant, copy, decimal, integer, phrase
from stream.text import put as put_byte

SCORE_BYTES = 24
NULL = constant(b"null")


class Fragments:
    r"""JSON strings of ids by index, e.g. ``"tent-1"`` with its quotes and escapes.

    Notes
    -----
    Memory: the id's bytes rounded up to eight + 10 per id; removed ones make room for later ones.

    Examples
    --------
    >>> fragments = Fragments()
    >>> fragments.put(np.array([0], dtype=np.int32), ['a"b'])
    >>> fragments.blob[start_of(fragments.spans[0]) : end_of(fragments.spans[0])].tobytes()
    b'"a\\"b"'
    """

    def __init__(self) -> None:
        self.longest = 2
        self.heads = new_heads()
        self.blob = np.zeros(1024, dtype=np.uint8)
        self.spans = np.zeros(256, dtype=np.int64)

    def put(self, indices: NDArray[np.int32], ids: list[str]) -> None:
        """Remember the fragments of new ids under their indices."""
        texts = [msgspec.json.encode(text) for text in ids]
        data = np.frombuffer(b"".join(texts), dtype=np.uint8)
        ends = np.cumsum([0, *map(len, texts)])
        self.blob = grown(self.blob, int(self.heads[0]) + room(len(ids), len(data)) + SLACK)
        self.spans = grown(self.spans, int(indices.max(initial=-1)) + 1)
        self.longest = max(self.longest, int(np.diff(ends).max(initial=0)))
        _put_many(indices, data, ends, self.heads, self.blob, self.spans)

    def remove(self, indices: NDArray[np.int32]) -> None:
        """Forget fragments."""
        _free_many(indices, self.heads, self.blob, self.spans)


@lean_kernel
def _put_many(
    indices: NDArray[np.int32],
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    heads: NDArray[np.int64],
    blob: NDArray[np.uint8],
    spans: NDArray[np.int64],
) -> None:
    for n in range(len(indices)):
        spans[indices[n]] = put(heads, blob, data, ends[n], ends[n + 1])


@lean_kernel
def _free_many(
    indices: NDArray[np.int32], heads: NDArray[np.int64], blob: NDArray[np.uint8], spans: NDArray[np.int64]
) -> None:
    for index in indices:
        free(heads, blob, spans[index])
        spans[index] = 0


_LIST_HEAD = constant(b'{"v":1,"ts":')
_LIST_MODEL = constant(b',"model":"')
_LIST_ITEMS = constant(b'","exp":null,"items":[')
_LIST_SCORES = constant(b'],"scores":[')
_LIST_WHY = constant(b'],"why":[')
_LIST_TAIL = constant(b"]}")
_LIST_BYTES = 128
_REASON = constant(b"[")
_REASON_TAIL = constant(b"]")

REASON_NAMES = Fragments()
REASON_NAMES.put(np.arange(len(REASONS), dtype=np.int32), list(REASONS))


def list_room(k: int, model: bytes, fragments: Fragments) -> int:
    """Most bytes that `write_list` can need."""
    return _LIST_BYTES + len(model) + k * (2 * fragments.longest + REASON_NAMES.longest + SCORE_BYTES + 8)


@lean_kernel
def write_list(
    lists: Lists,
    row: int,
    ts_ms: int,
    model: NDArray[np.uint8],
    reasons: Texts,
    ids: Texts,
    out: NDArray[np.uint8],
    at: int,
) -> int:
    """Write one list: ``{"v":1,"ts":ms,"model":"...","exp":null,"items":[...],"scores":[...],"why":[...]}``."""
    items, scores, whys = lists.item[row], lists.micro[row], lists.why[row]
    at = integer(ts_ms, out, phrase(_LIST_HEAD, out, at))
    at = phrase(model, out, phrase(_LIST_MODEL, out, at))
    at = phrase(_LIST_ITEMS, out, at)
    size = 0
    while size < len(items) and items[size] >= 0:
        at = comma(size, out, at)
        at = write_id(items[size], ids, out, at)
        size += 1
    at = phrase(_LIST_SCORES, out, at)
    for i in range(size):
        at = decimal(scores[i], out, comma(i, out, at))
    at = phrase(_LIST_WHY, out, at)
    for i in range(size):
        at = phrase(_REASON, out, comma(i, out, at))
        at = put_byte(COMMA, out, write_id(whys[i], ids, out, at))
        at = write_id(lists.reason[row, i], reasons, out, at)
        at = phrase(_REASON_TAIL, out, at)
    return phrase(_LIST_TAIL, out, at)


@lean_kernel
def write_id(index: int, ids: Texts, out: NDArray[np.uint8], at: int) -> int:
    """Write an id's fragment, ``null`` for none."""
    if index < 0:
        return phrase(NULL, out, at)
    span = ids.spans[index]
    return copy(ids.blob, start_of(span), end_of(span), out, at)


_OFFERS_HEAD = constant(b'{"v":1,"ts":')
_OFFERS_OPEN = constant(b',"offers":[')
_OFFER_ID = constant(b'{"id":')
_OFFER_SCORE = constant(b',"score":')
_OFFER_UNTIL = constant(b',"until":')
_OFFER_WHY = constant(b',"why":')
_OFFER_TAIL = constant(b"}")
_OFFERS_TAIL = constant(b"]}")
_OFFER_BYTES = 96


def offers_room(top: int, offers: Fragments, items: Fragments) -> int:
    """Most bytes that `write_offers` can need."""
    return _LIST_BYTES + top * (offers.longest + items.longest + _OFFER_BYTES)


@lean_kernel
def write_offers(
    picked: Picked,
    row: int,
    ts_ms: int,
    until_ms: NDArray[np.int64],
    offers: Texts,
    items: Texts,
    out: NDArray[np.uint8],
    at: int,
) -> int:
    """Write a user's offers: ``{"v":1,"ts":ms,"offers":[{"id":..,"score":..,"until":ms,"why":..}]}``."""
    at = integer(ts_ms, out, phrase(_OFFERS_HEAD, out, at))
    at = phrase(_OFFERS_OPEN, out, at)
    for i in range(picked.offer.shape[1]):
        offer = picked.offer[row, i]
        if offer < 0:
            break
        at = phrase(_OFFER_ID, out, comma(i, out, at))
        at = write_id(offer, offers, out, at)
        micro = int(np.floor(min(picked.score[row, i] * MICRO, HIGHEST) + 0.5))
        at = decimal(micro, out, phrase(_OFFER_SCORE, out, at))
        at = integer(until_ms[offer], out, phrase(_OFFER_UNTIL, out, at))
        at = write_id(picked.why[row, i], items, out, phrase(_OFFER_WHY, out, at))
        at = phrase(_OFFER_TAIL, out, at)
    return phrase(_OFFERS_TAIL, out, at)

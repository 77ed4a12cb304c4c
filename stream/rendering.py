"""Ranked lists as the JSON of the Redis contract, written by a kernel from pre-encoded id fragments.

``json.dumps`` of a 20-item list with reasons costs about 10 us, more than everything else an event needs; copying the
fragments costs well under 1 us.
"""

from __future__ import annotations

import itertools

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.kernel import kernel
from models.ranking import Lists
from models.vocabulary import grown

SCORE_BYTES = 24
LIST_BYTES = 128


class Fragments:
    r"""JSON strings of ids by index, e.g. ``"tent-1"`` with its quotes and escapes.

    Notes
    -----
    Memory: the id's bytes + 10 per id.

    Examples
    --------
    >>> fragments = Fragments()
    >>> fragments.extend(['a"b'])
    >>> fragments.blob[: fragments.ends[1]].tobytes()
    b'"a\\"b"'
    """

    def __init__(self) -> None:
        self.size = 0
        self.longest = 2
        self.blob = np.zeros(1024, dtype=np.uint8)
        self.ends = np.zeros(257, dtype=np.int64)

    def extend(self, ids: list[str]) -> None:
        """Append the fragments of new ids, in index order."""
        texts = [msgspec.json.encode(text) for text in ids]
        used = int(self.ends[self.size])
        data = b"".join(texts)
        self.blob = grown(self.blob, used + len(data))
        self.ends = grown(self.ends, self.size + len(ids) + 1)
        self.blob[used : used + len(data)] = np.frombuffer(data, dtype=np.uint8)
        lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
        self.ends[self.size + 1 : self.size + 1 + len(ids)] = used + np.cumsum(lengths)
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        self.size += len(ids)


def render(lists: Lists, ts_ms: NDArray[np.int64], model: str, fragments: Fragments) -> list[bytes]:
    """One contract value per list.

    Parameters
    ----------
    lists
        Ranked items with scores in 1e-6 and reasons.
    ts_ms
        Per list the time of the newest event included, ms since 1970.
    model
        Name of the model, without characters that JSON escapes.
    fragments
        JSON strings of the item ids.

    Returns
    -------
    list[bytes]
        UTF-8 JSON, in order.

    Notes
    -----
    About 1 us per list of 20.
    """
    k = lists.item.shape[1]
    room = len(lists.item) * (LIST_BYTES + len(model) + k * (2 * fragments.longest + len(model) + SCORE_BYTES + 8))
    buffer = np.empty(room, dtype=np.uint8)
    ends = np.zeros(len(lists.item) + 1, dtype=np.int64)
    name = np.frombuffer(model.encode(), dtype=np.uint8)
    tail = np.frombuffer(b',"%s"]' % model.encode(), dtype=np.uint8)
    _render(lists, ts_ms, name, tail, fragments.blob, fragments.ends, buffer, ends)
    data = buffer[: ends[-1]].tobytes()
    bounds = ends.tolist()
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


_HEAD = np.frombuffer(b'{"v":1,"ts":', dtype=np.uint8)
_MODEL = np.frombuffer(b',"model":"', dtype=np.uint8)
_ITEMS = np.frombuffer(b'","exp":null,"items":[', dtype=np.uint8)
_SCORES = np.frombuffer(b'],"scores":[', dtype=np.uint8)
_WHY = np.frombuffer(b'],"why":[', dtype=np.uint8)
_TAIL = np.frombuffer(b"]}", dtype=np.uint8)
_NULL = np.frombuffer(b"null", dtype=np.uint8)
COMMA, OPEN, DOT, ZERO = 44, 91, 46, 48


@kernel
def _render(
    lists: Lists,
    ts_ms: NDArray[np.int64],
    model: NDArray[np.uint8],
    tail: NDArray[np.uint8],
    blob: NDArray[np.uint8],
    ends: NDArray[np.int64],
    out: NDArray[np.uint8],
    bounds: NDArray[np.int64],
) -> None:
    at = 0
    k = lists.item.shape[1]
    for u in range(len(lists.item)):
        at = _copy(_HEAD, 0, len(_HEAD), out, at)
        at = _integer(ts_ms[u], out, at)
        at = _copy(_MODEL, 0, len(_MODEL), out, at)
        at = _copy(model, 0, len(model), out, at)
        at = _copy(_ITEMS, 0, len(_ITEMS), out, at)
        size = 0
        while size < k and lists.item[u, size] >= 0:
            at = _comma(size, out, at)
            item = lists.item[u, size]
            at = _copy(blob, ends[item], ends[item + 1], out, at)
            size += 1
        at = _copy(_SCORES, 0, len(_SCORES), out, at)
        for i in range(size):
            at = _comma(i, out, at)
            at = _decimal(lists.micro[u, i], out, at)
        at = _copy(_WHY, 0, len(_WHY), out, at)
        for i in range(size):
            at = _comma(i, out, at)
            at = _reason(lists.why[u, i], tail, blob, ends, out, at)
        at = _copy(_TAIL, 0, len(_TAIL), out, at)
        bounds[u + 1] = at


@kernel
def _reason(
    why: int,
    tail: NDArray[np.uint8],
    blob: NDArray[np.uint8],
    ends: NDArray[np.int64],
    out: NDArray[np.uint8],
    at: int,
) -> int:
    out[at] = OPEN
    at += 1
    at = _copy(_NULL, 0, 4, out, at) if why < 0 else _copy(blob, ends[why], ends[why + 1], out, at)
    return _copy(tail, 0, len(tail), out, at)


@kernel
def _copy(source: NDArray[np.uint8], start: int, end: int, out: NDArray[np.uint8], at: int) -> int:
    for i in range(start, end):
        out[at] = source[i]
        at += 1
    return at


@kernel
def _comma(position: int, out: NDArray[np.uint8], at: int) -> int:
    if position == 0:
        return at
    out[at] = COMMA
    return at + 1


@kernel
def _integer(value: int, out: NDArray[np.uint8], at: int) -> int:
    digits = 1
    rest = value // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for i in range(digits - 1, -1, -1):
        out[at + i] = ZERO + value % 10
        value //= 10
    return at + digits


@kernel
def _decimal(micro: int, out: NDArray[np.uint8], at: int) -> int:
    """Write ``micro / 1e6`` with at most six decimals and no trailing zeros."""
    at = _integer(micro // 1_000_000, out, at)
    rest = micro % 1_000_000
    if rest == 0:
        return at
    out[at] = DOT
    at += 1
    unit = 100_000
    while rest > 0:
        out[at] = ZERO + rest // unit
        at += 1
        rest %= unit
        unit //= 10
    return at

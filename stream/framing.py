"""``SET key value EX seconds`` and hashes of profiles for many users or items at once: all bytes in one kernel.

Pure: knows the keys' form (`stream.keys`), the values' (`stream.rendering`) and the protocol's (RESP).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.arena import LENGTH_MASK, end_of, length_of, start_of
from models.kernel import lean_kernel
from models.offer_ranking import Picked
from models.ranking import Lists
from models.vocabulary import Vocabulary
from stream.keys import KeyForm
from stream.rendering import REASON_NAMES, Fragments, list_room, offers_room, write_list, write_offers
from stream.text import SLACK, Texts, constant, digits, exactly, hundredths, integer, phrase, put

_SET = constant(b"*5\r\n$3\r\nSET\r\n$")
_SIZE = constant(b"\r\n$")
_LINE = constant(b"\r\n")
_EXPIRY = constant(b"\r\n$2\r\nEX\r\n$")
_HSET = constant(b"*12\r\n$4\r\nHSET\r\n$")
_SEGMENT = constant(b"\r\n$7\r\nsegment\r\n$")
_LAST_TS = constant(b"\r\n$7\r\nlast_ts\r\n$")
_EVENTS = constant(b"\r\n$6\r\nevents\r\n$")
_VALUE = constant(b"\r\n$5\r\nvalue\r\n$")
_CONSENT = constant(b"\r\n$7\r\nconsent\r\n$")
_EXPIRE = constant(b"*3\r\n$6\r\nEXPIRE\r\n$")
_PROFILE_BYTES = 320  # most bytes of a profile's two commands around its keys
_HEAD_BYTES = 64  # most bytes of a command around key and value
_HEX = np.frombuffer(b"0123456789ABCDEF", dtype=np.uint8)
MINUS, PERCENT, COLON, OPEN, CLOSE = 45, 37, 58, 123, 125


class Names(NamedTuple):
    """Whose keys: what stands before and after the id, the vocabulary's ids, and the index of each row's."""

    before: NDArray[np.uint8]
    after: NDArray[np.uint8]
    blob: NDArray[np.uint8]
    spans: NDArray[np.int64]
    index: NDArray[np.int32]  # type: ignore[assignment]  # the field's name outweighs tuple.index

    @classmethod
    def of(cls, form: KeyForm, ids: Vocabulary, index: NDArray[np.int32]) -> Names:
        """Keys of one form for some ids."""
        return cls(constant(form.before), constant(form.after), ids.blob, ids.spans, index)

    def room(self) -> int:
        """Bytes that all keys together can need, each with the rest of its command."""
        lengths = self.spans[self.index] & LENGTH_MASK
        return int(3 * lengths.sum()) + len(self.index) * (len(self.before) + len(self.after) + _HEAD_BYTES)


class ProfileColumns(NamedTuple):
    """What is told of each user: segment (-1 = none), newest event (ms), events, decayed sum spent, bits of consent."""

    segment: NDArray[np.int16]
    last_ms: NDArray[np.int64]
    events: NDArray[np.uint32]
    spend: NDArray[np.float32]
    consent: NDArray[np.uint8]


class Frames(NamedTuple):
    """A buffer with one command per row, and where each begins and ends; there are gaps between them."""

    out: NDArray[np.uint8]
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    @classmethod
    def room(cls, rows: int, size: int) -> Frames:
        """Room for `rows` commands of `size` bytes together; untouched pages cost nothing."""
        return cls(np.empty(size + SLACK, dtype=np.uint8), np.zeros(rows, np.int64), np.zeros(rows, np.int64))

    def commands(self) -> list[bytes]:
        """One bytes object per command."""
        data = self.out[: self.end[-1] if len(self.end) else 0].tobytes()
        return [data[a:b] for a, b in zip(self.start.tolist(), self.end.tolist(), strict=True)]


def set_lists(
    names: Names, lists: Lists, ts_ms: NDArray[np.int64], ttl_s: int, model: bytes, fragments: Fragments
) -> list[bytes]:
    """Commands that write one list each.

    Parameters
    ----------
    names
        The key of each row.
    lists
        Ranked items with scores in 1e-6 and reasons.
    ts_ms
        Per list the time of the newest event included, ms since 1970.
    ttl_s
        Lifetime of each, seconds.
    model
        Name of the model, without characters that JSON escapes.
    fragments
        JSON strings of the item ids.

    Returns
    -------
    list[bytes]
        RESP, in order.

    Notes
    -----
    About 1 us per list of 20.
    """
    rows, k = lists.item.shape
    frames = Frames.room(rows, names.room() + rows * list_room(k, model, fragments))
    reasons = Texts.of(REASON_NAMES)
    _set_lists(names, lists, ts_ms, ttl_s, constant(model), reasons, Texts.of(fragments), frames)
    return frames.commands()


def set_offers(
    names: Names,
    picked: Picked,
    ts_ms: NDArray[np.int64],
    ttl_s: NDArray[np.int64],
    until_ms: NDArray[np.int64],
    offers: Fragments,
    items: Fragments,
) -> list[bytes]:
    """Commands that write one user's offers each; `until_ms` by row of the offer table.

    Notes
    -----
    About 0.3 us per user.
    """
    rows, top = picked.offer.shape
    frames = Frames.room(rows, names.room() + rows * offers_room(top, offers, items))
    _set_offers(names, picked, ts_ms, ttl_s, until_ms, Texts.of(offers), Texts.of(items), frames)
    return frames.commands()


def set_profiles(names: Names, columns: ProfileColumns, ttl_s: int) -> list[bytes]:
    """Two commands per user: ``HSET`` of the profile's fields, and ``EXPIRE`` of its key.

    Notes
    -----
    About 0.5 us per user.
    """
    rows = len(names.index)
    frames = Frames.room(2 * rows, 2 * names.room() + rows * _PROFILE_BYTES)
    _set_profiles(names, columns, ttl_s, frames)
    return frames.commands()


@lean_kernel
def _set_lists(
    names: Names,
    lists: Lists,
    ts_ms: NDArray[np.int64],
    ttl_s: int,
    model: NDArray[np.uint8],
    reasons: Texts,
    ids: Texts,
    frames: Frames,
) -> None:
    at = 0
    for row in range(len(ts_ms)):
        value = at + _head_room(names, row)
        end = write_list(lists, row, ts_ms[row], model, reasons, ids, frames.out, value)
        frames.start[row] = _open(names, row, value, end, frames.out)
        at = _close(ttl_s, frames.out, end)
        frames.end[row] = at


@lean_kernel
def _set_offers(
    names: Names,
    picked: Picked,
    ts_ms: NDArray[np.int64],
    ttl_s: NDArray[np.int64],
    until_ms: NDArray[np.int64],
    offers: Texts,
    items: Texts,
    frames: Frames,
) -> None:
    at = 0
    for row in range(len(ts_ms)):
        value = at + _head_room(names, row)
        end = write_offers(picked, row, ts_ms[row], until_ms, offers, items, frames.out, value)
        frames.start[row] = _open(names, row, value, end, frames.out)
        at = _close(ttl_s[row], frames.out, end)
        frames.end[row] = at


@lean_kernel
def _set_profiles(names: Names, columns: ProfileColumns, ttl_s: int, frames: Frames) -> None:
    out, at = frames.out, 0
    for row in range(len(names.index)):
        frames.start[2 * row] = at
        at = _key(names, row, out, phrase(_HSET, out, at))
        at = _field(columns.segment[row], out, phrase(_SEGMENT, out, at))
        at = _field(columns.last_ms[row], out, phrase(_LAST_TS, out, at))
        at = _field(columns.events[row], out, phrase(_EVENTS, out, at))
        spend = round(float(columns.spend[row]) * 100)  # exact: 24 bits times 7
        at = integer(digits(spend // 100) + 3, out, phrase(_VALUE, out, at))
        at = hundredths(spend, out, phrase(_LINE, out, at))
        at = _field(columns.consent[row], out, phrase(_CONSENT, out, at))
        at = phrase(_LINE, out, at)
        frames.end[2 * row] = frames.start[2 * row + 1] = at
        at = _key(names, row, out, phrase(_EXPIRE, out, at))
        at = _field(ttl_s, out, phrase(_SIZE, out, at))
        at = phrase(_LINE, out, at)
        frames.end[2 * row + 1] = at


@lean_kernel
def _field(value: int, out: NDArray[np.uint8], at: int) -> int:
    """Write the size of a number, and the number."""
    if value < 0:
        at = phrase(_LINE, out, integer(1 + digits(-value), out, at))
        return integer(-value, out, put(MINUS, out, at))
    return integer(value, out, phrase(_LINE, out, integer(digits(value), out, at)))


@lean_kernel
def _key(names: Names, row: int, out: NDArray[np.uint8], at: int) -> int:
    """Write the size of a key, and the key."""
    span = names.spans[names.index[row]]
    first, last = start_of(span), end_of(span)
    size = len(names.before) + len(names.after) - 2 * SLACK + _quoted_size(names.blob, first, last)
    at = phrase(names.before, out, phrase(_LINE, out, integer(size, out, at)))
    return phrase(names.after, out, _quote(names.blob, first, last, out, at))


@lean_kernel
def _head_room(names: Names, row: int) -> int:
    """Most bytes before the value: all of the head, with every byte of the id escaped."""
    return _HEAD_BYTES + len(names.before) + len(names.after) + 3 * length_of(names.spans[names.index[row]])


@lean_kernel
def _open(names: Names, row: int, value: int, end: int, out: NDArray[np.uint8]) -> int:
    """Write verb, key and the value's size so that they end where the value begins; returns where they begin."""
    span = names.spans[names.index[row]]
    first, last = start_of(span), end_of(span)
    size = len(names.before) + len(names.after) - 2 * SLACK + _quoted_size(names.blob, first, last)
    start = value - (len(_SET) + len(_SIZE) + 2 * len(_LINE) - 4 * SLACK + size + digits(size) + digits(end - value))
    at = integer(size, out, exactly(_SET, out, start))
    at = exactly(names.before, out, exactly(_LINE, out, at))
    at = _quote(names.blob, first, last, out, at)
    at = exactly(_SIZE, out, exactly(names.after, out, at))
    exactly(_LINE, out, integer(end - value, out, at))
    return start


@lean_kernel
def _close(ttl_s: int, out: NDArray[np.uint8], at: int) -> int:
    """Write the lifetime."""
    at = integer(digits(ttl_s), out, phrase(_EXPIRY, out, at))
    at = integer(ttl_s, out, phrase(_LINE, out, at))
    return phrase(_LINE, out, at)


@lean_kernel
def _escaped(byte: int) -> bool:
    return byte in (PERCENT, COLON, OPEN, CLOSE)


@lean_kernel
def _quoted_size(blob: NDArray[np.uint8], first: int, last: int) -> int:
    size: int = last - first
    for i in range(first, last):
        if _escaped(blob[i]):
            size += 2
    return size


@lean_kernel
def _quote(blob: NDArray[np.uint8], first: int, last: int, out: NDArray[np.uint8], at: int) -> int:
    """Write an id as `stream.keys.quote` does."""
    for i in range(first, last):
        byte = blob[i]
        if _escaped(byte):
            at = put(_HEX[byte & 15], out, put(_HEX[byte >> 4], out, put(PERCENT, out, at)))
        else:
            at = put(byte, out, at)
    return at

"""The file format of ``rivulet record``: JSON Lines in zstd frames, each behind a mark that says how far it goes.

A mark is a zstd *skippable frame*, which every zstd tool passes over (``zstd -dc FILE`` gives plain JSON Lines). It
holds the length of the frame behind it and the next offset of each partition after it. So a file tells by itself how
far it is: whoever goes on jumps from mark to mark, cuts off a pair that is not whole, and knows the next offsets.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec
import zstandard

from stream.errors import BadInputError

SKIPPABLE: Final = struct.pack("<I", 0x184D2A50)
BEGIN: Final = b'{"recording":'
HEAD: Final = 8  # magic number and length of a skippable frame
HEAD_BYTES: Final = HEAD + len(BEGIN)
MAX_MARK: Final = 1_048_576
MAX_FRAME: Final = 1 << 30
LEVEL: Final = 3


class Mark(msgspec.Struct, kw_only=True):
    """Where a recording stands after the frame behind this mark.

    Attributes
    ----------
    recording
        Version of the format.
    topic, cluster
        What is recorded; offsets mean nothing elsewhere.
    length
        Bytes of the frame behind; 0 = none.
    lines
        Records in it.
    next
        First offset of each partition that is not recorded.
    records
        Records of the whole recording so far.
    lost
        Those that the broker had deleted before they were recorded.
    until
        End that was asked for, as it was written.
    until_ms, until_offsets
        The same resolved; None = not known yet, or none.
    """

    recording: int = 1
    topic: str
    cluster: str = ""
    length: int = 0
    lines: int = 0
    next: dict[int, int]
    records: int = 0
    lost: int = 0
    until: str = ""
    until_ms: int | None = None
    until_offsets: dict[int, int] | None = None


class Place(NamedTuple):
    """A mark in its file: where it starts, and where the frame behind it starts and ends."""

    mark: Mark
    start: int
    frame: int
    end: int


_decode_mark: Final = msgspec.json.Decoder(Mark).decode


def pack(mark: Mark, lines: bytes) -> bytes:
    """Mark and frame of some lines; fills in the mark's length."""
    frame = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(lines) if lines else b""
    mark.length = len(frame)
    text = msgspec.json.encode(mark)
    return SKIPPABLE + struct.pack("<I", len(text)) + text + frame


def is_recording(file: IO[bytes]) -> bool:
    """Whether a file starts with a mark; the position stays."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return head.startswith(SKIPPABLE) and head.endswith(BEGIN)


def may_become(head: bytes) -> bool:
    """Whether a file that begins so (up to `HEAD_BYTES`) could be a recording of which too little was written."""
    return head[:4] == SKIPPABLE[: len(head)] and head[HEAD:] == BEGIN[: max(len(head) - HEAD, 0)]


def read_frames(name: str, file: IO[bytes], on_bad: Callable[[BadInputError], None]) -> Iterator[bytes]:
    """Lines of a recording, frame by frame.

    Parameters
    ----------
    name
        The file's name, for errors.
    file
        At its start.
    on_bad
        Told of a damaged frame; if it returns, reading goes on behind the damage.
    """
    start = 0
    line = 1
    size = os.fstat(file.fileno()).st_size
    while start < size:
        place = _place(file, start)
        text = None if place is None else _unpacked(file, place)
        if place is not None and text is not None:
            yield text
            line += place.mark.lines
            start = place.end
            continue
        following = _find(file, start + 1)
        where = f"{name}, line {line}, frame at byte {start}"
        if place is not None:
            on_bad(BadInputError(f"{where}: is damaged: its {place.mark.lines:,} records cannot be read"))
        elif following is not None:
            on_bad(BadInputError(f"{where}: is damaged"))
        else:
            on_bad(BadInputError(f"{where}: is torn: its recorder still writes, or was killed and has to go on"))
        if following is None:
            return
        start = following


def recover(path: Path) -> tuple[Mark | None, int]:
    """The last mark of a file whose frame is whole, and the file's length up to there.

    Raises
    ------
    BadInputError
        If there is damage before the end: nothing may be cut off there.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        before: Place | None = None
        place = _place(file, 0)
        while place is not None and place.end < size:
            following = _place(file, place.end)
            if following is None and _find(file, place.end + 1) is not None:
                raise BadInputError(f"{path}: is damaged at byte {place.end}: record into another folder")
            if following is None:
                break
            before, place = place, following
        if place is not None and _unpacked(file, place) is None:
            place = before
        if place is None and _find(file, 1) is not None:
            raise BadInputError(f"{path}: is damaged at its start: record into another folder")
    return (None, 0) if place is None else (place.mark, place.end)


def _place(file: IO[bytes], start: int) -> Place | None:
    """The mark at a position, if it and the frame behind it lie within the file."""
    file.seek(start)
    head = file.read(HEAD)
    if len(head) < HEAD or head[:4] != SKIPPABLE:
        return None
    (length,) = struct.unpack("<I", head[4:])
    text = file.read(length) if length <= MAX_MARK else b""
    if not text.startswith(BEGIN):
        return None
    try:
        mark = _decode_mark(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    frame = start + HEAD + length
    if frame + mark.length > os.fstat(file.fileno()).st_size:
        return None
    return Place(mark, start, frame, frame + mark.length)


def _unpacked(file: IO[bytes], place: Place) -> bytes | None:
    """Lines of a frame; None if it is not whole."""
    if place.mark.length == 0:
        return b""
    file.seek(place.frame)
    try:
        return zstandard.ZstdDecompressor().decompress(file.read(place.mark.length), MAX_FRAME)
    except zstandard.ZstdError:
        return None


def _find(file: IO[bytes], start: int) -> int | None:
    """Position of the next mark that can be read."""
    file.seek(start)
    window: Any = b""
    at = start
    while chunk := file.read(1 << 20):
        window += chunk
        found = window.find(SKIPPABLE)
        while found >= 0:
            if window[found + HEAD : found + HEAD_BYTES] == BEGIN and _place(file, at + found) is not None:
                return int(at + found)
            found = window.find(SKIPPABLE, found + 1)
        keep = HEAD_BYTES
        at += max(len(window) - keep, 0)
        window = window[-keep:]
        file.seek(at + len(window))
    return None

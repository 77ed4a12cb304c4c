"""Request bodies as they were before compression, never longer than wanted: a zip bomb is refused, not unpacked."""

from __future__ import annotations

import zlib
from typing import Final

from stream.web.refusing import TurnedAway

_WINDOWS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def inflate(body: bytes, encoding: str, most: int) -> bytes:
    """Unpack a body.

    Parameters
    ----------
    body
        As it was sent.
    encoding
        Its ``Content-Encoding``: gzip, deflate, identity or empty.
    most
        Most bytes to unpack; memory is bounded by it, too.

    Raises
    ------
    TurnedAway
        415 for another encoding, 400 for damaged data, 413 for more than `most` bytes.

    Examples
    --------
    >>> import gzip
    >>> inflate(gzip.compress(b"{}") + gzip.compress(b" "), "gzip", 10)
    b'{} '
    """
    coding = encoding.strip().lower()
    if coding in ("", "identity"):
        return body
    if coding not in _WINDOWS:
        raise TurnedAway(415, "Content-Encoding is none of gzip, deflate, identity")
    whole = bytearray()
    while body:  # gzip allows several members, one after another
        unpacker = zlib.decompressobj(_WINDOWS[coding])
        try:
            whole += unpacker.decompress(body, most + 1 - len(whole))
        except zlib.error as error:
            raise TurnedAway(400, f"the body is not {coding}: {error}") from None
        if len(whole) > most:
            raise TurnedAway(413, f"the body is longer than {most} bytes once unpacked")
        if not unpacker.eof:
            raise TurnedAway(400, f"the body is not {coding}: it ends too early")
        body = unpacker.unused_data
    return bytes(whole)

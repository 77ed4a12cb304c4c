"""Who may write: write keys per source, and the origins whose pages may."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
from typing import Final, NamedTuple

from stream.errors import ConfigurationError
from stream.settings import Settings
from stream.web.refusing import TurnedAway

_ANY: Final = "surrogatepass"  # what is no UTF-8 is no key, and no error either
EXPOSED: Final = {"Access-Control-Expose-Headers": "Retry-After"}
ANYBODY: Final = "anybody"
SHORTEST_KEY: Final = 16

_PAIR: Final = re.compile(rf"([\w.-]{{1,64}}):([!-+\--~]{{{SHORTEST_KEY},256}})")


class Access(NamedTuple):
    """What the settings say about it.

    Attributes
    ----------
    sources
        Name of each source by the SHA-256 of its key; keys themselves are not kept.
    closed
        Why nobody may write; empty if somebody may.
    origins
        Origins whose pages may write; ``*`` = all.
    """

    sources: dict[bytes, str]
    closed: str
    origins: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, host: str) -> Access:
        """Access through a port on this host: without keys, only a loopback is open.

        Raises
        ------
        ConfigurationError
            If the keys cannot be read; shows none of them.
        """
        said = settings.gateway_keys.get_secret_value().strip()
        sources = {} if said in ("", "*") else _sources(said)
        closed = ""
        if not said and not _is_loopback(host):
            closed = f"{host} is no loopback: set RIVULET_GATEWAY_KEYS to write keys, or to * to let anybody write"
        origins = (origin.strip().rstrip("/").lower() for origin in settings.gateway_origins.split(","))
        return cls(sources, closed, frozenset(filter(None, origins)))

    def source(self, authorization: str, parameter: str) -> str:
        """Name of the source whose key a request shows: in its header, Bearer or Basic, or as a query parameter.

        Every known key is compared, each in constant time.

        Raises
        ------
        TurnedAway
            401 if the key is missing or wrong, 403 if nobody may write.
        """
        if self.closed:
            raise TurnedAway(403, self.closed)
        if not self.sources:
            return ANYBODY
        shown = hashlib.sha256(_key_of(authorization, parameter)).digest()
        found = ""
        for known, source in self.sources.items():
            if hmac.compare_digest(known, shown):
                found = source
        if not found:
            raise TurnedAway(401, "the write key is missing or not known")
        return found

    def origin(self, origin: str) -> dict[str, str]:
        """CORS headers of the answer to a page of this origin; none for a request that is no page's.

        A page may send without being allowed to read the answer, so its origin decides whether it is taken at all.

        Raises
        ------
        TurnedAway
            403 if its pages may not write.
        """
        if not origin:
            return {}
        allowed = next((known for known in ("*", origin.lower()) if known in self.origins), "")
        if not allowed:
            raise TurnedAway(403, "this origin is not in RIVULET_GATEWAY_ORIGINS")
        return {"Access-Control-Allow-Origin": allowed, "Vary": "Origin"} | EXPOSED


def _sources(said: str) -> dict[bytes, str]:
    sources = {}
    for number, pair in enumerate(said.split(","), 1):
        found = _PAIR.fullmatch(pair.strip())
        if found is None:
            raise ConfigurationError(
                f"RIVULET_GATEWAY_KEYS: entry {number} is not source:key with at least {SHORTEST_KEY} characters of key"
            )
        sources[hashlib.sha256(found[2].encode()).digest()] = found[1]
    return sources


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key_of(authorization: str, parameter: str) -> bytes:
    """The key that is shown: of Basic the user name, as Segment's libraries send it."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode(errors=_ANY)
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest, validate=True).partition(b":")[0]
        except (binascii.Error, ValueError):
            return b""
    return parameter.encode(errors=_ANY)

"""The Redis contract as pure functions: keys as bytes, lifetimes, and the values as typed structs.

Writers and readers (async, sync, any process) share this module and nothing else, so a key can only be spelled one way.
The README's table is the same contract in prose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple, NoReturn, TypeVar

import msgspec

from stream.errors import BadInputError, ConfigurationError

CONTRACT_VERSION: Final = 1

# Lifetimes in seconds.
RECS_TTL_S: Final = 72 * 3600
OFFERS_TTL_S: Final = 24 * 3600  # at most; less when the last offer ends earlier
PROFILE_TTL_S: Final = 90 * 86_400
SIMILAR_TTL_S: Final = 7 * 86_400
TRENDING_TTL_S: Final = 7 * 86_400
NEIGHBOURS_TTL_S: Final = 7 * 86_400
PRIVACY_TTL_S: Final = 600
WITHDRAWN_TTL_S: Final = 7 * 86_400  # of an item's key once it is withdrawn: no list that names it lives longer
COVISIT: Final = b"covisit"  # name of the model behind lists

_ESCAPES: Final = str.maketrans({"%": "%25", ":": "%3A", "{": "%7B", "}": "%7D"})


def quote(text: str) -> bytes:
    """Encode one id for use inside a key: UTF-8, with ``{``, ``}``, ``:`` and ``%`` percent-encoded.

    Injective, so two ids never share a key; everything else stays readable in redis-cli. About 0.1 µs for ids without
    those four characters.

    Examples
    --------
    >>> quote("u-1"), quote("shop:{7}"), quote("100%")
    (b'u-1', b'shop%3A%7B7%7D', b'100%25')
    """
    if "%" in text or ":" in text or "{" in text or "}" in text:
        text = text.translate(_ESCAPES)
    return text.encode()


class KeyForm(NamedTuple):
    """A kind of key: what stands before and after the percent-encoded id."""

    before: bytes
    after: bytes


class Keys:
    """Builds every key of the contract under one prefix.

    A user's keys carry the user as hash tag (``rv:{u1}:recs``), so that they share a slot in a cluster and one ``MGET``
    serves a page. Building a key costs about 0.2 µs and keeps no state.

    Parameters
    ----------
    prefix
        Namespace in front of every key, so that several shops can share a server. Must not contain ``{`` or ``}``.

    Raises
    ------
    ConfigurationError
        For an empty prefix or one with a brace, which would take the hash tag's place.
    BadInputError
        From the methods, for an empty user id.

    Examples
    --------
    >>> keys = Keys("rv")
    >>> keys.recs("u1"), keys.recs("u1", "cart"), keys.trending(segment=3)
    (b'rv:{u1}:recs', b'rv:{u1}:recs:cart', b'rv:trending:segment:3')
    """

    __slots__ = ("_prefix", "_user", "meta", "offers_form", "prefix", "profile_form", "recs_form", "similar_form")

    def __init__(self, prefix: str = "rv") -> None:
        if not prefix or "{" in prefix or "}" in prefix:
            raise ConfigurationError(f"the Redis prefix must be non-empty and without braces, not {prefix!r}")
        self.prefix = prefix
        self._prefix = prefix.encode() + b":"
        self._user = self._prefix + b"{"
        self.meta: Final = self._prefix + b"meta"
        self.recs_form: Final = KeyForm(self._user, b"}:recs")
        self.offers_form: Final = KeyForm(self._user, b"}:offers")
        self.profile_form: Final = KeyForm(self._user, b"}:profile")
        self.similar_form: Final = KeyForm(self._prefix + b"similar:", b"")

    def _of(self, user: str) -> bytes:
        if not user:  # {} is no hash tag to Redis: the keys would scatter over a cluster
            raise BadInputError("a user id must not be empty")
        return self._user + quote(user) + b"}:"

    def recs(self, user: str, placement: str | None = None) -> bytes:
        """List of a user, or of a user at a placement with its own rules."""
        key = self._of(user) + b"recs"
        return key if placement is None else key + b":" + quote(placement)

    def placement_form(self, placement: str) -> KeyForm:
        """Form of the keys of one placement's lists."""
        return KeyForm(self._user, b"}:recs:" + quote(placement))

    def offers(self, user: str) -> bytes:
        """Offers of a user."""
        return self._of(user) + b"offers"

    def profile(self, user: str) -> bytes:
        """Hash with a user's segment, last_ts, events, value, consent."""
        return self._of(user) + b"profile"

    def privacy(self, user: str) -> bytes:
        """Answer to a user's latest request to forget or to export."""
        return self._of(user) + b"privacy"

    def user_keys(self, user: str, placements: Iterable[str] = ()) -> tuple[bytes, ...]:
        """Every key a user can have: the closed list that erasure deletes, without any SCAN.

        Examples
        --------
        >>> Keys().user_keys("u1", ["cart"])
        (b'rv:{u1}:recs', b'rv:{u1}:offers', b'rv:{u1}:profile', b'rv:{u1}:privacy', b'rv:{u1}:recs:cart')
        """
        base = self._of(user)
        return (
            base + b"recs",
            base + b"offers",
            base + b"profile",
            base + b"privacy",
            *(base + b"recs:" + quote(placement) for placement in placements),
        )

    def similar(self, item: str) -> bytes:
        """Neighbours of an item, for readers."""
        return self._prefix + b"similar:" + quote(item)

    def item(self, item: str) -> bytes:
        """What the catalogue says of an item, and whether it must not be shown."""
        return self._prefix + b"item:" + quote(item)

    def neighbours(self, item: str) -> bytes:
        """Packed neighbours of an item, for other workers (internal)."""
        return self._prefix + b"nb:" + quote(item)

    def trending(self, *, category: str | None = None, segment: int | str | None = None) -> bytes:
        """Popular items: of everybody, of a category, or of a segment (not both)."""
        if category is not None and segment is not None:
            raise BadInputError("trending is kept per category or per segment, not per both")
        if category is not None:
            return self._prefix + b"trending:category:" + quote(category)
        if segment is not None:
            return self._prefix + b"trending:segment:" + quote(str(segment))
        return self._prefix + b"trending:all"

    def segment(self, number: int | str) -> bytes:
        """Hash with a segment's size, label and centroid."""
        return self._prefix + b"segment:" + quote(str(number))


Reason = tuple[str | None, str]
Availability = Literal["in_stock", "out_of_stock", "preorder", "backorder", "limited", "discontinued"]


class ItemDetails(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What the catalogue says of an item: value of an ``item`` key.

    Attributes
    ----------
    v
        Version of the contract.
    ts
        Time of the catalogue's record, ms UTC.
    hidden
        Out of stock or withdrawn: readers drop it from every list.
    title, category, price, currency, availability, url, image
        As in topic ``items``; left out if the catalogue does not say.
    """

    v: int
    ts: int = 0
    hidden: bool = False
    title: str | None = None
    category: str | None = None
    price: float | None = None
    currency: str | None = None
    availability: str | None = None
    url: str | None = None
    image: str | None = None


class Recommendations(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A list of items, best first: value of ``recs``, ``similar`` and ``trending`` keys.

    Attributes
    ----------
    items, scores, why
        Parallel. A reason is the item it was derived from (or None) and the model's name.
    ts
        Time of the newest event included, ms UTC.
    exp
        Arm of a running experiment, if any.
    source
        Not in Redis: the key's last part that the first item came from (``recs``, ``trending:segment:3``), set by
        readers; empty for an empty list.
    details
        Not in Redis: what the catalogue says of each item, parallel to `items`, set by readers; None for an item that
        it does not know.
    fault
        Not in Redis: why a reader had to fall back on what it last knew; empty if all is as it should be.
    """

    items: list[str]
    scores: list[float]
    why: list[Reason] = []
    v: int = CONTRACT_VERSION
    ts: int = 0
    model: str = ""
    exp: str | None = None
    source: str = ""
    details: list[ItemDetails | None] = []
    fault: str = ""


class Offer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One offer for one user; ``until`` is its end in ms UTC, ``why`` the item or behaviour that earned it."""

    id: str
    score: float
    until: int
    why: str | None = None


class Offers(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A user's offers, best first: value of the ``offers`` key. ``ts`` as in :class:`Recommendations`."""

    offers: list[Offer]
    v: int = CONTRACT_VERSION
    ts: int = 0

    def live(self, now_ms: int) -> list[Offer]:
        """Offers not yet past their end at ``now_ms`` (ms UTC), best first."""
        return [offer for offer in self.offers if offer.until > now_ms]


_LIST = msgspec.json.Decoder(Recommendations)
_OFFERS = msgspec.json.Decoder(Offers)
_ITEM = msgspec.json.Decoder(ItemDetails)


def _reject(what: str, reason: object) -> NoReturn:
    raise BadInputError(f"{what} is not of contract version {CONTRACT_VERSION}: {reason}")


T = TypeVar("T", Recommendations, Offers, ItemDetails)


def _decoded(decoder: msgspec.json.Decoder[T], value: bytes, what: str) -> T:
    try:
        found = decoder.decode(value)
    except msgspec.DecodeError as error:
        _reject(what, error)
    if found.v != CONTRACT_VERSION:
        _reject(what, f"its version is {found.v}")
    return found


def parse_list(value: bytes) -> Recommendations:
    """Parse a ``recs``, ``similar`` or ``trending`` value; about 3 µs for 20 items.

    Raises
    ------
    BadInputError
        When it is no JSON of this contract version, or its parallel lists differ in length.

    Examples
    --------
    >>> parse_list(b'{"v":1,"ts":5,"model":"covisit","exp":null,"items":["i1"],"scores":[0.5],"why":[["i9","x"]]}').why
    [('i9', 'x')]
    """
    found = _decoded(_LIST, value, "a list")
    if len(found.scores) != len(found.items) or len(found.why) not in (0, len(found.items)):
        _reject("a list", "items, scores and why differ in length")
    return found


def parse_offers(value: bytes) -> Offers:
    """Parse an ``offers`` value; the caller drops what is past its end with :meth:`Offers.live`.

    Raises
    ------
    BadInputError
        When it is no JSON of this contract version.

    Examples
    --------
    >>> parse_offers(b'{"v":1,"ts":5,"offers":[{"id":"o1","score":2,"until":9,"why":"i9"}]}').live(now_ms=9)
    []
    """
    return _decoded(_OFFERS, value, "offers")


def parse_item(value: bytes) -> ItemDetails:
    """Parse an ``item`` value; about 1 µs.

    Raises
    ------
    BadInputError
        When it is no JSON of this contract version.

    Examples
    --------
    >>> parse_item(b'{"v":1,"ts":5,"hidden":true}').hidden
    True
    """
    return _decoded(_ITEM, value, "an item")


def parse_profile(fields: Mapping[bytes, bytes]) -> dict[str, str]:
    """Decode the hash of a ``profile`` or ``segment`` key to text."""
    return {name.decode(): value.decode() for name, value in fields.items()}

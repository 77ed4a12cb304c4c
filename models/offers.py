"""Offers: validated definitions, who may see which, and what each is worth to a user now.

The worth of an offer for a user at time t follows ``D(t, i) = sum_j p(j | i, t) d(t, j)``: what the user is likely to
turn to next (p, from recent behaviour and item similarity, summing to 1) times what the offer on it brings (d).
:func:`score_offers` is that formula as plain Python, slow and readable; the ranking kernel must agree with it and
reads the same offers from an :class:`models.offer_table.OfferTable`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from math import ceil, isfinite
from typing import Annotated, NamedTuple

import msgspec

from models.tables import read_tables

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Money = Annotated[float, msgspec.Meta(ge=0)]

MAX_SEGMENTS = 63
FOREVER = 2**62


class OfferError(ValueError):
    """An offer file that cannot be used; one line that names file, offer and field."""


class Offer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """One offer or campaign.

    Parameters
    ----------
    id, title
        Key, and what a frontend shows.
    items, categories
        What it is for; at least one of the two is not empty.
    value
        Margin times expected response, any currency, above 0; only ratios between offers matter.
    valid_from, valid_until
        From (inclusive) and until (exclusive), UTC; None = no limit.
    segments
        Segment numbers or words of a segment's label, one of which must hold; empty = everyone.
    min_category_affinity
        Smallest share (0 to 1) of these categories in the user's profile.
    min_cart_value, max_cart_value
        Bounds of the value in the cart, both inclusive.
    """

    id: Id
    title: str = ""
    items: tuple[Id, ...] = ()
    categories: tuple[Id, ...] = ()
    value: Annotated[float, msgspec.Meta(gt=0)]
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    segments: tuple[Annotated[int, msgspec.Meta(ge=0, lt=MAX_SEGMENTS)] | Id, ...] = ()
    min_category_affinity: dict[str, Share] = {}
    min_cart_value: Money = 0.0
    max_cart_value: Money | None = None

    @property
    def from_s(self) -> int:
        """First second of validity, Unix time."""
        return -FOREVER if self.valid_from is None else _seconds(self.valid_from)

    @property
    def until_s(self) -> int:
        """First second after the validity, Unix time."""
        return FOREVER if self.valid_until is None else _seconds(self.valid_until)


def _seconds(moment: datetime) -> int:
    """Unix time, rounded up: an offer never begins early."""
    return ceil(moment.timestamp())


def load_offers(text: str, source: str) -> list[Offer]:
    r"""Read offers from TOML: an array of tables ``[[offers]]``.

    Parameters
    ----------
    text
        The file's content.
    source
        Its name, for messages.

    Returns
    -------
    list of Offer
        In file order.

    Raises
    ------
    OfferError
        Not TOML, unknown keys, missing or wrong fields, an id used twice, nothing offered, bounds the wrong way round.

    Examples
    --------
    >>> load_offers("[[offers]]\nid = 'x'\nvalue = 0\nitems = ['tent']", "offers.toml")
    Traceback (most recent call last):
    models.offers.OfferError: offers.toml: offer 'x': value: Expected `float` > 0.0
    """
    try:
        entries = read_tables(text, source, "offers")
    except ValueError as error:
        raise OfferError(str(error)) from None
    offers: dict[str, Offer] = {}
    for number, entry in enumerate(entries, 1):
        offer = _checked(entry, f"{source}: offer {_name(entry, number)}")
        if offer.id in offers:
            raise OfferError(f"{source}: offer {offer.id!r}: id: used twice")
        offers[offer.id] = offer
    return list(offers.values())


def _name(entry: object, number: int) -> str:
    given = entry.get("id") if isinstance(entry, dict) else None
    return repr(given) if isinstance(given, str) and given else f"number {number}"


def _checked(entry: object, where: str) -> Offer:
    """Validate one entry and put its times into UTC."""
    try:
        offer = msgspec.convert(_with_times(entry), Offer)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(" - at `$.")
        raise OfferError(f"{where}: {path.rstrip('`')}: {problem}" if path else f"{where}: {problem}") from None
    if not offer.items and not offer.categories:
        raise OfferError(f"{where}: items: give items or categories")
    if offer.from_s >= offer.until_s:
        raise OfferError(f"{where}: valid_until: must be after valid_from")
    if offer.max_cart_value is not None and offer.max_cart_value < offer.min_cart_value:
        raise OfferError(f"{where}: max_cart_value: must not be below min_cart_value")
    for name in ("value", "min_cart_value", "max_cart_value"):
        if not isfinite(getattr(offer, name) or 0.0):
            raise OfferError(f"{where}: {name}: must be finite")
    return offer


def _with_times(entry: object) -> object:
    """Put validity into UTC: a time without a zone is UTC, a date is its midnight."""
    if not isinstance(entry, dict):
        return entry
    return {key: _moment(value) if str(key).startswith("valid_") else value for key, value in entry.items()}


def _moment(value: object) -> object:
    """Return a datetime in UTC, or the value itself where it is none (msgspec then says so)."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return value
    if type(value) is date:
        value = datetime.combine(value, time())
    if not isinstance(value, datetime):
        return value
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def encode_offer(offer: Offer) -> bytes:
    """JSON of one offer, the value of a record of topic ``offers`` (its key is the id)."""
    return msgspec.json.encode(offer)


def decode_offer(data: bytes) -> Offer:
    """Read what :func:`encode_offer` wrote.

    Raises
    ------
    OfferError
        If it is not a valid offer.
    """
    try:
        entry = msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:  # msgspec's errors and those of UTF-8 are the former
        raise OfferError(f"topic offers: not JSON: {error}") from None
    return _checked(entry, f"topic offers: offer {_name(entry, 1)}")


@dataclass(frozen=True, slots=True)
class Shopper:
    """What eligibility looks at.

    Parameters
    ----------
    segment, label
        Number of the user's segment (-1 = none yet) and its label, words separated by ``", "``.
    category_shares
        Category weight divided by the sum of all of the profile's category weights.
    cart_value
        Value of what lies in the cart, 0 if empty.
    """

    segment: int = -1
    label: str = ""
    category_shares: Mapping[str, float] = field(default_factory=dict)
    cart_value: float = 0.0


class ScoredOffer(NamedTuple):
    """An offer chosen for a user: `why_item` is the item that contributes most to its score."""

    offer_id: str
    score: float
    why_item: str


def is_eligible(offer: Offer, shopper: Shopper, now_s: int) -> bool:
    """Whether the offer is valid now and meant for this shopper."""
    words = shopper.label.split(", ")
    meant = not offer.segments or any(s == shopper.segment or s in words for s in offer.segments)
    likes = all(shopper.category_shares.get(c, 0.0) >= share for c, share in offer.min_category_affinity.items())
    most = offer.max_cart_value
    fits = offer.min_cart_value <= shopper.cart_value and (most is None or shopper.cart_value <= most)
    return offer.from_s <= now_s < offer.until_s and meant and likes and fits


def score_offers(
    neighbour_scores: Mapping[str, float],
    offers: Sequence[Offer],
    shopper: Shopper,
    now_s: int,
    *,
    category_of: Callable[[str], str | None] = lambda _: None,
    top: int = 3,
) -> list[ScoredOffer]:
    """Rank the offers for a user by D(t, i); the reference for the ranking kernel.

    Parameters
    ----------
    neighbour_scores
        Candidate items that may be shown, with scores of 0 or more, any scale: divided by their sum they are
        p(j | i, t).
    offers
        All known offers.
    shopper
        The user.
    now_s
        Event time, seconds UTC.
    category_of
        Category of an item, None if unknown.
    top
        Offers returned at most.

    Returns
    -------
    list of ScoredOffer
        Valid and eligible offers with a score above 0, best first, ties by id.

    Notes
    -----
    Doubling all neighbour scores changes nothing. O(items x offers); nothing is kept.

    Examples
    --------
    >>> tent = Offer(id="tents-10", items=("tent",), value=5.0)
    >>> score_offers({"tent": 3.0, "mat": 1.0}, [tent], Shopper(), now_s=0)
    [ScoredOffer(offer_id='tents-10', score=3.75, why_item='tent')]
    """
    total = sum(neighbour_scores.values())
    found = []
    for offer in offers:
        covered = {
            item: score / total * offer.value
            for item, score in neighbour_scores.items()
            if score > 0 and (item in offer.items or category_of(item) in offer.categories)
        }
        if covered and is_eligible(offer, shopper, now_s):
            why = min(covered, key=lambda item: (-covered[item], item))
            found.append(ScoredOffer(offer.id, sum(covered.values()), why))
    return sorted(found, key=lambda scored: (-scored.score, scored.offer_id))[:top]

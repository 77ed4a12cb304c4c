"""Reading what Rivulet wrote, as plans without I/O: the fall-back order of keys, merging, and what may be shown.

A *plan* is a generator: it yields the Redis commands it needs next, is sent their replies, and returns the answer. The
contract is thereby written once, for any way of talking to Redis: see `stream.client`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar, get_args

from msgspec.structs import replace

from stream.errors import BadInputError
from stream.explanations import Templates, explain, origins
from stream.keys import (
    Availability,
    ItemDetails,
    Keys,
    Offer,
    Reason,
    Recommendations,
    parse_item,
    parse_list,
    parse_offers,
    parse_profile,
)
from stream.shared_cache import Command, Replies, Shared

T = TypeVar("T")
Plan: TypeAlias = Generator[list[Command], Replies, T]
Found: TypeAlias = list[tuple[str, Recommendations]]
AVAILABILITIES: Final = frozenset(get_args(Availability))


@dataclass(frozen=True, slots=True)
class Wish:
    """What a page wants of a list.

    Attributes
    ----------
    placement
        The list's own place, tried first.
    k
        Items at most, > 0.
    exclude
        Items not to show: what is in the cart, what is on the page already.
    category
        Only items that the catalogue files under this category.
    min_price, max_price
        Only items that cost so much, both included, each in its own currency.
    availability
        Only items of which the catalogue says one of these, such as ``in_stock``.
    catalogue
        Ask for items' details: without, nothing is left out for being hidden, and one round trip is saved.
    """

    placement: str | None = None
    k: int = 20
    exclude: Collection[str] = ()
    category: str | None = None
    min_price: float | None = None
    max_price: float | None = None
    availability: Collection[Availability] = ()
    catalogue: bool = True

    def __post_init__(self) -> None:
        """Check."""
        if self.k < 1:
            raise BadInputError(f"k is at least 1, not {self.k}")
        for price in (self.min_price, self.max_price):
            if price is not None and not 0 <= price < math.inf:
                raise BadInputError(f"a price is a number from 0, not {price}")
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise BadInputError(f"nothing costs at least {self.min_price} and at most {self.max_price}")
        wrong = set(self.availability) - AVAILABILITIES
        if wrong:
            raise BadInputError(f"no availability: {sorted(wrong)}; there is {sorted(AVAILABILITIES)}")
        if self.choosy and not self.catalogue:
            raise BadInputError("only the catalogue tells category, price and availability: ask for it")

    @property
    def choosy(self) -> bool:
        """Whether the catalogue has to say something of an item before it may be shown."""
        told = (self.category, self.min_price, self.max_price, self.availability or None)
        return any(each is not None for each in told)

    def permits(self, known: ItemDetails | None) -> bool:
        """Whether an item may be shown, by what the catalogue says of it; what it does not say fits no wish."""
        if known is None:
            return not self.choosy
        if known.hidden or self.category not in (None, known.category):
            return False
        if self.availability and known.availability not in self.availability:
            return False
        if self.min_price is None and self.max_price is None:
            return True
        low, high = self.min_price or 0.0, math.inf if self.max_price is None else self.max_price
        return known.price is not None and low <= known.price <= high


def top_up(found: Iterable[tuple[str, Recommendations]], k: int, exclude: Collection[str] = ()) -> Recommendations:
    """Merge lists in order of preference into one of at most k items, none twice and none excluded.

    ``source``, ``ts``, ``model`` and ``exp`` are those of the first list that gave an item; every item keeps its own
    score and reason, so scores need not descend across lists.

    Examples
    --------
    >>> own = Recommendations(items=["a", "b"], scores=[2.0, 1.0], why=[("z", "covisit"), ("z", "covisit")])
    >>> all_ = Recommendations(items=["b", "c"], scores=[9.0, 8.0], model="trending")
    >>> merged = top_up([("recs", own), ("trending:all", all_)], k=3, exclude={"a"})
    >>> merged.items, merged.why, merged.source
    (['b', 'c'], [('z', 'covisit'), (None, 'trending')], 'recs')
    """
    if k < 1:
        raise BadInputError(f"k is at least 1, not {k}")
    rows: dict[str, tuple[float, Reason]] = {}
    first: tuple[str, Recommendations] | None = None
    for source, part in found:
        reasons = part.why or [(None, part.model)] * len(part.items)
        for item, score, reason in zip(part.items, part.scores, reasons, strict=True):
            if len(rows) < k and item not in rows and item not in exclude:
                rows[item] = score, reason
                first = first or (source, part)
    source, head = first or ("", Recommendations(items=[], scores=[]))
    return Recommendations(
        items=list(rows),
        scores=[score for score, _ in rows.values()],
        why=[reason for _, reason in rows.values()],
        ts=head.ts,
        model=head.model,
        exp=head.exp,
        source=source,
    )


@dataclass(slots=True)
class _Shelf:
    """What the catalogue says of the items that a plan has come across."""

    keys: Keys
    wish: Wish
    details: dict[str, ItemDetails | None] = field(default_factory=dict)

    def look(self, found: Found, *also: bytes) -> Plan[Sequence[bytes | None]]:
        """Learn about the items of some lists; other shared keys are read in the same round trip."""
        new: list[str] = []
        if self.wish.catalogue:
            names = dict.fromkeys(item for _, part in found for item in part.items)
            new = [item for item in names if item not in self.details and item not in self.wish.exclude]
        if not (new or also):
            return []
        values: list[bytes | None]
        (values,) = yield [Shared((*also, *map(self.keys.item, new)))]
        shown = (value and parse_item(value) for value in values[len(also) :])
        self.details.update((item, known or None) for item, known in zip(new, shown, strict=True))
        return values[: len(also)]

    def merged(self, found: Found) -> Recommendations:
        """One list of what may be shown."""
        barred = {item for item, known in self.details.items() if not self.wish.permits(known)}
        merged = top_up(found, self.wish.k, barred.union(self.wish.exclude))
        return replace(merged, details=[self.details.get(item) for item in merged.items])

    def taste(self, found: Found) -> dict[str, bytes]:
        """The list of the category of most items in some lists; of equal ones of that which comes first."""
        known = (self.details.get(item) for _, part in found for item in part.items)
        counts = Counter(each.category for each in known if each and each.category)
        most = sorted(counts, key=counts.__getitem__, reverse=True)[:1]
        return {f"trending:category:{name}": self.keys.trending(category=name) for name in most}


def plan_recommendations(keys: Keys, user: str, wish: Wish) -> Plan[Recommendations]:
    """Plan a user's list: ``recs:<placement>``, else ``recs``; then what is trending, until there are k items.

    That is first in the user's segment, then in the category of most items of the user's own list, then at all. With a
    category of the wish, ``trending:category:<c>`` takes the place of the first two. A placement's list is shown as it
    is, since nothing else keeps its rules: what is trending stands in only if nothing of it may be shown.
    """
    own = {"recs": keys.recs(user)}
    if wish.placement is not None:
        own = {f"recs:{wish.placement}": keys.recs(user, wish.placement)} | own
    profile, everybody = keys.profile(user), Shared((keys.trending(),))
    # the list of everybody is asked for each time: it is kept, so that there is something to show without Redis
    values, segment, common = yield [("MGET", *own.values()), ("HGET", profile, "segment"), everybody]
    found, last = _parsed(own, values)[:1], _parsed(["trending:all"], common)
    between = _between(keys, wish, segment)
    shelf = _Shelf(keys, wish)
    listed = {item for _, part in found for item in part.items}.difference(wish.exclude)
    whole = 1 if found and found[0][0] != "recs" else wish.k  # so many items make a list that is not added to
    likely = len(listed) >= whole
    more = yield from shelf.look(found if likely else found + last, *(() if likely else between.values()))
    merged = shelf.merged(found)
    if len(merged.items) >= whole:
        return merged
    taste = {} if wish.category is not None else shelf.taste(found)
    if likely:
        between |= taste
        more = yield from shelf.look([], *between.values())
        found += _parsed(between, more)
    else:
        found += _parsed(between, more)
        more = yield from shelf.look(found, *taste.values())
        if len(shelf.merged(found).items) < wish.k:
            found += _parsed(taste, more)
    found += last
    yield from shelf.look(found)
    return shelf.merged(found)


def _between(keys: Keys, wish: Wish, segment: bytes | None) -> dict[str, bytes]:
    """The list between a user's own and everybody's, if any."""
    if wish.category is not None:
        return {f"trending:category:{wish.category}": keys.trending(category=wish.category)}
    if not segment:
        return {}
    number = segment.decode()
    return {f"trending:segment:{number}": keys.trending(segment=number)}


def _parsed(sources: Iterable[str], values: Sequence[bytes | None]) -> Found:
    return [(source, parse_list(value)) for source, value in zip(sources, values, strict=True) if value is not None]


def plan_list(keys: Keys, source: str, key: bytes, wish: Wish) -> Plan[Recommendations]:
    """Plan one shared list under one key, without any fall-back; empty if there is none."""
    (values,) = yield [Shared((key,))]
    found = _parsed([source], values)
    shelf = _Shelf(keys, wish)
    yield from shelf.look(found)
    return shelf.merged(found)


def plan_offers(keys: Keys, user: str, now_ms: int) -> Plan[list[Offer]]:
    """Plan a user's offers that have not ended by ``now_ms`` (ms UTC), best first."""
    (value,) = yield [("GET", keys.offers(user))]
    return parse_offers(value).live(now_ms) if value is not None else []


def plan_profile(keys: Keys, user: str) -> Plan[dict[str, str]]:
    """Plan a user's profile; empty for an unknown user."""
    (fields,) = yield [("HGETALL", keys.profile(user))]
    return parse_profile(fields)


def plan_items(keys: Keys, items: Sequence[str]) -> Plan[dict[str, ItemDetails]]:
    """Plan what the catalogue says of some items, by id; those it does not know are left out."""
    if not items:
        return {}
    (values,) = yield [Shared(tuple(map(keys.item, items)))]
    return {item: parse_item(value) for item, value in zip(items, values, strict=True) if value is not None}


def plan_explanations(keys: Keys, reasons: Sequence[Reason], templates: Templates) -> Plan[list[str]]:
    """Plan one sentence per reason, in which items are called by their titles."""
    known = yield from plan_items(keys, origins(reasons))
    titles: Mapping[str, str] = {item: found.title for item, found in known.items() if found.title}
    return [explain(reason, titles, templates) for reason in reasons]

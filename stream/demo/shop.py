"""A synthetic outdoor, home and fashion shop: visitors with tastes, sessions that interleave, a funnel, planted rules.

The same arguments give the same events, byte for byte, in every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from stream.demo.shop_catalogue import BRANDS, CHANNELS, PERSONAS, RULES, TYPES, products
from stream.demo.shop_visits import BUY, SEARCH, SURVEY, Block, Visits

NAMES = (
    "view_item",
    "like",
    "add_to_wishlist",
    "add_to_cart",
    "purchase",
    "search",
    "email_open",
    "email_click",
    "survey_response",
)
PLATFORMS = ("web", "ios", "android")


class Shop:
    """A shop whose visitors, sessions and purchases are made up, but consistently.

    Each visitor belongs to one persona, which gives tastes, usual hour, channels and readiness to buy; own tastes vary
    and wander slowly. Within a session the next item follows a planted rule, stays in the category or follows taste.
    Wrong as a model of real demand: no seasons, no stock, no influence of what is recommended (except :meth:`react`).

    Parameters
    ----------
    seed
        Every draw depends on it and on nothing else.
    users
        Number of visitors, at least one per persona. More users, fewer events each.
    start_ts_us
        Time of the first event, microseconds UTC.
    concurrent
        Sessions under way at once, on average. With 20,000 and ``users >= 5 * concurrent``, at least 90 % of the events
        of a window of 2,000 belong to different users.
    rate
        Events per second of the shop's own time (not of generation). A visitor acts every ``concurrent / rate`` s.

    Raises
    ------
    ValueError
        If there are fewer users than personas, or a parameter is not positive.

    Notes
    -----
    About 4 µs per event, as dict or as JSON. Memory: about 120 bytes per user and the events of sessions under way.

    Examples
    --------
    >>> shop = Shop(seed=1)
    >>> first = next(shop.events(1))
    >>> first["event_name"], first["event_timestamp"] >= shop.start_ts_us
    ('view_item', True)
    >>> shop.personas["anna"], shop.rules[0]
    ('camper', ('cedar-tent', 'cedar-sleeping-bag'))
    """

    def __init__(
        self,
        seed: int = 1,
        users: int = 2_000,
        start_ts_us: int = 1_750_000_000_000_000,
        *,
        concurrent: int = 40,
        rate: float = 1 / 6,
    ) -> None:
        if users < len(PERSONAS) or concurrent < 1 or rate <= 0:
            raise ValueError(f"a shop needs users >= {len(PERSONAS)}, concurrent >= 1 and rate > 0")
        self.seed, self.users, self.start_ts_us = seed, users, start_ts_us
        self.concurrent, self.rate = concurrent, rate
        self.products = products()
        self.rules: list[tuple[str, str]] = list(RULES)
        self._visits = Visits(seed, users, start_ts_us, concurrent, rate)
        personas, first = self._visits.persona.tolist(), self._visits.first.tolist()
        self.user_ids = [
            PERSONAS[p].visitor if u == first[p] else f"{PERSONAS[p].name}-{u - first[p]:04d}"
            for u, p in enumerate(personas)
        ]
        self.personas = {user: PERSONAS[p].name for user, p in zip(self.user_ids, personas, strict=True)}
        self._index_of_item = {product.item_id: i for i, product in enumerate(self.products)}
        self._index_of_user = {user: i for i, user in enumerate(self.user_ids)}
        self._platforms = [PLATFORMS[device] for device in self._visits.platform.tolist()]
        self._id_fields = ["user_id" if known else "user_pseudo_id" for known in self._visits.known.tolist()]
        self._items: list[list[dict[str, Any]]] = [
            [
                {
                    "item_id": p.item_id,
                    "item_name": p.name,
                    "item_category": p.category,
                    "price": p.price,
                    "quantity": quantity,
                }
                for quantity in (1, 2)
            ]
            for p in self.products
        ]
        self._sources = [{"source": s, "medium": m, "name": n} for s, m, n in CHANNELS]

    def catalogue(self) -> list[dict[str, Any]]:
        """Return one record per product for topic ``items``.

        Returns
        -------
        list of dict
            ``item_id, title, text, category, price, stock, tags``; read-only, in shelf order.
        """
        return [
            {
                "item_id": p.item_id,
                "title": p.name,
                "text": f"{p.name}, a {p.kind.lower()} from our {p.category} department.",
                "category": p.category,
                "price": p.price,
                "stock": 100,
                "tags": [p.category, p.kind.lower(), p.name.split()[0].lower()],
            }
            for p in self.products
        ]

    def events(self, n: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the first `n` events in time order (without end if None).

        Parameters
        ----------
        n
            How many. A longer run begins with the events of a shorter one.

        Yields
        ------
        dict
            An event of the project's schema. Item and traffic_source dicts are shared between events: do not change.
        """
        serial = 0
        for block in self._visits.blocks():
            for event in self._render(block, serial):
                if serial == n:
                    return
                serial += 1
                yield event

    def json_events(self, n: int | None = None) -> Iterator[bytes]:
        """Yield the same events as JSON, as they go to topic ``events``."""
        yield from map(msgspec.json.Encoder().encode, self.events(n))

    def react(self, user: str, recommended: Sequence[str], *, nonce: int) -> str | None:
        """Return the recommended item that a visitor clicks, or None.

        A visitor looks from the top, each place 10 % less likely than the one above, and clicks on what suits the
        present taste. Depends on seed, user and `nonce` only.

        Parameters
        ----------
        user
            One of :attr:`user_ids`; KeyError otherwise.
        recommended
            Item ids, best first; unknown ones are skipped.
        nonce
            Any number that differs between two looks, such as the number of the look.
        """
        index = self._index_of_user[user]
        draws = np.random.default_rng([self.seed, 2, index, nonce]).random(len(recommended))
        taste = self._visits.taste[index] / self._visits.taste[index].sum()
        for place, (item, draw) in enumerate(zip(recommended, draws.tolist(), strict=True)):
            known = self._index_of_item.get(item)
            if known is not None and draw < 0.4 * 0.9**place * float(taste[known // (TYPES * BRANDS)]):
                return item
        return None

    def _render(self, block: Block, serial: int) -> Iterator[dict[str, Any]]:
        """Turn columns into dicts."""
        columns = (column.tolist() for column in block)
        for ts, user, session, channel, kind, items, detail in zip(*columns, strict=True):
            event: dict[str, Any] = {
                "event_id": f"{self.seed:x}-{serial:09x}",
                "event_name": NAMES[kind],
                "event_timestamp": ts,
                self._id_fields[user]: self.user_ids[user],
                "session_id": f"{session:x}",
                "platform": self._platforms[user],
                "traffic_source": self._sources[channel],
            }
            if kind == BUY:
                self._add_purchase(event, items, detail)
            elif items[0] >= 0:
                event["items"] = [self._items[items[0]][0]]
            elif kind == SEARCH:
                event["search_term"] = self.products[detail * BRANDS].kind.lower()
            elif kind == SURVEY:
                event["event_params"] = {"question": "recommend_us", "answer": detail}
            serial += 1
            yield event

    def _add_purchase(self, event: dict[str, Any], items: list[int], detail: int) -> None:
        bought = [self._items[item][detail] for item in dict.fromkeys(items) if item >= 0]
        event["items"] = bought
        event["value"] = round(sum(item["price"] * item["quantity"] for item in bought), 2)
        event["currency"] = "EUR"
        event["transaction_id"] = f"t-{event['event_id']}"

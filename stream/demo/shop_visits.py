"""How the synthetic shop's visitors behave: who comes when, and what a session does, as columns of numbers.

Sessions are drawn and walked in blocks, one step of all of them at a time (a Markov chain over what a visitor does
next), then merged by time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream.demo.shop_catalogue import ASSORTMENT, BRANDS, PERSONAS, PRICE_OF_BRAND, RULES, TYPES, products

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

VIEW, LIKE, WISH, CART, BUY, SEARCH, OPEN, CLICK, SURVEY, LEAVE = range(10)
DAY_US = 86_400_000_000
EMAIL = 2
ORGANIC = 1
CART_SIZE = 3
CATEGORIES = len(ASSORTMENT)

# what follows what, for a visitor of average spend: rows by what was done last, to be read as weights
_FUNNEL: dict[int, dict[int, float]] = {
    VIEW: {VIEW: 66, LIKE: 4, WISH: 3, CART: 9, SEARCH: 4, LEAVE: 14},
    LIKE: {VIEW: 70, CART: 12, SEARCH: 4, LEAVE: 14},
    WISH: {VIEW: 75, CART: 5, LEAVE: 20},
    CART: {VIEW: 50, BUY: 36, LEAVE: 14},
    BUY: {VIEW: 25, SURVEY: 12, LEAVE: 63},
    SEARCH: {VIEW: 94, LEAVE: 6},
    OPEN: {CLICK: 80, LEAVE: 20},
    CLICK: {VIEW: 100},
    SURVEY: {LEAVE: 100},
}
FOLLOWS_RULE = 0.45
STAYS_IN_CATEGORY = 0.72
LOOKS_BACK = 0.06
LOYAL_TO_BRAND = 0.5
EVENTS_PER_SESSION = 6.5
EVENTS_PER_DRIFT = 100  # events per user in which tastes wander once around


class Block(NamedTuple):
    """Events as columns, in time order once merged."""

    ts: Ints
    user: Ints
    session: Ints
    channel: Ints
    kind: Ints
    items: Ints  # CART_SIZE columns, -1 = none
    detail: Ints  # quantity, searched product type or survey answer


class _Walk:
    """Sessions under way, as columns: who, what is looked at, what lies in the cart."""

    def __init__(self, user: Ints, persona: Ints, channel: Ints, taste: Floats, item: Ints) -> None:
        self.user, self.persona, self.channel, self.taste = user, persona, channel, taste
        self.item, self.before, self.last = item, item.copy(), np.full(len(user), -1)
        self.cart = np.full((len(user), CART_SIZE), -1)
        self.carts = np.zeros(len(user), np.int64)


def _rows(cumulative: Floats, draw: Floats) -> Ints:
    """Draw once per row from cumulative weights that end with 1."""
    chosen: Ints = (draw[:, None] >= cumulative[:, :-1]).sum(axis=1)
    return chosen


def _cumulative(weights: Floats) -> Floats:
    """Return running sums along the last axis, scaled to end with 1."""
    sums = np.cumsum(weights, axis=-1)
    scaled: Floats = sums / sums[..., -1:]
    return scaled


class Visits:
    """Generates the events of all visitors in time order.

    Parameters
    ----------
    seed, users, start_us, concurrent, rate
        As of :class:`stream.demo.shop.Shop`.
    """

    def __init__(self, seed: int, users: int, start_us: int, concurrent: int, rate: float) -> None:
        self.seed, self.users, self.start_us = seed, users, start_us
        self.concurrent, self.rate = concurrent, rate
        self.persona = np.arange(users) * len(PERSONAS) // users
        self.first = np.searchsorted(self.persona, np.arange(len(PERSONAS)))
        self._draw_people(np.random.default_rng([seed, 0]))
        self._build_tables()

    def _draw_people(self, rng: np.random.Generator) -> None:
        """Tastes, favourite brand, device and activity of each user."""
        base = np.full((len(PERSONAS), CATEGORIES), 0.0)
        order = {category: i for i, category in enumerate(ASSORTMENT)}
        for p, persona in enumerate(PERSONAS):
            base[p] = (1 - sum(persona.tastes.values())) / CATEGORIES
            for category, share in persona.tastes.items():
                base[p, order[category]] += share
        own = rng.gamma(4.0, 0.25, (self.users, CATEGORIES))
        self.taste = (base[self.persona] * own).astype(np.float32)
        self._phase = rng.random((self.users, CATEGORIES), dtype=np.float32)
        spend = np.array([persona.spend for persona in PERSONAS], np.float64)
        # dear brands (high index) draw generous personas, cheap ones the thrifty
        liking: Floats = np.array(PRICE_OF_BRAND)[None, :] ** (2 * np.log(spend) + 0.5)[:, None]
        self._brand = _rows(_cumulative(liking)[self.persona], rng.random(self.users))
        self.platform = rng.integers(0, 3, self.users)
        self.known = rng.random(self.users) < 0.7
        self.known[self.first] = True
        activity = rng.lognormal(0.0, 0.5, self.users)
        activity[self.first] = 8 * activity.mean()
        # persona p owns the interval [p, p + 1): one search finds a user of a given persona by activity
        self._activity = np.concatenate([p + _cumulative(activity[self.persona == p]) for p in range(len(PERSONAS))])

    def _build_tables(self) -> None:
        """Cumulative weights that do not depend on chance."""
        hour = np.arange(24)[:, None]
        middle, width = np.array([(p.hour, p.hours) for p in PERSONAS]).T
        away = np.minimum((hour - middle) % 24, (middle - hour) % 24)
        visits: Floats = 0.06 + np.exp(-0.5 * (away / width) ** 2) / width * 2
        self._visits = _cumulative(visits)
        self._channels = _cumulative(np.array([p.channels for p in PERSONAS]))
        chain = np.zeros((len(PERSONAS), LEAVE, LEAVE + 1))
        for before, row in _FUNNEL.items():
            for kind, weight in row.items():
                chain[:, before, kind] = weight
        chain[:, :, (CART, BUY)] *= np.array([p.spend for p in PERSONAS])[:, None, None]
        self._chain = _cumulative(chain)
        self._types = _cumulative(np.arange(1.0, TYPES + 1) ** -0.6)
        self._brands = _cumulative(np.array([1.0, 1.3, 1.6, 1.2, 0.8]))
        index = {product.item_id: i for i, product in enumerate(products())}
        self._rule = np.full(len(index), -1)
        for antecedent, consequent in RULES:
            self._rule[index[antecedent]] = index[consequent]

    def blocks(self) -> Iterator[Block]:
        """Sessions in slices of time, merged so that events come out in time order."""
        rng = np.random.default_rng([self.seed, 1])
        size = max(16, min(4_096, self.users // 4))
        busy = np.full(self.users, self.start_us)
        now, sessions, kept_per_drawn, emitted = float(self.start_us), 0, EVENTS_PER_SESSION, 0
        held: Block | None = None
        while True:
            span = 1e6 * size * kept_per_drawn / self.rate
            starts = np.sort(rng.random(size) * span + now).astype(np.int64)
            users = self._arrivals(rng, starts)
            if held is None:
                users[: len(PERSONAS)] = self.first
            block = self._sessions(rng, starts, users, sessions, emitted / (EVENTS_PER_DRIFT * self.users))
            block = _without_overlaps(block, starts, users, busy, sessions)
            # visitors who are still here cannot come a second time: their visit is dropped and the pace made up
            kept_per_drawn = max(0.5, 0.8 * kept_per_drawn + 0.2 * len(block.ts) / size)
            sessions += size
            now += span
            merged = block if held is None else Block(*map(np.concatenate, zip(held, block, strict=True)))
            order = np.argsort(merged.ts, kind="stable")
            due = int(np.searchsorted(merged.ts[order], int(now)))
            emitted += due
            yield Block(*(column[order[:due]] for column in merged))
            held = Block(*(column[order[due:]] for column in merged))

    def _arrivals(self, rng: np.random.Generator, starts: Ints) -> Ints:
        """Who comes at these times: a persona by the hour, then a visitor by activity."""
        hour = starts % DAY_US // (DAY_US // 24)
        persona = _rows(self._visits[hour], rng.random(len(starts)))
        found = np.searchsorted(self._activity, persona + rng.random(len(starts)), side="right")
        return np.minimum(found, self.users - 1)

    def _sessions(self, rng: np.random.Generator, starts: Ints, users: Ints, serial: int, drift: float) -> Block:
        """Walk these sessions to their ends, one step of all of them at a time."""
        wander = 1.0 + 0.6 * np.sin(2 * np.pi * (self._phase[users] + drift))
        persona = self.persona[users]
        channel = _rows(self._channels[persona], rng.random(len(users)))
        walk = _Walk(users, persona, channel, _cumulative(self.taste[users] * wander), np.zeros(len(users), np.int64))
        everyone = np.arange(len(users))
        walk.item = self._pick(rng, walk, everyone, _rows(walk.taste, rng.random(len(users))))
        walk.before = walk.item.copy()
        searching = (channel == ORGANIC) & (rng.random(len(users)) < 0.6)
        walk.last = np.where(channel == EMAIL, OPEN, np.where(searching, SEARCH, VIEW))
        gap_us = 1e6 * self.concurrent / self.rate
        clock, alive, pieces = starts.copy(), everyone, []
        kind = walk.last[alive]
        while len(alive):
            pieces.append(self._step(rng, walk, alive, kind, clock, serial))
            walk.last[alive] = kind
            kind = _rows(self._chain[walk.persona[alive], kind], rng.random(len(alive)))
            alive, kind = alive[kind != LEAVE], kind[kind != LEAVE]
            self._move(rng, walk, alive, kind)
            clock[alive] += (gap_us * (0.1 + 0.9 * rng.standard_exponential(len(alive)))).astype(np.int64) + 1
        return Block(*map(np.concatenate, zip(*pieces, strict=True)))

    def _step(self, rng: np.random.Generator, walk: _Walk, alive: Ints, kind: Ints, clock: Ints, serial: int) -> Block:
        """Turn what these visitors do now into events."""
        items = np.full((len(alive), CART_SIZE), -1)
        shown = ~np.isin(kind, (SEARCH, OPEN, SURVEY))
        items[shown, 0] = walk.item[alive[shown]]
        adding = alive[kind == CART]
        walk.cart[adding, walk.carts[adding] % CART_SIZE] = walk.item[adding]
        walk.carts[adding] += 1
        items[kind == BUY] = walk.cart[alive[kind == BUY]]
        walk.cart[alive[kind == BUY]] = -1
        walk.carts[alive[kind == BUY]] = 0
        draw = rng.random(len(alive))
        detail = np.where(draw < 0.1, 1, 0)
        detail = np.where(kind == SEARCH, walk.item[alive] // BRANDS, detail)
        detail = np.where(kind == SURVEY, (4 + 7 * draw).astype(np.int64), detail)
        return Block(clock[alive], walk.user[alive], serial + alive, walk.channel[alive], kind, items, detail)

    def _move(self, rng: np.random.Generator, walk: _Walk, alive: Ints, kind: Ints) -> None:
        """Let those who view or search turn to another item (after a search or an e-mail, the one they came for)."""
        came_for = np.isin(walk.last[alive], (SEARCH, OPEN, CLICK))
        moving = alive[(kind == SEARCH) | ((kind == VIEW) & ~came_for)]
        draws = rng.random((3, len(moving)))
        here, before = walk.item[moving], walk.before[moving]
        category = np.where(draws[0] < STAYS_IN_CATEGORY, here // (TYPES * BRANDS), _rows(walk.taste[moving], draws[1]))
        there = self._pick(rng, walk, moving, category)
        there = np.where(there == here, (there + BRANDS) % len(self._rule), there)
        there = np.where(draws[2] < LOOKS_BACK, before, there)
        there = np.where((self._rule[here] >= 0) & (draws[2] > 1 - FOLLOWS_RULE), self._rule[here], there)
        walk.before[moving] = here
        walk.item[moving] = there

    def _pick(self, rng: np.random.Generator, walk: _Walk, who: Ints, category: Ints) -> Ints:
        """Choose an item of a category: popular types first, often of the visitor's favourite brand."""
        draws = rng.random((3, len(who)))
        kind = np.searchsorted(self._types, draws[0], side="right")
        brand = np.searchsorted(self._brands, draws[1], side="right")
        brand = np.where(draws[2] < LOYAL_TO_BRAND, self._brand[walk.user[who]], brand)
        chosen: Ints = (category * TYPES + kind) * BRANDS + brand
        return chosen


def _without_overlaps(block: Block, starts: Ints, users: Ints, busy: Ints, serial: int) -> Block:
    """Drop sessions that begin while the same visitor's earlier one is under way."""
    ends = starts.copy()
    np.maximum.at(ends, block.session - serial, block.ts)
    keep = np.zeros(len(starts), bool)
    until = busy.tolist()
    for i, (start, end, user) in enumerate(zip(starts.tolist(), ends.tolist(), users.tolist(), strict=True)):
        if start >= until[user]:
            keep[i] = True
            until[user] = busy[user] = end + 1
    kept = keep[block.session - serial]
    return Block(*(column[kept] for column in block))

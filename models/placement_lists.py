"""Lists of one placement for many visitors, in one kernel: what its rules make of each one's long ranked list.

`models.list_quality` has the rules; here they meet the state that serves: rings of recent items (what was seen and
bought, as far as they remember), items by index, and lists with scores and reasons.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.hashing import mix64
from models.histories import KIND_MASK, HistoryArrays
from models.kernel import kernel, lean_kernel
from models.list_quality import explore, select_diverse
from models.newcomers import Pool
from models.placement import Placement
from models.ranking import REASONS, Lists

NEW: Final = REASONS.index("new")
NOTHING, BOUGHT, SEEN = range(3)
EXCLUSIONS: Final = {"nothing": NOTHING, "bought": BOUGHT, "seen": SEEN}
BARRED = -1  # mark of an item that must not be shown; others are 1 + a position
NO_SIMILARITY: Final = np.zeros((0, 0), dtype=np.float32)  # alike are items of one category


class Rules(NamedTuple):
    """A placement as a kernel reads it: `barred` by category index, `purchase` the kind of a purchase."""

    k: int
    depth: int
    exclude: int
    per_category: int
    diversity: float
    exploration: float
    barred: NDArray[np.bool_]
    purchase: int

    @classmethod
    def of(cls, placement: Placement, depth: int, barred: NDArray[np.bool_], purchase: int) -> Rules:
        """The rules of a placement, whose lists are made from the first `depth` ranked items."""
        return cls(
            placement.k,
            depth,
            EXCLUSIONS[placement.exclude],
            placement.per_category or depth,
            placement.diversity,
            placement.exploration,
            barred,
            purchase,
        )


class Stock(NamedTuple):
    """Items by index: category (-1 = none), whether hidden, appearances, and working memory that is 0 between lists.

    `below`: an item that has appeared so often is not new any more; `appeared` may be shorter than the others.
    """

    category: NDArray[np.int32]
    hidden: NDArray[np.bool_]
    place: NDArray[np.int32]
    appeared: NDArray[np.uint32]
    below: int


class Placed(NamedTuple):
    """Lists of one placement, and for each item the probability with which it is in a list from the same scores."""

    lists: Lists
    propensity: NDArray[np.float64]

    @classmethod
    def empty(cls, users: int, k: int) -> Placed:
        """Room for `users` lists of `k` items."""
        return cls(Lists.empty(users, k), np.zeros((users, k)))

    def of(self, rows: NDArray[np.int64]) -> Placed:
        """Some of the lists, as copies."""
        return Placed(self.lists.of(rows), self.propensity[rows])


@kernel
def place_lists(
    rules: Rules,
    wide: Lists,
    histories: HistoryArrays,
    users: NDArray[np.int32],
    chance: NDArray[np.uint64],
    pool: Pool,
    stock: Stock,
    out: Placed,
) -> None:
    """Make a placement's list for each of some users.

    Parameters
    ----------
    rules
        The placement.
    wide
        Ranked lists, at least ``rules.depth`` long where there is so much, without hidden items.
    histories, users
        Recent items, and whose lists to make.
    chance
        Per user a hash of user, event and placement: what exploration draws follows from it.
    pool
        New items.
    stock
        What is known of items.
    out
        Filled in place, one row per user; new items have score 0 and the reason `NEW`.

    Notes
    -----
    See README for the cost; a placement without rules is a copy.
    """
    room = np.empty(rules.k, dtype=np.int32)
    fresh = np.empty(len(pool.item), dtype=np.int32)
    for u in range(len(users)):
        n = length_of_list(wide.item[u, : rules.depth])
        if n == 0:
            continue
        mark_history(rules, histories, users[u], stock.place, BARRED)
        items = wide.item[u, :n]
        taken = bar(rules, items, stock)
        category = stock.category[items]
        scores = wide.micro[u, :n].astype(np.float64)
        filled = select_diverse(
            scores, category, np.zeros((0, 0), dtype=np.float32), taken, rules.diversity, rules.per_category, room
        )
        ranked = items[room[:filled]]
        for i in range(filled):
            stock.place[ranked[i]] = 1 + room[i]
        most = choose_fresh(rules, pool.item, stock, fresh) if rules.exploration > 0.0 else 0
        length = explore(
            ranked, fresh[:most], pool.share, rules.exploration, chance[u], out.lists.item[u], out.propensity[u]
        )
        describe(wide, out.lists, u, length, stock.place)
        for i in range(filled):
            stock.place[ranked[i]] = 0
        mark_history(rules, histories, users[u], stock.place, 0)


@lean_kernel
def length_of_list(items: NDArray[np.int32]) -> int:
    """Items before the first -1."""
    n = 0
    while n < len(items) and items[n] >= 0:
        n += 1
    return n


@lean_kernel
def mark_history(rules: Rules, histories: HistoryArrays, user: int, place: NDArray[np.int32], mark: int) -> None:
    """Mark the item a user is on, and what the placement does not show again."""
    size = histories.item.shape[1]
    head = np.int64(histories.head[user])
    for i in range(np.int64(histories.count[user])):
        slot = head - i if head >= i else head - i + size
        bought = (histories.kind[user, slot] & KIND_MASK) == rules.purchase
        if i == 0 or rules.exclude == SEEN or (rules.exclude == BOUGHT and bought):
            place[histories.item[user, slot]] = mark


@kernel
def bar(rules: Rules, items: NDArray[np.int32], stock: Stock) -> NDArray[np.bool_]:
    """Which candidates must not be shown."""
    taken = np.zeros(len(items), dtype=np.bool_)
    for c in range(len(items)):
        taken[c] = stock.place[items[c]] == BARRED or is_barred(rules.barred, stock.category[items[c]])
    return taken


@lean_kernel
def is_barred(barred: NDArray[np.bool_], category: int) -> bool:
    """Whether nothing of a category is shown."""
    return bool(0 <= category < len(barred) and barred[category])


@lean_kernel
def choose_fresh(rules: Rules, pool: NDArray[np.int32], stock: Stock, fresh: NDArray[np.int32]) -> int:
    """Write the new items that may be in a list beside those that are; returns how many.

    The pool is from a while ago: what has become common or hidden since is left out.
    """
    most = 0
    for item in pool:
        fresh[most] = item
        new = item >= len(stock.appeared) or stock.appeared[item] < stock.below
        shown = new and stock.place[item] == 0 and not stock.hidden[item]
        most += shown and not is_barred(rules.barred, stock.category[item])
    return most


@lean_kernel
def describe(wide: Lists, out: Lists, u: int, length: int, place: NDArray[np.int32]) -> None:
    """Take over scores and reasons of ranked items; new ones have a reason of their own."""
    for i in range(length):
        at = place[out.item[u, i]] - 1
        if at >= 0:
            out.micro[u, i] = wide.micro[u, at]
            out.why[u, i] = wide.why[u, at]
            out.reason[u, i] = wide.reason[u, at]
        else:
            out.micro[u, i] = 0
            out.why[u, i] = -1
            out.reason[u, i] = NEW
    for i in range(length, out.item.shape[1]):
        out.item[u, i] = -1


@kernel
def chances(hashes: NDArray[np.uint64], events: NDArray[np.uint32], salt: np.uint64) -> NDArray[np.uint64]:
    """A number per user from the user's id, how many events there were, and a placement's salt."""
    out = np.empty(len(hashes), dtype=np.uint64)
    for u in range(len(hashes)):
        out[u] = mix64(hashes[u] ^ mix64(salt ^ mix64(np.uint64(events[u]))))
    return out


@kernel
def signatures(items: NDArray[np.int32], hashes: NDArray[np.uint64], period: NDArray[np.int64]) -> NDArray[np.uint64]:
    """What tells a list from another: its items by the hashes of their ids, in order, and a period; above 1."""
    out = np.empty(len(items), dtype=np.uint64)
    for row in range(len(items)):
        value = mix64(np.uint64(period[row]))
        for item in items[row]:
            if item < 0:
                break
            value = mix64(value ^ hashes[item])
        out[row] = value | np.uint64(2)
    return out

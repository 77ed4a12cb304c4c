"""State of one partition of topic ``events``; `stream.stages.user_snapshot` copies it and brings it back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.blend import RATE, Blend
from models.blend_features import NEAR_POWER
from models.dedup import SeenWindow
from models.eviction import NEVER, longest_untouched
from models.histories import Histories
from models.nesting import prefixed
from models.newcomers import Newcomers, Pool
from models.placement import Placement
from models.profiles import Profiles
from models.ranking import STEP_SHARE
from models.tombstones import Tombstones
from models.vocabulary import Vocabulary, grown
from stream.copying import Changes
from stream.stages.census import Census
from stream.stages.claims import Claims

EVERYONE: Final = slice(None)
EVICTED: Final = 4_096  # most users dropped at a time, in about 2 ms
LINKED: Final = 262_144  # links remembered: beyond that many in an hour some are made again, in vain

ITEM_COLUMNS: Final = ("histories.item", "last")  # hold indices of items


@dataclass(frozen=True, slots=True)
class UserRules:
    """What a shop decides about learning and lists; see the settings table."""

    history: int = 20
    k: int = 20
    lateness_s: int = 86_400
    dedup: int = 1_000_000
    sample_rate: float = 1 / 16
    consent: bool = True
    users: int = 10_000_000
    tombstones: int = 1_000_000
    ranking: str = "blend"  # or "covisit"
    blend_frozen: bool = False
    blend_rate: float = RATE
    near: float = NEAR_POWER
    step_share: float = STEP_SHARE
    placements: tuple[Placement, ...] = ()
    link: bool = True  # a cookie's history follows to the customer
    served: bool = False  # log all lists, not only those of placements that explore

    @property
    def explores(self) -> bool:
        """Whether any placement shows new items."""
        return any(placement.exploration > 0 for placement in self.placements)

    @property
    def depth(self) -> int:
        """How many ranked items per user all lists are made from."""
        return max([self.k, *(placement.candidates(self.history) for placement in self.placements)])


class UserShard:
    """Learned and derived state of a shard.

    Learned state is a pure function of the partition's log; derived state (what was last pushed, hits, the blend) also
    depends on how far other stages have got and is never compared between runs.

    Parameters
    ----------
    rules
        What the shop decided.
    targets
        Number of item partitions.

    Notes
    -----
    Memory: about 460 bytes per user with a 36-byte id, at most ``rules.users`` of them, and 16 MB for
    the dedup window, 14 MB for links; 16 bytes per forgotten user. With the blend 40 bytes per item of the process and
    at most 8 MB.
    Whatever changes rows of users notes them in `changes`: a copy may be under way.
    """

    def __init__(self, rules: UserRules, targets: int) -> None:
        self.rules = rules
        self.users = Vocabulary()
        self.histories = Histories(rules.history)
        self.shortest = rules.history  # what histories were ever cut to: one that has more touches may lack older ones
        self.profiles = Profiles()
        self.seen = SeenWindow(rules.dedup)
        self.tombstones = Tombstones(rules.tombstones)
        self.linked = SeenWindow(LINKED)  # which customer and cookie, in which hour
        self.claims = Claims()
        self.heard: dict[tuple[int, int], int] = {}  # by kind and partition: the highest place of what came from there
        self.sent = np.full(targets, -1, dtype=np.int64)
        self.watermark = 0
        self.counts: Counter[str] = Counter()
        self.touched = np.zeros(0, dtype=np.uint32)  # second of the last event, learned or not: the oldest go first
        self.hand = 0
        self.last = np.zeros((0, rules.k), dtype=np.int32)
        self.pushed_ms = np.zeros(0, dtype=np.int64)
        self.segment = np.zeros(0, dtype=np.int16)
        self.profiled_ms = np.zeros(0, dtype=np.int64)
        self.offers = np.zeros(0, dtype=np.uint64)
        self.placed = np.zeros((0, len(rules.placements)), dtype=np.uint64)  # signature of each list, 0 for no key
        self.named = {placement.name for placement in rules.placements}  # placements that may have keys in Redis
        self.newcomers = Newcomers()  # counts only if some placement explores
        self.pool: tuple[int, Pool] | None = None  # the new items found last, and when
        self.hits = np.zeros(3, dtype=np.float64)
        self.shelf = np.zeros(0, dtype=np.uint64)  # hashes of the offers that may stand in Redis, with all their terms
        self.renewed: NDArray[np.uint64] | None = None  # those that users judged by the present review may have
        self.circle = 0  # users when that began: later ones are of no concern
        self.reviewed = 0  # where in the circle it stands
        self.unreviewed = 0  # how much of the circle it has still to look at
        # empty for ever with another ranking: pages nobody touches
        self.blend = Blend(rate=rules.blend_rate, frozen=rules.blend_frozen)
        self.known = -1  # up to this offset item rows have learned already: nobody is tested on that
        self.rehearses = False  # whether what is being learned is such
        self.heard_of: int | None = None  # up to which offset other workers say that they have; None: not asked yet
        self.changes = Changes()
        self._with_recs = Census(lambda rows: self.last[rows, 0] >= 0)
        self._with_offers = Census(lambda rows: self.offers[rows] != 0)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Stable hash of each user index."""
        return self.users.hashes

    @property
    def now_s(self) -> int:
        """The highest event time so far, Unix time: offers are judged at it, whoever's they are."""
        return self.watermark // 1_000_000

    def reserve(self) -> None:
        """Make room for every interned user."""
        n = self.users.size
        self.histories.reserve(n)
        self.profiles.reserve(n)
        had = len(self.last)
        if n > had:
            self.last = grown(self.last, max(n, 256))
            self.last[had:] = -1
            self.segment = grown(self.segment, len(self.last))
            self.segment[had:] = -1
            self.touched = grown(self.touched, len(self.last))
            self.touched[had:] = NEVER
            self.pushed_ms = grown(self.pushed_ms, len(self.last))
            self.profiled_ms = grown(self.profiled_ms, len(self.last))
            self.offers = grown(self.offers, len(self.last))
            self.placed = grown(self.placed, len(self.last))

    def make_room(self) -> NDArray[np.int32]:
        """Drop the users that came last longest ago if the shard is full; to be called between two records.

        Between records, and never between batches: where a fetch ends is chance, and the same log must drop the same.

        Returns
        -------
        NDArray[np.int32]
            The dropped users' indices, which go to the next new users.
        """
        dropped = [np.zeros(0, dtype=np.int32)]
        while len(self.users) >= self.rules.users:
            most = min(max(self.rules.users // 100, 1), EVICTED)
            users, self.hand = longest_untouched(self.touched[: self.users.size], self.hand, most)
            self.drop(users)
            self.counts["evicted"] += len(users)
            dropped.append(users)
        return np.concatenate(dropped)

    def drop(self, users: NDArray[np.int32]) -> None:
        """Forget all that is known of some users."""
        self.changes.add(users)
        self.users.remove(users)
        self.histories.clear(users)
        self.profiles.clear(users)
        self.touched[users] = NEVER
        self.last[users] = -1
        self.segment[users] = -1
        for column in (self.pushed_ms, self.profiled_ms, self.offers, self.placed):
            column[users] = 0

    def doubt(self, users: slice | NDArray[np.int32] = EVERYONE) -> None:
        """Redis may have lost what was pushed: at the next touch a user's keys are written again, changed or not."""
        self.pushed_ms[users] = 0
        self.profiled_ms[users] = np.minimum(self.profiled_ms[users], 1)
        self.offers[users] = np.minimum(self.offers[users], 1)
        self.placed[users] = np.minimum(self.placed[users], 1)

    def shelve(self, terms: NDArray[np.uint64]) -> None:
        """Offers (hashes, rising) may be pushed from now on."""
        self.shelf = np.union1d(self.shelf, terms)
        if self.renewed is not None:
            self.renewed = np.union1d(self.renewed, terms)

    def outdated(self, terms: NDArray[np.uint64], most: int) -> NDArray[np.int32]:
        """The next users, at most so many, who may have been given an offer that is not among these.

        When more offers go meanwhile, those judged before come again after those still to be judged: otherwise offers
        that end one after another would keep a review with the first users.
        """
        if not np.isin(self.shelf if self.renewed is None else self.renewed, terms).all():
            self.renewed, self.circle, self.unreviewed = terms, self.users.size, self.users.size
        if self.renewed is None:
            return np.zeros(0, dtype=np.int32)
        start = self.reviewed if self.reviewed < self.circle else 0
        end = min(start + self.unreviewed, self.circle)
        users = (start + np.flatnonzero(self.offers[start:end])[:most]).astype(np.int32)
        self.reviewed = int(users[-1]) + 1 if len(users) == most else end
        self.unreviewed -= self.reviewed - start
        if len(users):
            self.changes.add(users)
        elif self.unreviewed:
            return self.outdated(terms, most)
        else:
            self.shelf, self.renewed = self.renewed, None
        return users

    def review_again(self, users: NDArray[np.int32]) -> None:
        """What was decided about users of `outdated` has not reached Redis."""
        self.doubt(users)
        self.offers[users] = 1  # also where a key was to be deleted
        self.unreviewed += self.reviewed - int(users[0])
        self.reviewed = int(users[0])

    def facts(self) -> dict[str, Any]:
        """What operators see of the shard in `rv:meta`."""
        return {
            "counts": dict(self.counts),
            "hits": self.hits.tolist(),
            "users": len(self.users),
            "with_recs": self._with_recs.count(self.users.size),
            "with_offers": self._with_offers.count(self.users.size),
            "ts_ms": self.watermark // 1000,
            **({"blend": self.blend.facts()} if self.rules.ranking == "blend" else {}),
        }

    def columns(self) -> dict[str, NDArray[Any]]:
        """Every array with a row per user, by its name in a snapshot."""
        return {
            **prefixed("histories", self.histories.arrays._asdict()),
            **prefixed("profiles", self.profiles.arrays._asdict()),
            "touched": self.touched,
            "last": self.last,
            "pushed_ms": self.pushed_ms,
            "segment": self.segment,
            "profiled_ms": self.profiled_ms,
            "offers": self.offers,
            **({"placed": self.placed} if self.rules.placements else {}),
        }

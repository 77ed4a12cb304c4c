"""State of one partition of topic ``events``: what it holds, and how it is copied and brought back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.blend import Blend
from models.conversion import resized_lists, resized_rings
from models.dedup import SeenWindow
from models.eviction import NEVER, longest_untouched
from models.histories import Histories
from models.nesting import part, prefixed
from models.newcomers import Newcomers
from models.placement import Placement
from models.profiles import CUSTOMER, Profiles
from models.references import translate
from models.tombstones import Tombstones
from models.vocabulary import Vocabulary, grown
from stream.copying import AGAIN, Changes, Copying, Rows, Source, Used, again, facts, renewed, spans, texts_of
from stream.errors import ConfigurationError
from stream.stages.census import Census
from stream.stages.space import ItemSpace

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
    placements: tuple[Placement, ...] = ()
    link: bool = False  # a cookie's history follows to the customer
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
    the dedup window, 4 MB for links; 16 bytes per forgotten user. With the blend 40 bytes per item of the process and
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
        self.pool: tuple[int, NDArray[np.int32]] | None = None  # the new items found last, and when
        self.hits = np.zeros(3, dtype=np.float64)
        self.shelf = np.zeros(0, dtype=np.uint64)  # hashes of the offers that may stand in Redis, with all their terms
        self.reviewing: NDArray[np.uint64] | None = None  # the offers that users' are compared with just now
        self.reviewed = 0  # users of whom that is done
        self.blend = Blend(frozen=rules.blend_frozen)  # empty for ever with another ranking: pages nobody touches
        self._unread: dict[str, NDArray[Any]] = {}  # the blend of a snapshot, until its items are translated
        self._appeared: dict[str, NDArray[Any]] = {}  # the newcomers of a snapshot, likewise
        self.changes = Changes()
        self._with_recs = Census(lambda rows: self.last[rows, 0] >= 0)
        self._with_offers = Census(lambda rows: self.offers[rows] != 0)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Stable hash of each user index."""
        return self.users.hashes

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

    def outdated(self, terms: NDArray[np.uint64], most: int) -> NDArray[np.int32]:
        """The next users, at most so many, who may have been given an offer that is not among these."""
        if np.isin(self.shelf, terms).all():
            return np.zeros(0, dtype=np.int32)
        if self.reviewing is not terms:
            self.reviewing, self.reviewed = terms, 0
        waiting = self.offers[self.reviewed : self.users.size]
        users = (self.reviewed + np.flatnonzero(waiting)[:most]).astype(np.int32)
        if len(users):
            self.reviewed = int(users[-1]) + 1
            self.changes.add(users)
        else:
            self.shelf, self.reviewing = terms, None
        return users

    def review_again(self, users: NDArray[np.int32]) -> None:
        """What was decided about users of `outdated` has not reached Redis."""
        self.doubt(users)
        self.offers[users] = 1  # also where a key was to be deleted
        self.reviewed = min(self.reviewed, int(users[0]))

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

    def copy(self, space: ItemSpace) -> Copying:
        """Begin a copy of the whole state, with the ids of the items it refers to; no walk over users in Python."""
        self.reserve()
        used = Used(space.ids)
        self.changes.watch()
        ending = ExitStack()  # no index may go to another item before the ids are copied, which comes last
        ending.enter_context(space.reclaimer.paused())
        ending.callback(self.changes.take)

        def see(name: str, piece: NDArray[Any]) -> None:
            if name in ("blend.items", "newcomers.item") or name.removeprefix(AGAIN) in ITEM_COLUMNS:
                used.add(piece)

        def still() -> dict[str, Source]:
            self.reserve()
            return {
                **again(self.columns(), self.changes.take()),
                **prefixed("users", _rows(self.users.arrays())),
                **prefixed("seen", _rows(self.seen.arrays())),
                **prefixed("tombstones", _rows(self.tombstones.arrays())),
                **prefixed("linked", _rows(self.linked.arrays())),
                "blend.items": Known(self.blend),
                **prefixed("blend", {name: Known(self.blend, array) for name, array in self.blend.by_item().items()}),
                **prefixed("blend", _rows(self.blend.state())),
                **prefixed("newcomers", _rows(self.newcomers.snapshot())),
                **prefixed("items", used.sources()),
                **prefixed("categories", _rows(space.categories.arrays())),
                "sent": Rows(self.sent),
                "hits": Rows(self.hits),
                "shelf": Rows(self.shelf),
                "facts": facts(self._told()),
            }

        n = self.users.size
        large = {name: Rows(array[:n]) for name, array in self.columns().items()}
        return Copying(large, still, see, ending.close)

    def _told(self) -> dict[str, Any]:
        counts = dict(self.counts)
        names = [placement.name for placement in self.rules.placements]
        return {
            "watermark": self.watermark,
            "counts": counts,
            "hand": self.hand,
            "shortest": self.shortest,
            "placements": names,
            "named": sorted(self.named),
            "heard": sorted((*source, place) for source, place in self.heard.items()),
        }

    @classmethod
    def restore(cls, rules: UserRules, space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> UserShard:
        """A shard from the arrays of `copy` (they become its own), translated to this process's indices.

        About 0.5 s per million users; no walk over them in Python. Kept under other settings, they are converted.

        Raises
        ------
        ConfigurationError
            A setting has changed that no conversion can follow.
        """
        check_targets(space, arrays)
        shard = cls.unpacked(rules, arrays)
        shard.translate_items(arrays["items.codes"], space.encode(texts_of(arrays["items.texts"])))
        shard.translate_categories(space, arrays)
        return shard

    @classmethod
    def unpacked(cls, rules: UserRules, arrays: Mapping[str, NDArray[Any]]) -> UserShard:
        """The same with the indices of the process that copied it. Touches nothing else: may run in a thread."""
        shard = cls(rules, len(arrays["sent"]))
        shard.users = Vocabulary.from_arrays(part(arrays, "users"))
        columns = {name: renewed(arrays, name, shard.users.size) for name in shard.columns() if name in arrays}
        columns["last"] = resized_lists(columns["last"], rules.k)
        shard.histories = Histories.restore(resized_rings(part(columns, "histories"), rules.history))
        shard.profiles = Profiles.restore(part(columns, "profiles"))
        for name in ("touched", "last", "pushed_ms", "segment", "profiled_ms", "offers"):
            setattr(shard, name, columns[name])
        shard.seen = SeenWindow.from_arrays(part(arrays, "seen"), rules.dedup)
        shard.tombstones = Tombstones.from_arrays(part(arrays, "tombstones"), rules.tombstones)
        shard._unread = part(arrays, "blend")
        shard.sent, shard.hits = arrays["sent"], arrays["hits"]
        shard.shelf = arrays.get("shelf", np.zeros(1, dtype=np.uint64))  # not known: everyone's offers are looked at
        told = msgspec.json.decode(arrays["facts"].tobytes())
        shard.watermark, shard.hand = told["watermark"], told["hand"]
        shard.counts.update(told["counts"])
        if "heard" in told:
            shard.heard = {(kind, source): place for kind, source, place in told["heard"]}
            shard.linked = SeenWindow.from_arrays(part(arrays, "linked"), LINKED)
        else:
            shard.profiles.arrays.flags[:] |= CUSTOMER  # who is one was not noted then: better none moves than theirs
        shard.shortest = min(rules.history, told.get("shortest", columns["histories.item"].shape[1]))
        shard.named.update(told.get("named", ()))
        shard.placed = _replaced(columns.get("placed"), told.get("placements", ()), rules, shard.users.size)
        shard._appeared = part(arrays, "newcomers") if rules.explores else {}
        return shard

    def translate_items(self, theirs: NDArray[np.int32], ours: NDArray[np.int32]) -> None:
        """Put this process's indices of items in place of another's; may run in a thread before the shard is used."""
        columns = self.columns()
        for name in ITEM_COLUMNS:
            translate(columns[name], theirs, ours)
        if self._unread:
            for name in ("items", "popular"):
                translate(self._unread[name], theirs, ours)
            self.blend = Blend.restore(self._unread, frozen=self.rules.blend_frozen)
            self._unread = {}
        if self._appeared:
            translate(self._appeared["item"], theirs, ours)
            self.newcomers = Newcomers.restore(self._appeared)
            self._appeared = {}

    def translate_categories(self, space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> None:
        """The same for the categories of a snapshot."""
        names = Vocabulary.from_arrays(part(arrays, "categories"))
        known = np.arange(names.size, dtype=np.int32)
        translate(self.columns()["profiles.category"], known, space.encode_categories(names.texts(known)))


def check_targets(space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a snapshot of another number of item partitions."""
    if len(arrays["sent"]) != space.partitions:
        raise ConfigurationError(
            f"RIVULET_COVISITS_PARTITIONS={space.partitions}, but the snapshot was made with {len(arrays['sent'])}:"
            " items belong to partitions by that count, which cannot be changed"
        )


class Known(NamedTuple):
    """The items a blend knows, or what a column of it says of each of them."""

    blend: Blend
    column: NDArray[Any] | None = None

    def slices(self) -> Iterator[NDArray[Any]]:
        """See `Source`: a search in one go would hold the event loop for some milliseconds per million items."""
        for span in spans(len(self.blend.arrays.tallies.slow), 8):
            items = self.blend.items(span)
            yield items if self.column is None else self.column[items]


def _replaced(
    before: NDArray[np.uint64] | None, names: Sequence[str], rules: UserRules, users: int
) -> NDArray[np.uint64]:
    """Signatures of the present placements' lists from those of other placements."""
    placed = np.zeros((users, len(rules.placements)), dtype=np.uint64)
    for column, placement in enumerate(rules.placements):
        if before is not None and placement.name in names:
            placed[:, column] = before[:, names.index(placement.name)]
    return placed


def _rows(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Source]:
    return {name: Rows(array) for name, array in arrays.items()}

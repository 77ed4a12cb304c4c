"""State of one partition of topic ``events``: what it holds, and how it is copied and brought back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from models.dedup import SeenWindow
from models.histories import Histories
from models.nesting import part, prefixed
from models.profiles import Profiles
from models.vocabulary import Vocabulary, grown
from stream.stages.space import ItemSpace


@dataclass(frozen=True, slots=True)
class UserRules:
    """What a shop decides about learning and lists; see the settings table."""

    history: int = 20
    k: int = 20
    lateness_s: int = 86_400
    dedup: int = 1_000_000
    sample_rate: float = 1 / 16
    consent: bool = True


class UserShard:
    """Learned and derived state of a shard.

    Learned state is a pure function of the partition's log; derived state (what was last pushed, hits) also depends on
    how far other stages have got and is never compared between runs.

    Parameters
    ----------
    rules
        What the shop decided.
    targets
        Number of item partitions.

    Notes
    -----
    Memory: about 450 bytes per user with a 36-byte id, and 16 MB for the dedup window.
    """

    def __init__(self, rules: UserRules, targets: int) -> None:
        self.rules = rules
        self.users = Vocabulary()
        self.histories = Histories(rules.history)
        self.profiles = Profiles()
        self.seen = SeenWindow(rules.dedup)
        self.sent = np.full(targets, -1, dtype=np.int64)
        self.watermark = 0
        self.counts: Counter[str] = Counter()
        self.last = np.zeros((0, rules.k), dtype=np.int32)
        self.pushed_ms = np.zeros(0, dtype=np.int64)
        self.segment = np.zeros(0, dtype=np.int16)
        self.profiled_ms = np.zeros(0, dtype=np.int64)
        self.offers = np.zeros(0, dtype=np.uint64)
        self.hits = np.zeros(3, dtype=np.float64)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Stable hash of each user index."""
        return self.users.hashes

    def reserve(self) -> None:
        """Make room for every interned user."""
        n = len(self.users)
        self.histories.reserve(n)
        self.profiles.reserve(n)
        had = len(self.last)
        if n > had:
            self.last = grown(self.last, max(n, 256))
            self.last[had:] = -1
            self.segment = grown(self.segment, len(self.last))
            self.segment[had:] = -1
            self.pushed_ms = grown(self.pushed_ms, len(self.last))
            self.profiled_ms = grown(self.profiled_ms, len(self.last))
            self.offers = grown(self.offers, len(self.last))

    def doubt(self) -> None:
        """Redis may have lost what was pushed: at the next touch a user's keys are written again, changed or not."""
        self.pushed_ms[:] = 0
        self.profiled_ms[self.profiled_ms > 0] = 1
        self.offers[self.offers != 0] = 1

    def facts(self) -> dict[str, Any]:
        """What operators see of the shard in `rv:meta`."""
        return {
            "counts": dict(self.counts),
            "hits": self.hits.tolist(),
            "users": len(self.users),
            "with_recs": int((self.last[:, 0] >= 0).sum()),
            "with_offers": int((self.offers != 0).sum()),
            "ts_ms": self.watermark // 1000,
        }

    def copy(self, space: ItemSpace) -> dict[str, NDArray[Any]]:
        """Copies of the whole state, with the ids its indices stand for; plain memory copies, no walk over users."""
        n = len(self.users)
        self.reserve()
        facts = {"watermark": self.watermark, "counts": dict(self.counts)}
        return {
            **prefixed("users", self.users.arrays()),
            **prefixed("histories", self.histories.snapshot(n)),
            **prefixed("profiles", self.profiles.snapshot(n)),
            **prefixed("seen", self.seen.arrays()),
            **prefixed("items", space.ids.arrays()),
            **prefixed("categories", space.categories.arrays()),
            "sent": self.sent.copy(),
            "facts": np.frombuffer(msgspec.json.encode(facts), dtype=np.uint8),
            "last": self.last[:n].copy(),
            "pushed_ms": self.pushed_ms[:n].copy(),
            "segment": self.segment[:n].copy(),
            "profiled_ms": self.profiled_ms[:n].copy(),
            "offers": self.offers[:n].copy(),
            "hits": self.hits.copy(),
        }

    @classmethod
    def restore(cls, rules: UserRules, space: ItemSpace, arrays: Mapping[str, NDArray[Any]]) -> UserShard:
        """A shard from the arrays of `copy`, translated to this process's indices."""
        shard = cls(rules, len(arrays["sent"]))
        shard.users = Vocabulary.from_arrays(part(arrays, "users"))
        items = _translation(space.encode, part(arrays, "items"))
        categories = _translation(space.encode_categories, part(arrays, "categories"))
        histories = dict(part(arrays, "histories"))
        histories["item"] = _translated(histories["item"], items)
        shard.histories = Histories.restore(histories)
        profiles = dict(part(arrays, "profiles"))
        profiles["category"] = _translated(profiles["category"], categories)
        shard.profiles = Profiles.restore(profiles)
        shard.seen = SeenWindow.from_arrays(part(arrays, "seen"))
        shard.sent = np.array(arrays["sent"])
        facts = msgspec.json.decode(arrays["facts"].tobytes())
        shard.watermark = facts["watermark"]
        shard.counts.update(facts["counts"])
        shard.last = _translated(arrays["last"], items)
        shard.pushed_ms = np.array(arrays["pushed_ms"])
        shard.segment = np.array(arrays["segment"])
        shard.profiled_ms = np.array(arrays["profiled_ms"])
        shard.offers = np.array(arrays["offers"])
        shard.hits = np.array(arrays["hits"])
        return shard


def _translation(encode: Any, ids: Mapping[str, NDArray[Any]]) -> NDArray[np.int32]:
    """For each index of the snapshot's process the index here; one more entry, -1, for "none"."""
    theirs = Vocabulary.from_arrays(ids)
    ours = encode(theirs.texts(range(len(theirs))))
    return np.append(ours, np.int32(-1)).astype(np.int32)


def _translated(indices: NDArray[np.int32], translation: NDArray[np.int32]) -> NDArray[np.int32]:
    return translation[indices]
